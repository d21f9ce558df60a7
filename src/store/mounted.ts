/** Which images are mounted: a mount of an image names its digest as its source. */

import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { DIGEST } from './image-record.ts';

const SOURCE = 'composefs:';

/** What stands in the mount table as the source of a mounted image. */
export function imageMountSource(digest: VerityDigest): string {
  return `${SOURCE}${digest}`;
}

/** The image that a mount of this source is of. */
export function imageOfMount(source: string): VerityDigest | undefined {
  const digest = source.startsWith(SOURCE) ? source.slice(SOURCE.length) : '';
  return DIGEST.test(digest) ? (digest as VerityDigest) : undefined;
}

/** Mounted images with the places where they are, in whichever mount namespace. */
export function mountedImages(host: Host): Map<VerityDigest, Set<string>> {
  const found = new Map<VerityDigest, Set<string>>();
  for (const { source, mountPoint } of host.mounts.everywhere()) {
    const digest = imageOfMount(source);
    if (digest === undefined) continue;
    found.set(digest, (found.get(digest) ?? new Set()).add(mountPoint));
  }
  return found;
}
