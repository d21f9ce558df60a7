/**
 * An image in two: that of its base, and a delta that overlayfs lays over it or that makes the image again. The delta
 * is an EROFS image too, with whiteouts and opaque directories as marks. Pure.
 */

import { applyDelta, makeDelta } from '../../tree/delta.ts';
import type { DirectoryNode, VerityAlgorithm } from '../../tree/node.ts';
import { readComposefsDelta, readComposefsImage } from './reader.ts';
import { writeComposefsImage } from './writer.ts';

/** What `tree` has other than `base`, as an image. */
export function writeComposefsDelta(base: DirectoryNode, tree: DirectoryNode, algorithm: VerityAlgorithm): Uint8Array {
  const delta = makeDelta(base, tree);
  return writeComposefsImage(delta.root, { algorithm, marks: delta }).bytes;
}

/** The flat image, byte for byte, out of its base and its delta. Throws 'format-invalid' or 'image-unsupported'. */
export function joinComposefsDelta(base: Uint8Array, delta: Uint8Array, algorithm: VerityAlgorithm): Uint8Array {
  const tree = applyDelta(readComposefsImage(base), readComposefsDelta(delta));
  return writeComposefsImage(tree, { algorithm }).bytes;
}
