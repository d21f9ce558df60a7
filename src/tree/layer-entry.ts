/**
 * What one layer does to the tree below it, in the order of its tar: plain data without references to other layers,
 * so that layers can be read apart from each other and merged afterwards.
 */

import type { RawName } from './name.ts';
import type { TreeNode } from './node.ts';

export type LayerEntry = {
  /** Position in the layer's tar, from 1. */
  readonly number: number;
  /** Normalised: components joined by "/", none of them "." or "..", "" for the root. */
  readonly path: RawName;
} & (
  | {
      readonly kind: 'node';
      /** A directory comes without entries, a leaf with link count 0: names are counted in the finished tree. */
      readonly node: TreeNode;
    }
  | { readonly kind: 'hardlink'; readonly target: RawName }
  /** `path` is what is hidden, not the marker. */
  | { readonly kind: 'whiteout' }
  /** `path` is the directory whose lower entries are hidden. */
  | { readonly kind: 'opaque' }
);

/** What of an image's limits is used up; each layer starts from what those before it used. */
export interface ImageTotals {
  /** Entries of all layers. */
  readonly entries: number;
  /** Bytes held for names, link targets, xattrs and inline contents. */
  readonly metadataBytes: number;
  /** Decompressed bytes and expanded holes. */
  readonly outputBytes: number;
}

export const NO_TOTALS: ImageTotals = { entries: 0, metadataBytes: 0, outputBytes: 0 };
