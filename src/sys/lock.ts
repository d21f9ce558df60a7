/**
 * Locks between processes. A lock is only ever an flock on a directory: the kernel drops it when the holder dies, so
 * there are no stale locks and no pid files. What stands in the holder file beside it is for the message alone.
 */

import { closeSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf, HostctlError } from '../errors.ts';
import { openDirectory, readSmallText } from './files.ts';
import type { LockMode, Syscalls } from './syscalls.ts';

export interface LockOptions {
  /** How long to wait, in milliseconds; Infinity waits for ever. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** A file that names the exclusive holder, for the error message. */
  readonly holderFile?: string;
}

const POLL_MS = 50;

/**
 * Runs `body` while holding the lock on `directory`. Rejects with 'locked' when it is not to be had in time. Both
 * modes are taken on a descriptor of their own, never converted in place.
 */
export async function withLock<T>(
  syscalls: Syscalls,
  directory: string,
  mode: LockMode,
  options: LockOptions,
  body: () => Promise<T>,
): Promise<T> {
  const unlock = await takeLock(syscalls, directory, mode, options);
  try {
    return await body();
  } finally {
    unlock();
  }
}

/** The same for what does not end with one function: returns what gives the lock back. */
export async function takeLock(
  syscalls: Syscalls,
  directory: string,
  mode: LockMode,
  options: LockOptions,
): Promise<() => void> {
  const fd = openDirectory(directory);
  try {
    await acquire(syscalls, fd, directory, mode, options);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return () => closeSync(fd);
}

async function acquire(
  syscalls: Syscalls,
  fd: number,
  directory: string,
  mode: LockMode,
  options: LockOptions,
): Promise<void> {
  const deadline = performance.now() + options.waitMs;
  while (!syscalls.tryLock(fd, mode)) {
    if (options.signal.aborted) throw new HostctlError('interrupted', `Stopped waiting for the lock on "${directory}"`);
    if (performance.now() >= deadline) {
      const holder = options.holderFile === undefined ? undefined : readSmallText(options.holderFile)?.trim();
      throw new HostctlError(
        'locked',
        `Cannot lock "${directory}": it is held by ${holder === undefined || holder === '' ? 'another process' : holder}`,
        { hint: 'Wait for the other command to end, or pass --wait SECONDS' },
      );
    }
    await sleep(POLL_MS);
  }
  if (mode === 'exclusive' && options.holderFile !== undefined) noteHolder(options.holderFile);
}

function noteHolder(path: string): void {
  try {
    writeFileSync(path, `process ${process.pid} (hostctl ${process.argv[2] ?? ''})\n`);
  } catch (error) {
    // Only a message depends on it, and a full disk must not stop a command that may free space.
    if (errnoOf(error) === undefined) throw error;
  }
}
