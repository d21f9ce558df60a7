/**
 * Which of the digests that an image states are digests of it, and made how: format version, hash, xattrs, and whether
 * the tree is the one that is booted. Two programs that agree on an image may still differ in any of these.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { formatImageParameters } from '../format/cmdline.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { unifiedKernels } from '../image/boot-files.ts';
import { bootTransform } from '../image/build.ts';
import { measuringSink } from '../image/ingest.ts';
import type { ImageSource } from '../image/source.ts';
import {
  describeSource,
  digestsOfDocuments,
  digestsOfUki,
  statedAlgorithms,
  type StatedDigest,
} from '../image/stated-digests.ts';
import type { XattrMode } from '../image/xattr-filter.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, FileNode, VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import { flattenImage } from './build.ts';

/** How a digest is made. */
export interface DigestMaking {
  /** `v1-sha512-12` */
  readonly parameters: string;
  readonly xattrs: XattrMode;
  readonly bootable: boolean;
}

export interface JudgedDigest extends StatedDigest {
  /** Undefined: it is no digest of this image by any way of making one. */
  readonly fits: DigestMaking | undefined;
}

/** A tree that is at hand already, with large files measured by `algorithm` and the usual xattrs. */
export interface FlatImage {
  readonly tree: DirectoryNode;
  readonly algorithm: VerityAlgorithm;
  readonly contentOf: (file: FileNode) => Promise<Iterable<Uint8Array>>;
}

export interface Judgement {
  readonly stated: readonly JudgedDigest[];
  /** The digest that `deploy` would give the image; undefined if nothing is stated. */
  readonly usual: VerityDigest | undefined;
}

/** Every digest that the image states, with what it fits. Layers are read again only for what `flat` does not fit. */
export async function judgeStatedDigests(
  host: Host,
  source: ImageSource,
  { tree, algorithm, contentOf }: FlatImage,
): Promise<Judgement> {
  const stated = digestsOfDocuments(source);
  for (const { path, file } of unifiedKernels(tree)) stated.push(...digestsOfUki(path, await contentOf(file)));
  if (stated.length === 0) return { stated: [], usual: undefined };
  const fits = new Map<VerityDigest, DigestMaking>();
  const isOpen = ({ digest }: StatedDigest): boolean => !fits.has(digest);
  const tryTree = (flat: DirectoryNode, hash: VerityAlgorithm, xattrs: XattrMode): void => {
    for (const [digest, making] of makings(flat, hash, xattrs)) {
      if (!fits.has(digest)) fits.set(digest, making);
      if (!statedAlgorithms(stated.filter(isOpen)).has(hash)) return;
    }
  };
  tryTree(tree, algorithm, 'allowlist-only');
  const [usual] = fits.keys();
  for (const xattrs of ['allowlist-only', 'keep-user-xattrs'] as const) {
    for (const hash of statedAlgorithms(stated.filter(isOpen))) {
      if (hash === algorithm && xattrs === 'allowlist-only') continue;
      const flat = await flattenOrNothing(host, source, hash, xattrs);
      if (flat !== undefined) tryTree(flat, hash, xattrs);
    }
  }
  return { stated: stated.map((each) => ({ ...each, fits: fits.get(each.digest) })), usual };
}

/**
 * Refuses an image of which a unified kernel or an annotation pins something else than can be made of it: it would not
 * boot, or is not what its publisher made. A label is only warned of, since images inherit it from what they are built on.
 */
export function refuseForeignDigests(host: Host, { stated, usual }: Judgement): void {
  for (const each of stated) {
    if (each.fits !== undefined) continue;
    const message = `The ${describeSource(each)} states the digest ${each.digest}, but the image has ${usual}`;
    if (each.kind === 'label') host.log.warn(message);
    else {
      throw new HostctlError('digest-mismatch', message, {
        hint: 'Made from other layers, or changed after it was stated: have the image sealed again.',
      });
    }
  }
}

/** All digests that a tree can have, the usual ones first. */
function* makings(
  flat: DirectoryNode,
  algorithm: VerityAlgorithm,
  xattrs: XattrMode,
): Generator<readonly [VerityDigest, DigestMaking]> {
  const trees = [
    { tree: bootableOrNothing(flat), bootable: true },
    { tree: flat, bootable: false },
  ];
  for (const { tree, bootable } of trees) {
    if (tree === undefined) continue;
    for (const formatVersion of [1, 2, 0] as const) {
      const { bytes } = writeComposefsImage(tree, { algorithm, minVersion: formatVersion, maxVersion: formatVersion });
      const parameters = formatImageParameters({ formatVersion, algorithm, logBlockSize: 12 });
      yield [fsverityDigest(algorithm, bytes), { parameters, xattrs, bootable }];
    }
  }
}

function bootableOrNothing(flat: DirectoryNode): DirectoryNode | undefined {
  try {
    return bootTransform(flat);
  } catch (error) {
    if (isHostctlError(error, 'image-not-bootable', 'image-unsupported')) return undefined;
    throw error;
  }
}

/** With more xattrs an image may be one that cannot be made. */
async function flattenOrNothing(
  host: Host,
  source: ImageSource,
  algorithm: VerityAlgorithm,
  xattrs: XattrMode,
): Promise<DirectoryNode | undefined> {
  try {
    return await flattenImage(host, source, measuringSink(algorithm), () => false, xattrs);
  } catch (error) {
    if (isHostctlError(error, 'image-unsupported')) return undefined;
    throw error;
  }
}
