/** Which image of a repository is meant by what people type: a digest or its beginning, or a name. */

import { bootedOrigin } from '../deploy/deployments.ts';
import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { errnoOf, HostctlError } from '../errors.ts';
import { listImages, listRefs } from '../store/images.ts';
import { openRepository, requireRepository, type Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { imageName, ownerRef } from './image-refs.ts';

export interface ImageToolOptions extends SysrootOptions {
  /** Digest in the repository, name in it, or any image reference. */
  readonly image: string;
}

export interface FoundImage {
  readonly repository: Repository;
  readonly digest: VerityDigest;
}

const DIGEST_START = /^[0-9a-f]{8,}$/;

/** Path of the repository a command without a host works on. */
export function repositoryPath(host: Host, options: SysrootOptions): string {
  return options.repo ?? openSysroot(host, options).repo;
}

/** Fails with 'image-not-found' unless the repository has the image. */
export function requireImage(host: Host, repository: Repository, options: ImageToolOptions): VerityDigest {
  const digest = findImage(host, repository, options);
  if (digest !== undefined) return digest;
  throw new HostctlError('image-not-found', `There is no image "${options.image}" in "${repository.path}"`, {
    hint: 'See "hostctl image list"; "hostctl image pull" stores one',
  });
}

/** The image in the repository, or undefined where what is typed leads elsewhere. Digests must be in it. */
export function findStored(host: Host, options: ImageToolOptions): FoundImage | undefined {
  const path = repositoryPath(host, options);
  if (/^[0-9a-f]+$/.test(options.image)) {
    const repository = requireRepository(host, path);
    return { repository, digest: requireImage(host, repository, options) };
  }
  try {
    const repository = openRepository(host, path);
    const digest = repository === undefined ? undefined : findImage(host, repository, options);
    return repository === undefined || digest === undefined ? undefined : { repository, digest };
  } catch (error) {
    // The host's own repository is root's alone.
    if (errnoOf(error) === 'EACCES') return undefined;
    throw error;
  }
}

function findImage(host: Host, repository: Repository, options: ImageToolOptions): VerityDigest | undefined {
  const name = imageName(options.image);
  const named = boundImage(host, options, name) ?? listRefs(repository).get(ownerRef({ kind: 'name', name }));
  if (named !== undefined) return named;
  if (!DIGEST_START.test(options.image)) return undefined;
  const matches = listImages(repository).filter((digest) => digest.startsWith(options.image));
  if (matches.length > 1) throw new HostctlError('usage', `"${options.image}" fits ${matches.length} images`);
  return matches[0];
}

/** What the running deployment is bound to under this name: after a rollback that is the earlier one again. */
function boundImage(host: Host, options: SysrootOptions, name: string): VerityDigest | undefined {
  if (options.repo !== undefined) return undefined;
  const origin = bootedOrigin(host, openSysroot(host, options));
  return origin?.bound.find(({ reference }) => reference === name)?.digest;
}
