/**
 * `image mount` and `image umount`. The image is attached as EROFS where no other process sees it, the overlay is made
 * over it and the object store, and only the finished overlay gets a place: one line more, none after umount.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { imageOfMount } from '../store/mounted.ts';
import { digestOfFile } from '../store/objects.ts';
import { hasImage, objectFile, requireRepository, withRepositoryLock, type Repository } from '../store/repository.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { repositoryPath, requireImage, type ImageToolOptions } from './find-image.ts';
import { mountByDescriptors, mountInNamespace, type ImageMount } from './mount-layers.ts';
import { requireRoot } from './publish.ts';
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
    const imageFd = openVerified(host, repository, digest, options.verity);
    try {
      const mount = { ...options, repository, digest, imageFd };
      if (api === undefined) await mountInNamespace(host, mount);
      else mountByDescriptors(host, api, mount);
    } finally {
      fs.closeSync(imageFd);
    }
    return { digest };
  });
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
