/**
 * The writable side of a deployment: `state/deploy/<name>` with its own `/etc`, a link to the one `/var` that all
 * deployments share, and its origin. A state directory gets its name only when it is whole and durable.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { rawFromText } from '../tree/name.ts';
import type { DirectoryNode, FileNode } from '../tree/node.ts';
import {
  createFile,
  exists,
  fsyncPath,
  isDirectory,
  makeDirectories,
  openDirectory,
  removeQuietly,
  split,
  temporaryName,
} from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { materializeTree } from './materialize.ts';
import { formatOrigin, originFile, type Origin } from './origin.ts';
import type { Sysroot } from './sysroot.ts';

export const VAR_LINK = '../../os/default/var';

export interface NewState {
  readonly name: string;
  readonly origin: Origin;
  /** The image's tree, for its `/etc` and, at the first deployment, its `/var`. */
  readonly tree: DirectoryNode;
  readonly contentOf: (file: FileNode) => Iterable<Uint8Array>;
  /** Carries local changes over into the fresh `/etc` before it is made durable. */
  readonly adjustEtc: (etc: string) => void;
}

/** Writes a state directory, whole and durable when this returns. Leaves nothing behind when it fails. */
export function writeState(host: Host, sysroot: Sysroot, state: NewState): void {
  const base = sysroot.path === '/' ? '' : sysroot.path;
  makeDirectories(base, 'state/deploy');
  ensureSharedVar(host, sysroot, state);
  const temporary = `${sysroot.deployments}/${temporaryName(state.name.slice(0, 16))}`;
  try {
    fs.mkdirSync(temporary, 0o755);
    fs.chmodSync(temporary, 0o755);
    materializeTree(host, directoryIn(state.tree, 'etc'), `${temporary}/etc`, state.contentOf);
    state.adjustEtc(`${temporary}/etc`);
    fs.symlinkSync(VAR_LINK, `${temporary}/var`);
    createFile(`${temporary}/${originFile(state.origin.digest)}`, formatOrigin(state.origin), 0o644);
    syncFileSystem(host, temporary);
    fs.renameSync(temporary, `${sysroot.deployments}/${state.name}`);
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  }
  fsyncPath(sysroot.deployments);
}

/** Stands beside an `/etc` that is not the image's default any more, or not yet what it shall be. */
const MERGED = 'etc-merged';

/**
 * Carries local changes into the `/etc` of a staged deployment, durable when this returns. That is the image's default
 * until then, so that little is written at shutdown; after an attempt that came to nothing it is made anew.
 */
export function mergeStagedEtc(
  host: Host,
  sysroot: Sysroot,
  { name, defaults, contentOf, adjustEtc }: Omit<NewState, 'origin' | 'tree'> & { readonly defaults: DirectoryNode },
): void {
  const directory = `${sysroot.deployments}/${name}`;
  const etc = `${directory}/etc`;
  const isMarked = exists(`${directory}/${MERGED}`);
  if (!isMarked) {
    createFile(`${directory}/${MERGED}`, '', 0o644);
    fsyncPath(directory);
  }
  if (isMarked || !isDirectory(etc)) {
    fs.rmSync(etc, { recursive: true, force: true });
    materializeTree(host, defaults, etc, contentOf);
  }
  adjustEtc(etc);
  syncFileSystem(host, directory);
}

/** Takes away a state directory that no entry names yet. */
export function removeState(sysroot: Sysroot, name: string): void {
  removeWhole(`${sysroot.deployments}/${name}`);
}

/** Takes away the shared `/var` that a first deployment made and nothing has used yet. */
export function removeSharedVar(sysroot: Sysroot): void {
  removeWhole(sysroot.sharedVar);
}

/** Its name goes first, durably, then what is in it. Idempotent. */
function removeWhole(path: string): void {
  if (!exists(path)) return;
  const { directory, name } = split(path);
  const temporary = `${directory}/${temporaryName(name.slice(0, 16))}`;
  fs.renameSync(path, temporary);
  fsyncPath(directory);
  fs.rmSync(temporary, { recursive: true });
}

/** The image's `/var` is copied once, at the first deployment; afterwards it belongs to the host. */
function ensureSharedVar(host: Host, sysroot: Sysroot, state: NewState): void {
  if (isDirectory(sysroot.sharedVar)) return;
  const { directory: parent, name } = split(sysroot.sharedVar);
  makeDirectories(sysroot.path === '/' ? '' : sysroot.path, 'state/os/default');
  const temporary = `${parent}/${temporaryName(name)}`;
  try {
    materializeTree(host, directoryIn(state.tree, 'var'), temporary, state.contentOf);
    syncFileSystem(host, temporary);
    fs.renameSync(temporary, sysroot.sharedVar);
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  }
  fsyncPath(parent);
}

function syncFileSystem(host: Host, path: string): void {
  const fd = openDirectory(path);
  try {
    host.syscalls.syncfs(fd, path);
  } finally {
    fs.closeSync(fd);
  }
}

/** A top-level directory of the image, which a bootable one must have. */
export function directoryIn(tree: DirectoryNode, name: string): DirectoryNode {
  const entry = tree.entries.get(rawFromText(name));
  if (entry?.kind === 'directory') return entry;
  throw new HostctlError('image-not-bootable', `The image has no directory "/${name}"`, {
    hint: 'A bootable image has dev, proc, sys, run, tmp, var, etc, usr, boot and sysroot',
  });
}
