/** What images take of a repository, each alone and together with others. Pure. */

import type { VerityDigest } from '../tree/node.ts';

/** What one image takes. */
export interface ImageUse {
  readonly digest: VerityDigest;
  /** Objects with the sizes that the image states, itself among them. */
  readonly objects: ReadonlyMap<string, number>;
}

/** Sizes of the files of one image, as the image states them. */
export interface ImageBytes {
  /** Needed by no other image: what goes with it. */
  readonly uniqueBytes: number;
  readonly sharedBytes: number;
}

/** Goes through the images once and keeps none of their lists: there may be hundreds of them. */
export function usageOfImages(images: Iterable<ImageUse>): Map<VerityDigest, ImageBytes> {
  const totals = new Map<VerityDigest, number>();
  const unique = new Map<VerityDigest, number>();
  /** The only image that needs an object, as long as there is only one. */
  const only = new Map<string, VerityDigest | undefined>();
  const add = (sums: Map<VerityDigest, number>, digest: VerityDigest, size: number): void =>
    void sums.set(digest, (sums.get(digest) ?? 0) + size);
  for (const { digest, objects } of images) {
    for (const [name, size] of objects) {
      add(totals, digest, size);
      if (!only.has(name)) {
        only.set(name, digest);
        add(unique, digest, size);
        continue;
      }
      const other = only.get(name);
      if (other === undefined) continue;
      only.set(name, undefined);
      add(unique, other, -size);
    }
  }
  return new Map(
    [...totals].map(([digest, total]) => {
      const uniqueBytes = unique.get(digest) ?? 0;
      return [digest, { uniqueBytes, sharedBytes: total - uniqueBytes }];
    }),
  );
}
