/**
 * Reaching files below a directory by names that come from elsewhere, one name at a time from an open descriptor.
 * No step follows a symlink, leaves the directory or is limited by the length of the whole path, and names are bytes.
 * Node has no `openat(2)`; `/proc/self/fd/N/NAME` is the same thing.
 */

import { closeSync, constants, lstatSync, openSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs';
import { HostctlError } from '../errors.ts';
import { displayRaw, rawFromBytes, rawToBytes, type RawName } from '../tree/name.ts';

const DIRECTORY_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** Runs `body` with the directory at `path` open; a symlink in last place is refused. */
export function withDirectory<T>(path: string, body: (fd: number) => T): T {
  const fd = openSync(path, DIRECTORY_FLAGS);
  try {
    return body(fd);
  } finally {
    closeSync(fd);
  }
}

/** A path of the entry `name` of the open directory, for calls that do not follow a symlink in last place. */
export function entryPath(directoryFd: number, name: RawName): Buffer {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) {
    throw new HostctlError('image-invalid', `Cannot use "${displayRaw(name)}" as the name of a file`);
  }
  return Buffer.concat([Buffer.from(`/proc/self/fd/${directoryFd}/`), rawToBytes(name)]);
}

/** A path of the open directory itself, for calls that take no descriptor. */
export function selfPath(directoryFd: number): Buffer {
  return Buffer.from(`/proc/self/fd/${directoryFd}/.`);
}

/** Opens the subdirectory `name`; ENOTDIR or ELOOP when it is something else. */
export function openSubdirectory(directoryFd: number, name: RawName): number {
  return openSync(entryPath(directoryFd, name), DIRECTORY_FLAGS);
}

/** Opens the directories of a tree in any order, and keeps the way to the last one open. */
export class DirectoryWalker {
  readonly #rootFd: number;
  readonly #way: { readonly name: RawName; readonly fd: number }[] = [];

  /** @param rootFd - stays the caller's */
  constructor(rootFd: number) {
    this.#rootFd = rootFd;
  }

  /** A descriptor of the directory at `path` (names joined by `/`, '' for the root), good until the next call. */
  enter(path: string): number {
    const names = path === '' ? [] : (path.split('/') as RawName[]);
    const shared = names.findIndex((name, depth) => this.#way[depth]?.name !== name);
    this.#leave(shared < 0 ? names.length : shared);
    for (const name of names.slice(this.#way.length)) {
      const fd = openSubdirectory(this.#way.at(-1)?.fd ?? this.#rootFd, name);
      this.#way.push({ name, fd });
    }
    return this.#way.at(-1)?.fd ?? this.#rootFd;
  }

  close(): void {
    this.#leave(0);
  }

  #leave(depth: number): void {
    while (this.#way.length > depth) {
      const last = this.#way.pop();
      if (last !== undefined) closeSync(last.fd);
    }
  }
}

/**
 * Removes the entry `name` of the open directory and, when it is a directory, everything below it. A symlink goes,
 * what it leads to stays. ENOENT when there is none.
 */
export function removeEntry(directoryFd: number, name: RawName): void {
  const way = [{ fd: directoryFd, rest: [name] }];
  try {
    for (let here = way.at(-1); here !== undefined; here = way.at(-1)) {
      const next = here.rest.at(-1);
      if (next === undefined) {
        way.pop();
        const parent = way.at(-1);
        const emptied = parent?.rest.pop();
        if (parent === undefined || emptied === undefined) return;
        closeSync(here.fd);
        rmdirSync(entryPath(parent.fd, emptied));
      } else if (lstatSync(entryPath(here.fd, next)).isDirectory()) {
        const fd = openSubdirectory(here.fd, next);
        way.push({ fd, rest: readdirSync(selfPath(fd), 'buffer').map(rawFromBytes) });
      } else {
        unlinkSync(entryPath(here.fd, next));
        here.rest.pop();
      }
    }
  } finally {
    for (const { fd } of way) if (fd !== directoryFd) closeSync(fd);
  }
}
