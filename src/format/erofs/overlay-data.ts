/**
 * What an image tells overlayfs about the data of a regular file: the redirect to the object and, in the metacopy
 * attribute, the digest that the object must have.
 */

import { rawFromBytes, type RawName } from '../../tree/name.ts';
import type { VerityDigest } from '../../tree/node.ts';
import { VERITY_PARAMETERS, verityAlgorithmById } from '../fsverity/algorithm.ts';
import { digestFromBytes } from '../fsverity/digest.ts';
import { refuseImage, type ImageInode, type ImageXattr } from './image.ts';
import { LAYOUT_CHUNKED } from './layout.ts';

export interface OverlayData {
  /** Path below the object store, without leading slash. */
  readonly path?: RawName;
  readonly digest?: VerityDigest;
}

/**
 * The object behind a regular file; undefined when its content is in the image. Refuses a file that is half of each,
 * because overlayfs and a reader of the image would disagree about its content.
 */
export function overlayDataOf(inode: ImageInode, xattrs: readonly ImageXattr[]): OverlayData | undefined {
  if (inode.kind !== 'file') return undefined;
  const metacopy = xattrs.find(({ name }) => name === 'trusted.overlay.metacopy')?.value;
  const redirect = xattrs.find(({ name }) => name === 'trusted.overlay.redirect')?.value;
  const external = inode.layout === LAYOUT_CHUNKED;
  if (external !== (metacopy !== undefined) || (redirect !== undefined && !external)) {
    refuseImage('inode', inode.offset, 'data layout and overlay xattrs disagree on where the content is');
  }
  if (metacopy === undefined) return undefined;
  if (inode.size === 0) refuseImage('inode', inode.offset, 'chunk-based file of size 0');
  const target = redirect === undefined ? '' : rawFromBytes(redirect);
  const path = (target.startsWith('/') ? target.slice(1) : target) as RawName;
  const digest = digestOfMetacopy(inode, metacopy);
  if (path === '') return digest === undefined ? {} : { digest };
  return digest === undefined ? { path } : { path, digest };
}

/** Layout: version 0, total size, flags 0, fs-verity algorithm, digest. Empty: no digest. */
function digestOfMetacopy(inode: ImageInode, value: Uint8Array): VerityDigest | undefined {
  if (value.length === 0) return undefined;
  const [version, size, flags, id] = value;
  const algorithm = id === undefined ? undefined : verityAlgorithmById(id);
  const wanted = algorithm === undefined ? undefined : 4 + VERITY_PARAMETERS[algorithm].digestSize;
  if (version !== 0 || flags !== 0 || size !== value.length || size !== wanted) {
    refuseImage('inode', inode.offset, `trusted.overlay.metacopy ${Buffer.from(value).toString('hex', 0, 80)}`);
  }
  return digestFromBytes(value.subarray(4));
}
