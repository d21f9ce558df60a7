/** `image pull`: an image into a repository, under a name that keeps it alive. Root is not needed. */

import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { formatImageParameters } from '../format/cmdline.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import type { ImageLayout } from '../store/image-record.ts';
import { setRef } from '../store/images.ts';
import type { ObjectCounts } from '../store/objects.ts';
import { openOrCreateRepository } from '../store/repository.ts';
import { withObjectStore } from '../store/sweep.ts';
import type { Host } from '../sys/host.ts';
import type { VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import type { FetchedLayers } from '../image/layer-blobs.ts';
import type { ImageSource } from '../image/source.ts';
import { ownerRef } from './image-refs.ts';
import { storeImage } from './store-image.ts';
import { fetchUnknown } from './stored-layers.ts';
import { withImage } from './with-image.ts';

export interface PullImageOptions extends SysrootOptions {
  readonly image: string;
  readonly algorithm: VerityAlgorithm | undefined;
  /** How it is stored; by a rule when it is not said. */
  readonly layout?: ImageLayout | undefined;
}

export interface PullImageResult {
  readonly digest: VerityDigest;
  readonly parameters: string;
  readonly layout: ImageLayout;
  /** What it is laid over, if anything. */
  readonly base?: VerityDigest;
  readonly manifestDigest: string;
  readonly objects: ObjectCounts;
  readonly layers: FetchedLayers;
}

export function pullImage(host: Host, options: PullImageOptions): Promise<PullImageResult> {
  const path = options.repo ?? openSysroot(host, options).repo;
  return withImage(host, options.image, path, (source) => pullSource(host, source, path, options));
}

async function pullSource(
  host: Host,
  source: ImageSource,
  path: string,
  options: PullImageOptions,
): Promise<PullImageResult> {
  const repository = openOrCreateRepository(host, path, { algorithm: options.algorithm });
  if (!repository.hasVerity) {
    host.log.warn(`The file system of "${path}" has no fs-verity: a mount of the image cannot be verified`);
  }
  // Not under the lock of the repository: what takes long must not keep gc out.
  const layers = await fetchUnknown(repository, source);
  return withObjectStore(host, repository, async (store) => {
    const { parameters, ...image } = await storeImage(host, repository, source, store, options.layout);
    setRef(repository, ownerRef({ kind: 'name', name: formatImageReference(source.reference) }), image.digest);
    return {
      ...image,
      parameters: formatImageParameters(parameters),
      manifestDigest: source.manifestDigest,
      layers,
    };
  });
}
