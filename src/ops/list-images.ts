/** `image list` and `image remove`: which images a repository has, what keeps each of them, and what it takes. */

import type { SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { readableRecord, type ImageLayout } from '../store/image-record.ts';
import { listImages, listRefs, readImageUse, removeRef } from '../store/images.ts';
import { mountedImages } from '../store/mounted.ts';
import { requireRepository, withRepositoryLock, type Repository } from '../store/repository.ts';
import { usageOfImages, type ImageBytes, type ImageUse } from '../store/usage.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { repositoryPath, type ImageToolOptions } from './find-image.ts';
import { imageName, ownerOfRef, ownerRef } from './image-refs.ts';

/** What keeps an image; garbage if nothing does. */
export interface ImageOwners {
  /** Names it was pulled under. */
  readonly names: readonly string[];
  /** Numbers of the deployments that boot it. */
  readonly deployments: readonly number[];
  /** Numbers of the deployments that are bound to it as an application. */
  readonly bound: readonly number[];
  /** Where it is mounted, in whichever mount namespace. */
  readonly mounts: readonly string[];
  /** Images that are laid over it. */
  readonly over: readonly VerityDigest[];
  /** Refs that other tools made. */
  readonly others: readonly string[];
}

export interface ListedImage extends ImageOwners {
  readonly digest: VerityDigest;
  readonly layout: ImageLayout;
  /** Null when the image cannot be read. */
  readonly bytes: ImageBytes | null;
}

/** Every image of the repository, by digest. */
export function listAllImages(host: Host, options: SysrootOptions): ListedImage[] {
  const repository = requireRepository(host, repositoryPath(host, options));
  const digests = listImages(repository);
  const usage = usageOfImages(readableUses(host, repository, digests), (base) =>
    [...readableUses(host, repository, [base])].at(0),
  );
  const ownersOf = imageOwners(host, repository);
  return digests.map((digest) => ({
    digest,
    layout: readableRecord(repository, digest).parts?.layout ?? 'flat',
    ...ownersOf(digest),
    bytes: usage.get(digest) ?? null,
  }));
}

function* readableUses(host: Host, repository: Repository, digests: readonly VerityDigest[]): Generator<ImageUse> {
  for (const digest of digests) {
    try {
      yield readImageUse(repository, digest);
    } catch (error) {
      if (!isHostctlError(error)) throw error;
      host.log.warn(error.message);
    }
  }
}

/** Reads refs, mounts and records once. */
export function imageOwners(host: Host, repository: Repository): (digest: VerityDigest) => ImageOwners {
  const laid = listImages(repository).map((digest) => ({
    digest,
    base: readableRecord(repository, digest).parts?.base,
  }));
  const refs = [...listRefs(repository)].map(([ref, digest]) => ({ ref, digest, owner: ownerOfRef(ref) }));
  const mounted = mountedImages(host);
  return (digest) => {
    const own = refs.filter((ref) => ref.digest === digest);
    return {
      names: own.flatMap(({ owner }) => (owner?.kind === 'name' ? owner.name : [])),
      deployments: own.flatMap(({ owner }) => (owner?.kind === 'host' ? owner.id : [])),
      bound: [...new Set(own.flatMap(({ owner }) => (owner?.kind === 'bound' ? owner.id : [])))],
      mounts: [...(mounted.get(digest) ?? [])],
      over: laid.flatMap((image) => (image.base === digest ? image.digest : [])),
      others: own.flatMap(({ owner, ref }) => (owner === undefined ? ref : [])),
    };
  };
}

export interface RemovedName {
  readonly digest: VerityDigest;
  /** What keeps the image all the same. */
  readonly kept: ImageOwners;
}

/** Takes a name away; gc takes the image when nothing keeps it any more. */
export function removeImageName(host: Host, options: ImageToolOptions): Promise<RemovedName> {
  const path = repositoryPath(host, options);
  const repository = requireRepository(host, path);
  return withRepositoryLock(host, path, 'exclusive', () => {
    const ref = ownerRef({ kind: 'name', name: imageName(options.image) });
    const digest = listRefs(repository).get(ref);
    if (digest === undefined) {
      throw new HostctlError('image-not-found', `No image in "${path}" has the name "${options.image}"`, {
        hint: 'See "hostctl image list"',
      });
    }
    removeRef(repository, ref);
    return Promise.resolve({ digest, kept: imageOwners(host, repository)(digest) });
  });
}
