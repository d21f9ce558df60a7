/** `image pull`: an image into a repository, under a name that keeps it alive. Root is not needed. */

import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { formatImageParameters } from '../format/cmdline.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { setRef } from '../store/images.ts';
import type { ObjectCounts } from '../store/objects.ts';
import { openOrCreateRepository } from '../store/repository.ts';
import { withObjectStore } from '../store/sweep.ts';
import type { Host } from '../sys/host.ts';
import type { VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import { openImage, storeImage } from './build.ts';
import { ownerRef } from './image-refs.ts';

export interface PullImageOptions extends SysrootOptions {
  readonly image: string;
  readonly algorithm: VerityAlgorithm | undefined;
}

export interface PullImageResult {
  readonly digest: VerityDigest;
  readonly parameters: string;
  readonly manifestDigest: string;
  readonly objects: ObjectCounts;
}

export async function pullImage(host: Host, options: PullImageOptions): Promise<PullImageResult> {
  const source = openImage(host, options.image);
  const path = options.repo ?? openSysroot(host, options).repo;
  const repository = openOrCreateRepository(host, path, { algorithm: options.algorithm });
  if (!repository.hasVerity) {
    host.log.warn(`The file system of "${path}" has no fs-verity: a mount of the image cannot be verified`);
  }
  return withObjectStore(host, repository, async (store) => {
    const image = await storeImage(host, repository, source, store);
    setRef(repository, ownerRef({ kind: 'name', name: formatImageReference(source.reference) }), image.digest);
    return {
      digest: image.digest,
      parameters: formatImageParameters(image.parameters),
      manifestDigest: source.manifestDigest,
      objects: image.objects,
    };
  });
}
