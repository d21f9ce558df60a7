/**
 * What a layer with whiteout markers says about paths, and what its markers took away, as a tree of names. It lets a
 * marker be understood the same wherever it stands in the tar, and a hard link still find what a later marker hides.
 */

import type { RawName } from '../tree/name.ts';
import type { TreeEntry } from '../tree/node.ts';
import type { LayerEntry } from '../tree/layer-entry.ts';

/** What the layer's last entry for a path makes of it. */
export type Stated = { readonly kind: 'directory' | 'other' } | { readonly kind: 'symlink'; readonly target: RawName };

export interface Removed {
  readonly entry: TreeEntry;
  /** Position in the tar of the marker that removed it. */
  readonly number: number;
}

export interface LayerIndexNode {
  stated?: Stated;
  removed?: Removed;
  readonly children: Map<RawName, LayerIndexNode>;
}

/** Indexes a layer's entries other than markers. */
export function indexLayer(entries: readonly LayerEntry[]): LayerIndexNode {
  const root: LayerIndexNode = { children: new Map() };
  for (const entry of entries) {
    if (entry.kind === 'whiteout' || entry.kind === 'opaque') continue;
    let node = root;
    for (const name of splitPath(entry.path)) node = indexChild(node, name);
    node.stated = stated(entry);
  }
  return root;
}

/** The child of that name, made if there is none. */
export function indexChild(node: LayerIndexNode, name: RawName): LayerIndexNode {
  let child = node.children.get(name);
  if (child === undefined) {
    child = { children: new Map() };
    node.children.set(name, child);
  }
  return child;
}

/** The components of a normalised path; none for the root. */
export function splitPath(path: RawName): RawName[] {
  return path === '' ? [] : (path.split('/') as RawName[]);
}

function stated(entry: LayerEntry): Stated {
  if (entry.kind !== 'node') return { kind: 'other' };
  const { node } = entry;
  if (node.kind === 'symlink') return { kind: 'symlink', target: node.target };
  return { kind: node.kind === 'directory' ? 'directory' : 'other' };
}
