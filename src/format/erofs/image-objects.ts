/**
 * Which objects an image needs, read from the image itself: what keeps objects alive in the store and what an image must
 * find there before it may be booted.
 */

import type { RawName } from '../../tree/name.ts';
import type { VerityDigest } from '../../tree/node.ts';
import { ErofsImage } from './image.ts';
import { overlayDataOf, type OverlayData } from './overlay-data.ts';

export interface ImageObject {
  /** Path below the object store; absent for a file whose data overlayfs cannot be sent to. */
  readonly path?: RawName;
  readonly digest?: VerityDigest;
  /** Bytes of the file; two files may state different sizes for one object, and then at most one is right. */
  readonly size: number;
}

/**
 * Every object that a composefs image refers to, once per path, digest and size, in byte order of the paths. Throws as
 * `readComposefsImage` does.
 */
export function imageObjects(bytes: Uint8Array): ImageObject[] {
  const image = new ErofsImage(bytes);
  const objects: ImageObject[] = [];
  const seen = new Set([image.rootNid]);
  const stack = [image.rootNid];
  for (let nid = stack.pop(); nid !== undefined; nid = stack.pop()) {
    const inode = image.inode(nid);
    if (inode.kind === 'directory') {
      for (const entry of image.entries(inode)) {
        if (seen.has(entry.nid)) continue;
        seen.add(entry.nid);
        stack.push(entry.nid);
      }
    } else if (inode.kind === 'file') {
      const data = overlayDataOf(inode, image.xattrs(inode));
      if (data !== undefined) objects.push(objectOf(data, inode.size));
    }
  }
  objects.sort(compareObjects);
  return objects.filter((object, i) => i === 0 || compareObjects(objects[i - 1]!, object) !== 0);
}

function objectOf({ path, digest }: OverlayData, size: number): ImageObject {
  if (path === undefined) return digest === undefined ? { size } : { digest, size };
  return digest === undefined ? { path, size } : { path, digest, size };
}

function compareObjects(a: ImageObject, b: ImageObject): number {
  return compareText(a.path, b.path) || compareText(a.digest, b.digest) || a.size - b.size;
}

function compareText(a = '', b = ''): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
