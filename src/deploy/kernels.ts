/**
 * Kernels and initrds on the boot partition: `hostctl/<content hash>/{linux,initrd}`, where the hash is SHA-256 over
 * the SHA-256 of the kernel and that of the initrd. Deployments with the same kernel share a directory, and a boot
 * partition without a journal can be checked.
 */

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import {
  createFile,
  exists,
  fileChunks,
  fsyncPath,
  isDirectory,
  makeDirectories,
  removeQuietly,
  temporaryName,
} from '../sys/files.ts';
import { checkBootSpace, type BootPartition } from './boot-partition.ts';

/** Content that can be read more than once, in pieces. */
export interface ContentSource {
  readonly sizeBytes: number;
  readonly chunks: () => Iterable<Uint8Array>;
}

export interface KernelFiles {
  readonly linux: ContentSource;
  readonly initrd: ContentSource;
}

/** Where the kernel of a deployment will lie; the paths are as an entry writes them. */
export interface PlannedKernel {
  /** Name of the directory below `hostctl`. */
  readonly directory: string;
  readonly linuxPath: string;
  readonly initrdPath: string;
  /** False when the very files are there already. */
  readonly isNew: boolean;
  readonly files: KernelFiles;
  readonly hashes: KernelHashes;
}

/** Directory of ours on the boot partition. */
export const KERNELS = 'hostctl';
const MAX_DAMAGED_COPIES = 100;
/** What a name has behind the hash when a damaged directory had the name before. */
const COPY = /-[0-9]+$/;

export interface KernelHashes {
  readonly linux: string;
  readonly initrd: string;
  /** Name of the directory. */
  readonly content: string;
}

/** Bytes of each file. */
export function kernelSizes({ linux, initrd }: KernelFiles): number[] {
  return [linux.sizeBytes, initrd.sizeBytes];
}

function hashKernel(files: KernelFiles): KernelHashes {
  const linux = sha256(files.linux.chunks());
  const initrd = sha256(files.initrd.chunks());
  return {
    linux: linux.toString('hex'),
    initrd: initrd.toString('hex'),
    content: createHash('sha256').update(linux).update(initrd).digest('hex'),
  };
}

/**
 * Finds the directory for these files and checks that they fit, writing nothing. One found there is read back before
 * it is reused; a damaged one is left alone and the next free name taken.
 * @param comingBytes - what is freed before the files are written
 */
export function planKernel(boot: BootPartition, files: KernelFiles, comingBytes = 0): PlannedKernel {
  const hashes = hashKernel(files);
  for (let copy = 0; copy <= MAX_DAMAGED_COPIES; copy += 1) {
    const directory = copy === 0 ? hashes.content : `${hashes.content}-${copy}`;
    const path = `${boot.path}/${KERNELS}/${directory}`;
    const isNew = !exists(path);
    if (!isNew && !holds(path, hashes)) continue;
    if (isNew) {
      const what = `the kernel and initrd of ${directory.slice(0, 12)}…`;
      checkBootSpace(boot, kernelSizes(files), what, comingBytes);
    }
    const base = `${boot.prefix}/${KERNELS}/${directory}`;
    return { directory, linuxPath: `${base}/linux`, initrdPath: `${base}/initrd`, isNew, files, hashes };
  }
  throw new HostctlError('state-invalid', `"${boot.path}/${KERNELS}" is full of damaged copies of ${hashes.content}`);
}

function holds(path: string, hashes: KernelHashes): boolean {
  try {
    return (
      isDirectory(path) &&
      sha256(fileChunks(`${path}/linux`)).toString('hex') === hashes.linux &&
      sha256(fileChunks(`${path}/initrd`)).toString('hex') === hashes.initrd
    );
  } catch (error) {
    const code = errnoOf(error);
    // Missing or unreadable is one more kind of damage.
    if (code === 'ENOENT' || code === 'EIO' || code === 'ENOTDIR' || code === 'EISDIR') return false;
    throw error;
  }
}

function sha256(chunks: Iterable<Uint8Array>): Buffer {
  const hash = createHash('sha256');
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest();
}

/** Carries a plan out: the files lie, durable and read back, on the boot partition when this returns. */
export function writeKernel(boot: BootPartition, { directory, files, hashes, isNew }: PlannedKernel): void {
  const parent = makeDirectories(boot.path, KERNELS);
  const path = `${parent}/${directory}`;
  // A command that was killed may have given the directory its name and no more.
  const settle = (): void => {
    for (const name of [`${path}/linux`, `${path}/initrd`, path, parent]) fsyncPath(name);
  };
  if (!isNew) {
    settle();
    return;
  }
  const temporary = `${parent}/${temporaryName(directory.slice(0, 16))}`;
  try {
    fs.mkdirSync(temporary, 0o755);
    createFile(`${temporary}/linux`, files.linux.chunks(), 0o644);
    createFile(`${temporary}/initrd`, files.initrd.chunks(), 0o644);
    fsyncPath(temporary);
    // Both files are whole before the directory has its name: a name is never filled later.
    fs.renameSync(temporary, path);
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  }
  settle();
  if (holds(path, hashes)) return;
  throw new HostctlError('io', `What was written to "${path}" does not read back`, {
    hint: 'The boot partition or its device is failing: check it before anything else',
  });
}

/** What is wrong with a kernel directory, whose name says what must be in it; undefined when it is whole. */
export function checkKernelDirectory(boot: BootPartition, directory: string): string | undefined {
  const path = `${boot.path}/${KERNELS}/${directory}`;
  try {
    const linux = sha256(fileChunks(`${path}/linux`));
    const initrd = sha256(fileChunks(`${path}/initrd`));
    const content = createHash('sha256').update(linux).update(initrd).digest('hex');
    return directory.replace(COPY, '') === content ? undefined : 'the kernel or the initrd is not what was written';
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    return `it cannot be read: ${(error as Error).message}`;
  }
}

/** Takes a kernel directory away again that no entry has named yet. */
export function removeKernel(boot: BootPartition, kernel: PlannedKernel): void {
  if (kernel.isNew) removeKernelDirectory(boot, kernel.directory);
}

/** Removes a kernel directory that no entry names: first its name goes, durably, then what is in it. Idempotent. */
export function removeKernelDirectory(boot: BootPartition, directory: string): void {
  const parent = `${boot.path}/${KERNELS}`;
  if (!exists(`${parent}/${directory}`)) return;
  const temporary = `${parent}/${temporaryName(directory.slice(0, 16))}`;
  fs.renameSync(`${parent}/${directory}`, temporary);
  fsyncPath(parent);
  fs.rmSync(temporary, { recursive: true });
  fsyncPath(parent);
}
