/**
 * `image mount` and `image umount`. The image is attached as EROFS without a place in the mount table, the overlay is
 * made over it and the object store, and only the finished overlay gets a place: one line more, none after umount.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { digestOfFile } from '../store/objects.ts';
import { hasImage, objectFile, requireRepository, type Repository } from '../store/repository.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { MountCalls } from '../sys/native.ts';
import type { VerityDigest } from '../tree/node.ts';
import { repositoryPath, requireImage, type ImageToolOptions } from './image-tools.ts';
import { requireRoot } from './publish.ts';

export interface MountImageOptions extends ImageToolOptions {
  readonly directory: string;
  /** `require` refuses every file whose object is not guarded by fs-verity. */
  readonly verity: 'require' | 'off';
  /** Directories of a writable layer. */
  readonly writable: { readonly upper: string; readonly work: string } | undefined;
}

/** Header flag: some node has an ACL. */
const HAS_ACL = 1;
const ACL_FLAG_OFFSET = 8;

export function mountImage(host: Host, options: MountImageOptions): { readonly digest: VerityDigest } {
  requireRoot(host, 'mount');
  const repository = requireRepository(host, fs.realpathSync(repositoryPath(host, options)));
  const digest = requireImage(repository, options.image);
  for (const directory of [options.directory, options.writable?.upper, options.writable?.work]) {
    if (directory !== undefined && !isDirectory(directory)) {
      throw new HostctlError('usage', `"${directory}" is not a directory`);
    }
  }
  const api = host.syscalls.mountApi;
  if (api === undefined) {
    throw new HostctlError('host-unsupported', 'Cannot mount without the mount API by descriptors', {
      hint: 'It needs koffi, glibc 2.36 and Linux 6.15',
    });
  }
  const imageFd = openVerified(host, repository, digest, options.verity);
  const opened = [imageFd];
  try {
    const erofs = mountErofs(host, api, imageFd);
    opened.push(erofs);
    const overlay = mountOverlay(api, repository, digest, erofs, options);
    opened.push(overlay);
    const target = fs.openSync(options.directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    opened.push(target);
    api.moveMount(overlay, target);
    return { digest };
  } finally {
    for (const fd of opened.reverse()) fs.closeSync(fd);
  }
}

/** Opens the image and compares its digest on the descriptor that will be mounted. */
function openVerified(
  host: Host,
  repository: Repository,
  digest: VerityDigest,
  verity: MountImageOptions['verity'],
): number {
  if (!hasImage(repository, digest)) {
    throw new HostctlError('image-not-found', `There is no image ${digest} in "${repository.path}"`);
  }
  const fd = fs.openSync(objectFile(repository, digest), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  try {
    const measured = host.syscalls.measureVerity(fd);
    if (measured.kind !== 'enabled' && verity === 'require') {
      throw new HostctlError('verity-unsupported', `The image ${digest} has no fs-verity`, {
        hint: 'Keep the repository on a file system with fs-verity, or mount with --verity off',
      });
    }
    const found = measured.kind === 'enabled' ? measured.digestHex : digestOfFile(fd, repository.algorithm);
    if (found === digest) return fd;
    throw new HostctlError('verity-mismatch', `The image ${digest} has the digest ${found} instead`);
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

/** A detached EROFS mount: of the file itself (Linux 6.12), else through a loop device that frees itself. */
function mountErofs(host: Host, api: MountCalls, imageFd: number): number {
  try {
    return attachErofs(api, `/proc/self/fd/${imageFd}`, imageFd);
  } catch (error) {
    host.log.debug(`No EROFS from a file, trying a loop device: ${error instanceof Error ? error.message : ''}`);
  }
  const loop = api.openLoopDevice(imageFd);
  try {
    return attachErofs(api, loop.path, imageFd);
  } finally {
    // The mount holds the device by now; if it failed, nothing does.
    fs.closeSync(loop.fd);
  }
}

function attachErofs(api: MountCalls, source: string, imageFd: number): number {
  const context = api.fsopen('erofs');
  try {
    api.setString(context, 'source', source);
    if (!hasAcl(imageFd)) api.setFlag(context, 'noacl');
    api.setFlag(context, 'ro');
    api.create(context);
    return api.fsmount(context, true);
  } finally {
    fs.closeSync(context);
  }
}

function hasAcl(imageFd: number): boolean {
  const flags = Buffer.alloc(4);
  fs.readSync(imageFd, flags, 0, flags.length, ACL_FLAG_OFFSET);
  return (flags.readUInt32LE(0) & HAS_ACL) !== 0;
}

function mountOverlay(
  api: MountCalls,
  repository: Repository,
  digest: VerityDigest,
  erofs: number,
  { verity, writable }: MountImageOptions,
): number {
  const context = api.fsopen('overlay');
  try {
    api.setString(context, 'source', `composefs:${digest}`);
    api.setString(context, 'metacopy', 'on');
    api.setString(context, 'redirect_dir', 'on');
    api.setString(context, 'verity', verity);
    api.setFd(context, 'lowerdir+', erofs);
    api.setString(context, 'datadir+', repository.objectsPath);
    if (writable === undefined) {
      api.setFlag(context, 'ro');
    } else {
      api.setString(context, 'upperdir', writable.upper);
      api.setString(context, 'workdir', writable.work);
    }
    api.create(context);
    return api.fsmount(context, writable === undefined);
  } finally {
    fs.closeSync(context);
  }
}

/** Unmounts an image that `mountImage` mounted; refuses anything else. */
export async function unmountImage(host: Host, directory: string): Promise<void> {
  requireRoot(host, 'unmount');
  const path = fs.realpathSync(directory);
  const mount = host.mounts.table().findLast(({ mountPoint }) => mountPoint === path);
  if (mount?.type !== 'overlay' || !mount.source.startsWith('composefs:')) {
    throw new HostctlError('usage', `"${directory}" is not a mounted image`);
  }
  await host.mounts.umount(path);
}
