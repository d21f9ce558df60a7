/**
 * Which objects an image needs, read from the image itself: what keeps objects alive in the store and what an image must
 * find there before it may be booted.
 */

import type { RawName } from '../../tree/name.ts';
import type { VerityDigest } from '../../tree/node.ts';
import { ErofsImage } from './image.ts';
import { overlayDataOf } from './overlay-data.ts';

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
  const objects = new Map<string, ImageObject>();
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
      if (data !== undefined) {
        objects.set(`${data.path ?? ''}\0${data.digest ?? ''}\0${inode.size}`, { ...data, size: inode.size });
      }
    }
  }
  return [...objects.keys()].sort().map((key) => objects.get(key)!);
}
