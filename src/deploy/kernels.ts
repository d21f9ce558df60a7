/**
 * Kernels on the boot partition: `hostctl/<content hash>/{linux,initrd}`, where the hash is SHA-256 over the SHA-256 of
 * the kernel and that of the initrd; or `hostctl/<content hash>/uki.efi` with its add-ons in `uki.efi.extra.d`, where it
 * is over the SHA-256 of the unified kernel image and, for each add-on, those of its name and of its content.
 * Deployments with the same kernel share a directory, and a boot partition without a journal can be checked.
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
  listNames,
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

export type KernelFiles = SplitKernelFiles | UnifiedKernelFiles;

export interface SplitKernelFiles {
  readonly kind: 'split';
  readonly linux: ContentSource;
  readonly initrd: ContentSource;
}

export interface UnifiedKernelFiles {
  readonly kind: 'unified';
  readonly uki: ContentSource;
  readonly addons: readonly { readonly name: string; readonly content: ContentSource }[];
  /** What it boots by, add-ons included: nothing can be added to it. */
  readonly kargs: readonly string[];
}

/** What a boot entry starts; the paths are as the entry writes them. */
export type EntryProgram = { readonly linux: string; readonly initrd: string } | { readonly efi: string };

/** Where the kernel of a deployment will lie. */
export interface PlannedKernel {
  /** Name of the directory below `hostctl`. */
  readonly directory: string;
  readonly program: EntryProgram;
  /** False when the very files are there already. */
  readonly isNew: boolean;
  readonly files: KernelFiles;
  /** SHA-256 of what belongs into the directory, whatever it is called. */
  readonly content: string;
}

/** Directory of ours on the boot partition. */
export const KERNELS = 'hostctl';
const MAX_DAMAGED_COPIES = 100;
/** What a name has behind the hash when a damaged directory had the name before. */
const COPY = /-[0-9]+$/;

const UKI = 'uki.efi';
/** Where systemd-stub looks for add-ons of that one. */
const ADDONS = `${UKI}.extra.d`;

/** Bytes of each file, and of a further directory. */
export function kernelSizes(files: KernelFiles): number[] {
  const sizes = namedFiles(files).map(({ content }) => content.sizeBytes);
  return hasAddons(files) ? [...sizes, 0] : sizes;
}

/** By their names in the directory. */
function namedFiles(files: KernelFiles): { readonly name: string; readonly content: ContentSource }[] {
  if (files.kind === 'split') {
    return [
      { name: 'linux', content: files.linux },
      { name: 'initrd', content: files.initrd },
    ];
  }
  return [
    { name: UKI, content: files.uki },
    ...files.addons.map(({ name, content }) => ({ name: `${ADDONS}/${name}`, content })),
  ];
}

function hasAddons(files: KernelFiles): boolean {
  return files.kind === 'unified' && files.addons.length > 0;
}

/** The hash of a directory with these files, in order. */
function contentHash(files: Iterable<{ readonly name: string; readonly chunks: Iterable<Uint8Array> }>): string {
  const hash = createHash('sha256');
  for (const { name, chunks } of files) {
    if (name.startsWith(`${ADDONS}/`)) hash.update(sha256([Buffer.from(name.slice(ADDONS.length + 1))]));
    hash.update(sha256(chunks));
  }
  return hash.digest('hex');
}

/** What the name of a directory with these files begins with. */
export function kernelContent(files: KernelFiles): string {
  return contentHash(namedFiles(files).map(({ name, content }) => ({ name, chunks: content.chunks() })));
}

/**
 * Finds the directory for these files and checks that they fit, writing nothing. One found there is read back before
 * it is reused; a damaged one is left alone and the next free name taken.
 * @param comingBytes - what is freed before the files are written
 */
export function planKernel(boot: BootPartition, files: KernelFiles, comingBytes = 0): PlannedKernel {
  const content = kernelContent(files);
  for (let copy = 0; copy <= MAX_DAMAGED_COPIES; copy += 1) {
    const directory = copy === 0 ? content : `${content}-${copy}`;
    const path = `${boot.path}/${KERNELS}/${directory}`;
    const isNew = !exists(path);
    if (!isNew && !holds(path, content)) continue;
    if (isNew) {
      const parts = files.kind === 'split' ? 'kernel and initrd' : 'unified kernel image';
      const what = `the ${parts} of ${directory.slice(0, 12)}…`;
      checkBootSpace(boot, kernelSizes(files), what, comingBytes);
    }
    const base = `${boot.prefix}/${KERNELS}/${directory}`;
    const program =
      files.kind === 'split' ? { linux: `${base}/linux`, initrd: `${base}/initrd` } : { efi: `${base}/${UKI}` };
    return { directory, program, isNew, files, content };
  }
  throw new HostctlError('state-invalid', `"${boot.path}/${KERNELS}" is full of damaged copies of ${content}`);
}

/** The hash of what a directory holds. Throws the system's error for a file that is missing or cannot be read. */
function hashDirectory(path: string): string {
  const addons = exists(`${path}/${ADDONS}`) ? listNames(`${path}/${ADDONS}`).sort() : [];
  const names = exists(`${path}/${UKI}`) ? [UKI, ...addons.map((name) => `${ADDONS}/${name}`)] : ['linux', 'initrd'];
  return contentHash(names.map((name) => ({ name, chunks: fileChunks(`${path}/${name}`) })));
}

function holds(path: string, content: string): boolean {
  try {
    return isDirectory(path) && hashDirectory(path) === content;
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
export function writeKernel(boot: BootPartition, { directory, files, content, isNew }: PlannedKernel): void {
  const parent = makeDirectories(boot.path, KERNELS);
  const path = `${parent}/${directory}`;
  const named = namedFiles(files);
  const directories = hasAddons(files) ? [`${path}/${ADDONS}`, path] : [path];
  // A command that was killed may have given the directory its name and no more.
  const settle = (): void => {
    for (const each of [...named.map(({ name }) => `${path}/${name}`), ...directories, parent]) fsyncPath(each);
  };
  if (!isNew) {
    settle();
    return;
  }
  const temporary = `${parent}/${temporaryName(directory.slice(0, 16))}`;
  try {
    fs.mkdirSync(temporary, 0o755);
    if (hasAddons(files)) fs.mkdirSync(`${temporary}/${ADDONS}`, 0o755);
    for (const each of named) createFile(`${temporary}/${each.name}`, each.content.chunks(), 0o644);
    fsyncPath(temporary);
    // All files are whole before the directory has its name: a name is never filled later.
    fs.renameSync(temporary, path);
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  }
  settle();
  if (holds(path, content)) return;
  throw new HostctlError('io', `What was written to "${path}" does not read back`, {
    hint: 'The boot partition or its device is failing: check it before anything else',
  });
}

/** What is wrong with a kernel directory, whose name says what must be in it; undefined when it is whole. */
export function checkKernelDirectory(boot: BootPartition, directory: string): string | undefined {
  const path = `${boot.path}/${KERNELS}/${directory}`;
  try {
    return directory.replace(COPY, '') === hashDirectory(path) ? undefined : 'a file in it is not what was written';
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
