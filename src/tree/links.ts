/**
 * Gives every inode its one place: while a tree is built or changed, a leaf node may stand at several names; a
 * finished tree holds it at the first of them in depth-first byte order and `hardlink` entries at the others.
 */

import { inodeOf, type DirectoryNode, type LeafNode } from './node.ts';
import { compareRaw, type RawName } from './name.ts';

/**
 * Settles links and link counts of a whole tree, whatever it holds: shared nodes, `hardlink` entries, entries whose
 * target has left the tree. Only names in this tree count. Needs time in proportion to the tree, apart from sorting.
 */
export function settleLinks(root: DirectoryNode): void {
  let shared = 0;
  for (const directory of directoriesOf(root)) {
    for (const entry of directory.entries.values()) {
      const inode = inodeOf(entry);
      if (inode.kind !== 'directory') inode.nlink = 0;
    }
  }
  for (const directory of directoriesOf(root)) {
    for (const entry of directory.entries.values()) {
      const inode = inodeOf(entry);
      if (inode.kind === 'directory') continue;
      inode.nlink++;
      if (inode.nlink > 1 || entry.kind === 'hardlink') shared++;
    }
  }
  if (shared > 0) placeShared(root);
}

function placeShared(root: DirectoryNode): void {
  const placed = new Set<LeafNode>();
  const stack: { readonly directory: DirectoryNode; readonly names: readonly RawName[]; at: number }[] = [];
  const enter = (directory: DirectoryNode): void => {
    stack.push({ directory, names: [...directory.entries.keys()].sort(compareRaw), at: 0 });
  };
  enter(root);
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const name = top.names[top.at++];
    if (name === undefined) {
      stack.pop();
      continue;
    }
    const entry = top.directory.entries.get(name)!;
    const inode = inodeOf(entry);
    if (inode.kind === 'directory') {
      enter(inode);
    } else if (inode.nlink > 1 || entry.kind === 'hardlink') {
      top.directory.entries.set(name, placed.has(inode) ? { kind: 'hardlink', target: inode } : inode);
      placed.add(inode);
    }
  }
}

/** Every directory of the tree, each before those in it. */
export function* directoriesOf(root: DirectoryNode): Generator<DirectoryNode> {
  const stack = [root];
  for (let directory = stack.pop(); directory !== undefined; directory = stack.pop()) {
    yield directory;
    for (const entry of directory.entries.values()) {
      if (entry.kind === 'directory') stack.push(entry);
    }
  }
}
