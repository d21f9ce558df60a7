/**
 * Dirty markers: files `.dirty.RANDOM` in the repository, each held by flock by the command that made it while it
 * publishes objects that are not yet durable. The kernel frees the lock when the command dies, however it dies: a
 * marker whose lock is free says that objects which no committed image names are suspect until someone has looked.
 */

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { errnoOf } from '../errors.ts';
import { fsyncPath, listNames } from '../sys/files.ts';
import type { Syscalls } from '../sys/syscalls.ts';

export interface DirtyMarker {
  readonly path: string;
  /** Removes the marker durably. */
  release(): void;
  /** Closes it without removing: for a command that failed and leaves doubt behind. */
  abandon(): void;
}

const NAME = /^\.dirty\.[0-9a-f]{16}$/;

/** Creates a marker, durable before this returns. */
export function createDirtyMarker(syscalls: Syscalls, repository: string): DirtyMarker {
  const path = `${repository}/.dirty.${randomBytes(8).toString('hex')}`;
  const fd = fs.openSync(path, 'wx', 0o600);
  try {
    syscalls.tryLock(fd, 'exclusive');
    fs.fsyncSync(fd);
    fsyncPath(repository);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
  return {
    path,
    release() {
      fs.unlinkSync(path);
      fs.closeSync(fd);
      fsyncPath(repository);
    },
    abandon() {
      fs.closeSync(fd);
    },
  };
}

/** The markers whose command is dead. */
export function deadMarkers(syscalls: Syscalls, repository: string): string[] {
  return listNames(repository)
    .filter((name) => NAME.test(name))
    .map((name) => `${repository}/${name}`)
    .filter((path) => isFree(syscalls, path));
}

function isFree(syscalls: Syscalls, path: string): boolean {
  let fd: number;
  try {
    fd = fs.openSync(path, 'r');
  } catch (error) {
    // Its command ended this moment and took it away.
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  try {
    // Shared, so that two commands looking at once do not take each other for the owner.
    return syscalls.tryLock(fd, 'shared');
  } finally {
    fs.closeSync(fd);
  }
}
