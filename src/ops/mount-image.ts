/**
 * `image mount` and `image umount`. The image is attached as EROFS where no other process sees it, the overlay is made
 * over it and the object store, and only the finished overlay gets a place: one line more, none after umount.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError, isHostctlError } from '../errors.ts';
import { digestOfFile } from '../store/file-digest.ts';
import { imageParts, noteUse, type ImageParts } from '../store/image-record.ts';
import { hasImage, remakeImage } from '../store/images.ts';
import { imageOfMount } from '../store/mounted.ts';
import { ObjectStore } from '../store/objects.ts';
import { objectFile, requireRepository, withRepositoryLock, type Repository } from '../store/repository.ts';
import { exists, isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { repositoryPath, requireImage, type ImageToolOptions } from './find-image.ts';
import { mountByDescriptors, mountInNamespace, type ImageMount } from './mount-layers.ts';
import { requireRoot } from './require-root.ts';
import type { Restart } from './writable.ts';

export interface MountImageOptions extends ImageToolOptions {
  readonly directory: string;
  /** `require` refuses every file whose object is not guarded by fs-verity. */
  readonly verity: ImageMount['verity'];
  readonly writable: ImageMount['writable'];
}

/** Undefined when the command was run to its end in a second process, which has said what there is to say. */
export async function mountImage(
  host: Host,
  options: MountImageOptions,
  run: Restart,
): Promise<{ readonly digest: VerityDigest } | undefined> {
  requireRoot(host, 'mount');
  const api = host.syscalls.mountApi;
  if (api === undefined && !run.isRestarted) {
    run.setExitCode(await run.restart('unchanged'));
    return undefined;
  }
  const repository = requireRepository(host, fs.realpathSync(repositoryPath(host, options)));
  // Until the mount can be seen, the lock is all that keeps the image from going.
  return withRepositoryLock(host, repository.path, 'shared', async () => {
    const digest = requireImage(host, repository, options);
    for (const directory of [options.directory, options.writable?.upper, options.writable?.work]) {
      if (directory !== undefined && !isDirectory(directory)) {
        throw new HostctlError('usage', `"${directory}" is not a directory`);
      }
    }
    const imageFds = openImages(digest, { host, repository, verity: options.verity });
    try {
      const mount = { ...options, repository, digest, imageFds };
      if (api === undefined) await mountInNamespace(host, mount);
      else mountByDescriptors(host, api, mount);
    } finally {
      for (const fd of imageFds) fs.closeSync(fd);
    }
    return { digest };
  });
}

/** The physical root of a running host is read-only, and any may be full: the parts are there all the same. */
const NOWHERE_TO_WRITE = new Set(['EROFS', 'ENOSPC', 'EDQUOT']);

interface Opening {
  readonly host: Host;
  readonly repository: Repository;
  readonly verity: MountImageOptions['verity'];
}

/** The one image, or the delta and the base that show the same; the uppermost first. */
function openImages(digest: VerityDigest, opening: Opening): number[] {
  const { repository } = opening;
  if (!hasImage(repository, digest)) {
    throw new HostctlError('image-not-found', `There is no image ${digest} in "${repository.path}"`);
  }
  const parts = imageParts(repository, digest);
  if (parts === undefined) return [openVerified(digest, opening)];
  const cached = parts.layout === 'cached' ? openCached(digest, parts, opening) : undefined;
  if (cached !== undefined) return [cached];
  const delta = openVerified(parts.delta, opening);
  try {
    return [delta, openVerified(parts.base, opening)];
  } catch (error) {
    fs.closeSync(delta);
    throw error;
  }
}

/** Opens the image itself, made again if it was dropped or is damaged; undefined where there is no way to store it. */
function openCached(digest: VerityDigest, parts: ImageParts, opening: Opening): number | undefined {
  const { host, repository } = opening;
  try {
    if (exists(objectFile(repository, digest))) {
      const fd = openVerified(digest, opening);
      noteUse(repository, digest, host.now());
      return fd;
    }
  } catch (error) {
    if (!isHostctlError(error, 'verity-mismatch')) throw error;
    host.log.debug(error.message);
  }
  const bytes = remakeImage(repository, digest, parts);
  const store = new ObjectStore(host, repository, new Set([digest]));
  try {
    store.put(bytes);
    store.barrier();
  } catch (error) {
    if (!NOWHERE_TO_WRITE.has(errnoOf(error) ?? '')) throw error;
    host.log.debug(`Image ${digest} is mounted in parts: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  } finally {
    store.close();
  }
  return openVerified(digest, opening);
}

/** Opens an image and compares its digest on the descriptor that will be mounted. */
function openVerified(digest: VerityDigest, { host, repository, verity }: Opening): number {
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

/** Unmounts an image that `mountImage` mounted; refuses anything else. */
export async function unmountImage(host: Host, directory: string): Promise<void> {
  requireRoot(host, 'unmount');
  const path = fs.realpathSync(directory);
  const mount = host.mounts.table().findLast(({ mountPoint }) => mountPoint === path);
  if (mount?.type !== 'overlay' || imageOfMount(mount.source) === undefined) {
    throw new HostctlError('usage', `"${directory}" is not a mounted image`);
  }
  await host.mounts.umount(path);
}
