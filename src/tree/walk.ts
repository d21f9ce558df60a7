/** Walking a finished tree in the order everyone lists it: depth first, names in byte order. Pure, no recursion. */

import { compareRaw, type RawName } from './name.ts';
import type { DirectoryNode, TreeEntry, VerityDigest } from './node.ts';

export interface WalkedEntry {
  /** Absolute; "/" for the root. */
  readonly path: RawName;
  readonly entry: TreeEntry;
}

/** Every entry from `root` (at `path`) downwards. */
export function* walkTree(root: TreeEntry, path = '/' as RawName): Generator<WalkedEntry, void> {
  const pending: WalkedEntry[] = [{ path, entry: root }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    yield next;
    if (next.entry.kind === 'directory') pending.push(...childrenOf(next.path, next.entry).reverse());
  }
}

/** The entries of one directory in byte order, with their paths. */
export function childrenOf(path: RawName, directory: DirectoryNode): WalkedEntry[] {
  const prefix = path === '/' ? '/' : `${path}/`;
  return [...directory.entries]
    .sort(([a], [b]) => compareRaw(a, b))
    .map(([name, entry]) => ({ path: `${prefix}${name}` as RawName, entry }));
}

/** Objects that files of a tree have their content in, by digest and size, each as often as there are files. */
export function* externalFiles(tree: DirectoryNode): Generator<[VerityDigest, number]> {
  for (const { entry } of walkTree(tree)) {
    if (entry.kind !== 'file' || entry.content.kind !== 'external' || entry.content.digest === undefined) continue;
    yield [entry.content.digest, entry.content.size];
  }
}
