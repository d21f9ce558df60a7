/**
 * The place of boot entries and kernels, and what it takes to make a change there durable. On FAT a name is never
 * replaced and `syncfs` flushes nothing; boot loaders replay no journal, so on a journalled file system a change counts
 * only once it is written back in place.
 */

import { closeSync, realpathSync } from 'node:fs';
import { HostctlError } from '../errors.ts';
import { compareVersions } from '../format/bls/version.ts';
import { formatMebibytes } from '../format/size.ts';
import { freeSpace, isDirectory, openDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { mountOf, type MountEntry } from '../sys/mounts.ts';
import { hasGrub } from './grub.ts';
import { runningSystemdBoot } from './loader-variables.ts';

export interface BootPartition {
  /** Absolute, without symlinks. */
  readonly path: string;
  /** What stands before a path of ours in an entry: entries name files from the root of their file system. */
  readonly prefix: string;
  readonly isFat: boolean;
  /** Whether a boot loader may read this very file system, so that its journal must be written back. */
  readonly isLoaderRead: boolean;
  /** `ro` in the mount table. */
  readonly isReadOnly: boolean;
  /** Whether GRUB chooses among the entries, by the script that `install` puts there: it may not be so yet. */
  readonly isGrub: boolean;
  /** Whether the loader is known to take `uki` in an entry, and then counts no boots by `efi`. */
  readonly takesUki: boolean;
}

/** The systemd-boot that knows the key `uki`; to older ones an entry with it starts nothing. */
const FIRST_WITH_UKI = '258';

/** Where a boot partition is mounted on a running system, most wanted first. */
const USUAL_PLACES = ['/boot', '/efi', '/boot/efi'] as const;
const FAT_TYPES = new Set(['vfat', 'msdos', 'fat']);

/**
 * @param sysroot - absolute, without symlinks
 * @param isRunning - whether `sysroot` is the root of the running machine
 * @param explicit - what the user named, if anything
 */
export function openBootPartition(
  host: Host,
  sysroot: string,
  isRunning: boolean,
  explicit: string | undefined,
): BootPartition {
  const path = explicit === undefined ? findBoot(host.mounts.table(), sysroot, isRunning) : realPath(explicit);
  if (!isDirectory(path)) {
    throw new HostctlError('usage', `The boot directory "${path}" is not a directory`, {
      hint: 'Mount the boot partition, or name it with --boot DIR',
    });
  }
  // Read after an automount may have been triggered.
  const mount = mountOf(host.mounts.table(), path);
  return {
    path,
    prefix: entryPrefix(mount, sysroot, path),
    isFat: FAT_TYPES.has(mount?.type ?? ''),
    // A scratch directory on some file system is not: it will be copied to where a loader finds it.
    isLoaderRead: isRunning || mount?.mountPoint === path || mount?.mountPoint === sysroot,
    isReadOnly: mount?.options.includes('ro') ?? false,
    get isGrub() {
      return hasGrub(path) && !(isRunning && runningSystemdBoot(host) !== undefined);
    },
    get takesUki() {
      const version = isRunning ? runningSystemdBoot(host) : undefined;
      return version !== undefined && compareVersions(version, FIRST_WITH_UKI) >= 0;
    },
  };
}

function findBoot(table: readonly MountEntry[], sysroot: string, isRunning: boolean): string {
  const root = isRunning || sysroot === '/' ? '' : sysroot;
  for (const place of USUAL_PLACES) {
    const path = `${root}${place}`;
    const mount = table.findLast(({ mountPoint }) => mountPoint === path);
    // An automount that nobody has touched yet shows as autofs; looking inside mounts it.
    if (mount?.type === 'autofs') return openAutomount(path);
    if (mount !== undefined) return path;
  }
  return sysroot === '/' ? '/boot' : `${sysroot}/boot`;
}

/** Where boot partitions of the running machine are mounted, this one first: an ESP may lie beside it. */
export function mountedBootPlaces(host: Host, { path }: BootPartition): string[] {
  const table = host.mounts.table();
  const places = USUAL_PLACES.filter((place) => table.some(({ mountPoint }) => mountPoint === place));
  return [...new Set([path, ...places])];
}

function openAutomount(path: string): string {
  closeSync(openDirectory(`${path}/.`));
  return path;
}

/** A directory that is no mount point is taken for the root of the boot file system unless it lies in the sysroot. */
function entryPrefix(mount: MountEntry | undefined, sysroot: string, path: string): string {
  if (mount?.mountPoint === path) return mount.root === '/' ? '' : mount.root;
  if (sysroot === '/') return path;
  return path.startsWith(`${sysroot}/`) ? path.slice(sysroot.length) : '';
}

/** Where a file lies that an entry names; undefined outside of what is mounted here, where nobody can tell. */
export function fileOnBoot({ path, prefix }: BootPartition, named: string): string | undefined {
  const absolute = named.startsWith('/') ? named : `/${named}`;
  return absolute.startsWith(`${prefix}/`) ? path + absolute.slice(prefix.length) : undefined;
}

/** Whether files of these sizes fit as things are. */
export function fitsOnBoot(boot: BootPartition, fileSizes: readonly number[]): boolean {
  return spaceOnBoot(boot, fileSizes) <= freeSpace(boot.path).freeBytes;
}

/** Fails with 'boot-full' unless `neededBytes` (in files of the given sizes) fit, each rounded up to a cluster. */
export function checkBootSpace(
  boot: BootPartition,
  fileSizes: readonly number[],
  what: string,
  comingBytes: number,
): void {
  const { freeBytes } = freeSpace(boot.path);
  const needed = spaceOnBoot(boot, fileSizes);
  if (needed <= freeBytes + comingBytes) return;
  const coming =
    comingBytes === 0 ? '' : `, and ${formatMebibytes(comingBytes)} more without the deployments that may be dropped`;
  throw new HostctlError(
    'boot-full',
    `"${boot.path}" needs ${formatMebibytes(needed)} for ${what} but has ${formatMebibytes(freeBytes)} free${coming}; nothing was changed`,
    { hint: 'Remove a deployment, or enlarge the boot partition' },
  );
}

/** What files of these sizes in a new directory take, each rounded up to a cluster. */
export function spaceOnBoot(boot: BootPartition, fileSizes: readonly number[]): number {
  const { unitBytes } = freeSpace(boot.path);
  // One unit more for each file's directory record, and for the directory itself.
  const records = (fileSizes.length + 1) * unitBytes;
  return fileSizes.reduce((sum, size) => sum + Math.ceil(size / unitBytes) * unitBytes, 0) + records;
}

/**
 * Makes what was fsynced on the boot partition readable for a boot loader. FAT has no journal: the fsyncs did it.
 * Returns false where the journal could not be written back in place; the old state must then be kept until the next
 * boot has been seen.
 */
export async function bootBarrier(host: Host, boot: BootPartition): Promise<boolean> {
  if (boot.isFat) return true;
  const fd = openDirectory(boot.path);
  try {
    host.syscalls.syncfs(fd, boot.path);
    if (!boot.isLoaderRead) return true;
    // If we are killed in between, the pipe closes and the watchdog thaws; otherwise it finds nothing to thaw.
    const watchdog = host.exec.watchdog('sh', ['-c', 'read -r _; exec fsfreeze --unfreeze "$1"', 'sh', boot.path]);
    try {
      return host.syscalls.freezeThaw(fd);
    } finally {
      await watchdog.end();
    }
  } finally {
    closeSync(fd);
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new HostctlError('usage', `The boot directory "${path}" does not exist`, {
      hint: 'Mount the boot partition, or name it with --boot DIR',
      cause: error,
    });
  }
}
