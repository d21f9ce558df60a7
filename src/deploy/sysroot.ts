/**
 * The physical root: where its parts lie, and the lock over all of them. Paths are those of bootc's composefs backend,
 * so that either tool's initramfs finds the state; what is ours alone is under `state/hostctl` and named after us.
 */

import { realpathSync } from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { isDirectory, makeDirectories } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { withLock } from '../sys/lock.ts';
import { openBootPartition, type BootPartition } from './boot-partition.ts';

export interface SysrootOptions {
  readonly sysroot?: string | undefined;
  readonly boot?: string | undefined;
  readonly repo?: string | undefined;
}

export interface Sysroot {
  /** Absolute, without symlinks. */
  readonly path: string;
  readonly repo: string;
  /** `state/hostctl`: lock, staged record and other small files of ours. */
  readonly hostState: string;
  /** `state/deploy`: one directory for each deployment. */
  readonly deployments: string;
  /** `state/os/default/var`: the one `/var` that all deployments share. */
  readonly sharedVar: string;
  /** Whether this is the root the machine runs from, so that the kernel's command line speaks of it. */
  readonly isRunning: boolean;
  readonly boot: BootPartition;
}

/** The physical root below a root that hostctl mounted. */
const PHYSICAL_ROOT = '/sysroot';

/** Finds the parts of a sysroot. Writes nothing; the directories need not exist yet, but the sysroot itself must. */
export function openSysroot(host: Host, options: SysrootOptions): Sysroot {
  const running = isDirectory(`${PHYSICAL_ROOT}/state/deploy`) ? PHYSICAL_ROOT : '/';
  const path = realDirectory(options.sysroot ?? running);
  const below = path === '/' ? '' : path;
  return {
    path,
    repo: options.repo ?? `${below}/composefs`,
    hostState: `${below}/state/hostctl`,
    deployments: `${below}/state/deploy`,
    sharedVar: `${below}/state/os/default/var`,
    isRunning: path === running,
    boot: openBootPartition(host, path, path === running, options.boot),
  };
}

/** Runs `body` as the only changer of this sysroot and its boot partition. */
export function withSysrootLock<T>(host: Host, sysroot: Sysroot, body: () => Promise<T>): Promise<T> {
  makeDirectories(sysroot.path === '/' ? '' : sysroot.path, 'state/hostctl');
  const options = {
    waitMs: host.lockWaitMs,
    signal: host.signal,
    holderFile: `${sysroot.hostState}/lock-holder`,
  };
  return withLock(host.syscalls, sysroot.hostState, 'exclusive', options, body);
}

function realDirectory(path: string): string {
  try {
    const real = realpathSync(path);
    if (isDirectory(real)) return real;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error;
  }
  throw new HostctlError('usage', `"${path}" is not a directory`, { hint: 'Create it first, or pass another one' });
}
