/**
 * The artifact that composefs-rs puts beside an image (its "OCI sealing specification"): for each thing that is signed a
 * layer with the signature, whose annotation names the thing and states its fs-verity digest.
 */

import type { VerityAlgorithm } from '../../tree/node.ts';

export const METADATA_TYPE = 'application/vnd.composefs.metadata.v1';
/** PKCS#7 in DER, detached, as `FS_IOC_ENABLE_VERITY` takes it. */
export const PKCS7_TYPE = 'application/vnd.composefs.signature.v1+pkcs7';

/** What a digest is of: a document, byte for byte, or the composefs image of a tree, of all layers or of what boots. */
export type SignedThing =
  | { readonly role: 'manifest' | 'config'; readonly algorithm: VerityAlgorithm }
  | { readonly role: 'merged' | 'merged.bootable'; readonly algorithm: VerityAlgorithm; readonly formatVersion: 1 | 2 };

/** All that is signed of an image, in the order in which it stands in an artifact. */
export function signedThings(algorithms: readonly VerityAlgorithm[]): SignedThing[] {
  return [
    ...(['manifest', 'config'] as const).flatMap((role) => algorithms.map((algorithm) => ({ role, algorithm }))),
    ...(['merged', 'merged.bootable'] as const).flatMap((role) =>
      algorithms.map((algorithm) => ({ role, algorithm, formatVersion: 1 as const })),
    ),
  ];
}

/** `composefs.merged.bootable.erofs.v1.fsverity-sha512-12` */
export function formatSignedThing(thing: SignedThing): string {
  const made = 'formatVersion' in thing ? `.erofs.v${thing.formatVersion}` : '';
  return `composefs.${thing.role}${made}.fsverity-${thing.algorithm}-12`;
}

const DOCUMENT = /^composefs\.(manifest|config)\.fsverity-(sha256|sha512)-12$/;
const TREE = /^composefs\.(merged|merged\.bootable)\.erofs\.v([12])\.fsverity-(sha256|sha512)-12$/;

/** Undefined for what is no such name, or of a kind that is not made here. */
export function parseSignedThing(name: string): SignedThing | undefined {
  const document = DOCUMENT.exec(name);
  if (document !== null) {
    return {
      role: document[1] === 'manifest' ? 'manifest' : 'config',
      algorithm: document[2] === 'sha256' ? 'sha256' : 'sha512',
    };
  }
  const tree = TREE.exec(name);
  if (tree === null) return undefined;
  return {
    role: tree[1] === 'merged' ? 'merged' : 'merged.bootable',
    formatVersion: tree[2] === '1' ? 1 : 2,
    algorithm: tree[3] === 'sha256' ? 'sha256' : 'sha512',
  };
}
