/**
 * The mount table and the few mounts hostctl makes itself. Format: proc_pid_mountinfo(5).
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import type { Exec } from './exec.ts';

export interface MountEntry {
  readonly mountPoint: string;
  /** Path inside the mounted file system that stands at the mount point. */
  readonly root: string;
  readonly type: string;
  readonly source: string;
  /** Options of the mount itself, such as `ro`. */
  readonly options: readonly string[];
  /** Options of the file system, such as `lowerdir=…`. */
  readonly superOptions: readonly string[];
  /** `major:minor`; anonymous (`0:NN`) on btrfs and overlay. */
  readonly device: string;
  /** Whether what is mounted below it shows in other mount namespaces too. */
  readonly isShared: boolean;
}

export interface Mounts {
  table(): readonly MountEntry[];
  /** The tables of every mount namespace that a process lives in, as far as this one may look; points as seen there. */
  everywhere(): readonly MountEntry[];
  /** `mount -t type -o options source target`. */
  mount(source: string, target: string, type: string, options: readonly string[]): Promise<void>;
  remount(target: string, options: readonly string[]): Promise<void>;
  umount(target: string): Promise<void>;
}

export function openMounts(exec: Exec): Mounts {
  return {
    table: () => parseMountInfo(readFileSync('/proc/self/mountinfo', 'utf8')),
    everywhere: () => [...tablesOfProcesses()].flat(),
    async mount(source, target, type, options) {
      await exec.run('mount', ['-t', type, ...(options.length > 0 ? ['-o', options.join(',')] : []), source, target]);
    },
    async remount(target, options) {
      await exec.run('mount', ['-o', ['remount', ...options].join(','), target]);
    },
    async umount(target) {
      await exec.run('umount', [target]);
    },
  };
}

/** Processes that end meanwhile, have ended but were not waited for, or are not ours to look at. */
const OUT_OF_SIGHT = new Set(['ENOENT', 'ESRCH', 'EINVAL', 'EACCES', 'EPERM']);

function* tablesOfProcesses(): Generator<MountEntry[], void> {
  const seen = new Set<string>();
  for (const pid of readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))) {
    try {
      // A process in a chroot sees a part of its namespace's table only.
      const view = `${readlinkSync(`/proc/${pid}/ns/mnt`)} ${readlinkSync(`/proc/${pid}/root`)}`;
      if (seen.has(view)) continue;
      yield parseMountInfo(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'));
      seen.add(view);
    } catch (error) {
      if (!OUT_OF_SIGHT.has(errnoOf(error) ?? '')) throw error;
    }
  }
}

/** Parses mountinfo text, oldest mount first. */
export function parseMountInfo(text: string): MountEntry[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [front, back] = line.split(' - ', 2);
      const [, , device, root, mountPoint, options, ...propagation] = front?.split(' ') ?? [];
      const [type, source, superOptions] = back?.split(' ') ?? [];
      if (device === undefined || root === undefined || mountPoint === undefined || type === undefined) {
        throw new HostctlError('format-invalid', `Cannot read the mount table line "${line}"`);
      }
      return {
        mountPoint: unescape(mountPoint),
        root: unescape(root),
        type,
        source: unescape(source ?? ''),
        options: (options ?? '').split(','),
        superOptions: (superOptions ?? '').split(','),
        device,
        isShared: propagation.some((field) => field.startsWith('shared:')),
      };
    });
}

/** The mount that `path` (absolute, without symlinks) lies on: the last one of the longest matching mount point. */
export function mountOf(table: readonly MountEntry[], path: string): MountEntry | undefined {
  let best: MountEntry | undefined;
  for (const entry of table) {
    const prefix = entry.mountPoint === '/' ? '/' : `${entry.mountPoint}/`;
    if (path !== entry.mountPoint && !path.startsWith(prefix)) continue;
    if (best === undefined || entry.mountPoint.length >= best.mountPoint.length) best = entry;
  }
  return best;
}

function unescape(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}
