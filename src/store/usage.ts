/** What images take of a repository, each alone and together with others. Pure. */

import type { VerityDigest } from '../tree/node.ts';
import type { ImageParts } from './image-record.ts';

/** What one image takes. */
export interface ImageUse {
  readonly digest: VerityDigest;
  /** Objects with the sizes that the image states, itself or its delta among them. */
  readonly objects: ReadonlyMap<string, number>;
  /** What it is made of, where that is not itself alone: then it needs what its base needs as well. */
  readonly parts?: ImageParts;
}

/** Sizes of the files of one image, as the image states them. */
export interface ImageBytes {
  /** Needed by no other image: what goes with it. */
  readonly uniqueBytes: number;
  readonly sharedBytes: number;
}

/**
 * Goes through the images once and keeps none of their lists but those of bases, each of which it asks for: there may be
 * hundreds of images.
 */
export function usageOfImages(
  images: Iterable<ImageUse>,
  readBase: (digest: VerityDigest) => ImageUse | undefined,
): Map<VerityDigest, ImageBytes> {
  const bases = new Map<VerityDigest, ImageUse['objects']>();
  const objectsOfBase = (digest: VerityDigest): ImageUse['objects'] => {
    const objects = bases.get(digest) ?? readBase(digest)?.objects ?? new Map<string, number>();
    bases.set(digest, objects);
    return objects;
  };
  const totals = new Map<VerityDigest, number>();
  const unique = new Map<VerityDigest, number>();
  /** The only image that needs an object, as long as there is only one. */
  const only = new Map<string, VerityDigest | undefined>();
  const add = (sums: Map<VerityDigest, number>, digest: VerityDigest, size: number): void =>
    void sums.set(digest, (sums.get(digest) ?? 0) + size);
  for (const { digest, objects: own, parts } of images) {
    const objects = parts === undefined ? own : new Map([...objectsOfBase(parts.base), ...own]);
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
