/**
 * The composefs repository on disk, laid out as composefs-rs does, so that other tools can read it: `meta.json`,
 * `objects/xx/rest`, `images/<digest>` (links to objects; nothing else may be mounted), `images/refs/…` (names that
 * keep images alive) and `streams/`. What is ours alone has names of its own: `hostctl/<digest>` records how an image
 * was made, `.dirty.*` belong to running
 * commands.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { formatRepoMeta, isRepoWritable, newRepoMeta, parseRepoMeta, type RepoMeta } from '../format/repo-meta.ts';
import {
  createFile,
  fsyncPath,
  isDirectory,
  makeDirectories,
  openDirectory,
  readSmallText,
  removeQuietly,
  split,
  temporaryName,
} from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { withLock } from '../sys/lock.ts';
import { probeVerity, type LockMode } from '../sys/syscalls.ts';
import type { VerityAlgorithm } from '../tree/node.ts';

/** Where objects lie: `xx/rest` below a directory. */
export interface ObjectPlace {
  readonly objectsPath: string;
  /** Directory of the dirty markers; on the same file system. */
  readonly markersPath: string;
  readonly algorithm: VerityAlgorithm;
  /** Whether the file system can do fs-verity, so that every object has it. */
  readonly hasVerity: boolean;
}

export interface Repository extends ObjectPlace {
  readonly path: string;
  readonly meta: RepoMeta;
}

/** Subdirectories a complete repository has. */
const DIRECTORIES = ['objects', 'images', 'images/refs', 'streams', 'streams/refs'] as const;
/** Objects are readable by whoever may enter; the repository itself is root's alone, as bootc has it. */
const REPOSITORY_MODE = 0o700;

/** Opens the repository at `path`; undefined when there is none. Writes nothing. */
export function openRepository(host: Host, path: string): Repository | undefined {
  const text = readSmallText(`${path}/meta.json`);
  if (text === undefined) return undefined;
  const meta = parseRepoMeta(text);
  return Object.assign(placeOf(host, `${path}/objects`, path, meta.algorithm), { path, meta });
}

/** A directory of nothing but objects, as mkcomposefs' `--digest-store`; made when missing. */
export function openDigestStore(host: Host, path: string, algorithm: VerityAlgorithm): ObjectPlace {
  fs.mkdirSync(path, { recursive: true, mode: 0o755 });
  return placeOf(host, path, path, algorithm);
}

function placeOf(host: Host, objectsPath: string, markersPath: string, algorithm: VerityAlgorithm): ObjectPlace {
  let hasVerity: boolean | undefined;
  return {
    objectsPath,
    markersPath,
    algorithm,
    // Asked where it matters: a command that only reads what is deployed needs no native interface.
    get hasVerity() {
      return (hasVerity ??= probeVerity(host.syscalls, markersPath));
    },
  };
}

/** Opens the repository at `path` or fails with 'image-not-found'. */
export function requireRepository(host: Host, path: string): Repository {
  const repository = openRepository(host, path);
  if (repository !== undefined) return repository;
  throw new HostctlError('image-not-found', `There is no composefs repository at "${path}"`, {
    hint: 'Name one with --repo DIR, or pull an image first',
  });
}

export interface CreateOptions {
  /** Hash of a new repository (default sha512), and what an existing one must have when given. */
  readonly algorithm?: VerityAlgorithm | undefined;
}

/**
 * Opens the repository for writing, made first where there is none. Idempotent; a half-made one is completed.
 * Throws 'usage' when an existing repository has another hash than asked for.
 */
export function openOrCreateRepository(host: Host, path: string, options: CreateOptions = {}): Repository {
  let repository = openRepository(host, path);
  // Another command may have made it between the two looks.
  if (repository === undefined && (isDirectory(`${path}/objects`) || isDirectory(`${path}/images`))) {
    repository = openRepository(host, path);
    if (repository === undefined) {
      // Without its description nobody can tell which digests the names are: refuse rather than guess.
      throw new HostctlError('state-invalid', `The repository "${path}" has lost its "meta.json"`, {
        hint: 'Restore the file; another machine with the same images has the same one',
      });
    }
  }
  if (repository === undefined) {
    createRepository(host, path, options.algorithm ?? 'sha512');
    repository = requireRepository(host, path);
  }
  if (options.algorithm !== undefined && options.algorithm !== repository.algorithm) {
    throw new HostctlError(
      'usage',
      `The repository "${path}" is made with ${repository.algorithm}, not ${options.algorithm}`,
      { hint: `Leave --hash out, or pass --hash ${repository.algorithm}` },
    );
  }
  if (!isRepoWritable(repository.meta)) {
    throw new HostctlError('host-unsupported', `The repository "${path}" has features that this hostctl cannot write`, {
      hint: 'Update hostctl',
    });
  }
  for (const directory of DIRECTORIES) makeDirectories(path, directory);
  return repository;
}

/** The description comes last: until it has its name there is no repository, and the next run begins again. */
function createRepository(host: Host, path: string, algorithm: VerityAlgorithm): void {
  const { directory, name } = split(path);
  makeDirectories(isDirectory(directory) ? directory : '/', isDirectory(directory) ? '' : directory);
  if (!isDirectory(path)) makeDirectories(directory, name, REPOSITORY_MODE);
  const temporary = `${path}/${temporaryName('meta.json')}`;
  createFile(temporary, formatRepoMeta(newRepoMeta(algorithm)), 0o644);
  try {
    // composefs-rs takes fs-verity on this file as "this repository requires it".
    if (probeVerity(host.syscalls, path)) enableVerityOn(host, temporary, algorithm);
    fs.renameSync(temporary, `${path}/meta.json`);
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  }
  fsyncPath(path);
}

function enableVerityOn(host: Host, path: string, algorithm: VerityAlgorithm): void {
  const fd = fs.openSync(path, 'r');
  try {
    host.syscalls.enableVerity(fd, algorithm);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Runs `body` under the repository lock (the directory itself, as composefs-rs does it): shared while adding,
 * exclusive for what can delete.
 */
export function withRepositoryLock<T>(host: Host, path: string, mode: LockMode, body: () => Promise<T>): Promise<T> {
  return withLock(host.syscalls, path, mode, { waitMs: host.lockWaitMs, signal: host.signal }, body);
}

/** Runs `body` under the exclusive lock if it is free right now; undefined otherwise. */
export function tryExclusive<T>(host: Host, path: string, body: () => T): T | undefined {
  const fd = openDirectory(path);
  try {
    return host.syscalls.tryLock(fd, 'exclusive') ? body() : undefined;
  } finally {
    fs.closeSync(fd);
  }
}

/** Runs `body` under the shared lock if it is free right now, else without any: for reading that never waits. */
export async function withSharedLockIfFree<T>(
  host: Host,
  path: string,
  body: (isLocked: boolean) => Promise<T>,
): Promise<T> {
  const fd = openDirectory(path);
  try {
    return await body(host.syscalls.tryLock(fd, 'shared'));
  } finally {
    fs.closeSync(fd);
  }
}

/** Path of the object that holds the content with this digest. */
export function objectFile({ objectsPath }: Pick<ObjectPlace, 'objectsPath'>, digestHex: string): string {
  return `${objectsPath}/${digestHex.slice(0, 2)}/${digestHex.slice(2)}`;
}
