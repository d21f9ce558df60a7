/**
 * One tree as what it changes of another: the base under it in an overlay stays as it is, and the delta over it adds,
 * replaces and hides. An inode with several names is the base's or the delta's with all of them, since no layer can add
 * a name to an inode of another. Pure, no recursion.
 */

import { isWhiteout } from '../format/erofs/composefs.ts';
import { aspectsOf } from './diff.ts';
import { settleLinks } from './links.ts';
import type { RawName } from './name.ts';
import { copyMetadata, inodeOf, type DirectoryNode, type TreeNode } from './node.ts';
import { walkTree } from './walk.ts';

export interface Delta {
  /** What is new or changed, and every directory on the way to it. */
  readonly root: DirectoryNode;
  /** Names of the base that are gone, by the directory below `root` that hides them. */
  readonly hidden: ReadonlyMap<DirectoryNode, ReadonlySet<RawName>>;
  /** Directories below `root` that hide everything that the base has there. Never the root: overlayfs merges it always. */
  readonly opaque: ReadonlySet<DirectoryNode>;
}

interface Place {
  readonly whole: DirectoryNode;
  readonly base: DirectoryNode | undefined;
  readonly delta: DirectoryNode;
  /** Where it is an entry; undefined for the root. */
  readonly within: { readonly directory: DirectoryNode; readonly name: RawName } | undefined;
}

/** What makes `whole` of `base`, which are finished trees. Leaf nodes are shared with `whole`. */
export function makeDelta(base: DirectoryNode, whole: DirectoryNode): Delta {
  const isSame = compareLeaves(base, whole);
  const hidden = new Map<DirectoryNode, ReadonlySet<RawName>>();
  const opaque = new Set<DirectoryNode>();
  const root = emptyCopy(whole);
  const places: Place[] = [{ whole, base, delta: root, within: undefined }];
  for (const { whole: here, base: below, delta, within } of places) {
    let keepsAny = false;
    for (const [name, entry] of here.entries) {
      const before = below?.entries.get(name);
      if (entry.kind === 'directory') {
        const copy = emptyCopy(entry);
        delta.entries.set(name, copy);
        const counterpart = before?.kind === 'directory' ? before : undefined;
        places.push({ whole: entry, base: counterpart, delta: copy, within: { directory: delta, name } });
        keepsAny ||= counterpart !== undefined;
      } else if (before !== undefined && isSame(inodeOf(before), inodeOf(entry))) keepsAny = true;
      else delta.entries.set(name, entry);
    }
    const gone = [...(below?.entries.keys() ?? [])].filter((name) => !here.entries.has(name));
    if (gone.length === 0) continue;
    if (keepsAny || within === undefined) hidden.set(delta, new Set(gone));
    else opaque.add(delta);
  }
  // Backwards: what lies in a directory comes after it.
  for (const { whole: here, base: below, delta, within } of places.reverse()) {
    const isUnchanged = delta.entries.size === 0 && !hidden.has(delta) && !opaque.has(delta);
    if (isUnchanged && within !== undefined && below !== undefined && isSameInode(below, here)) {
      within.directory.entries.delete(within.name);
    }
  }
  return { root, hidden, opaque };
}

/** The tree that `makeDelta` was given, as an overlay shows it. Uses up both. */
export function applyDelta(base: DirectoryNode, { root, hidden, opaque }: Delta): DirectoryNode {
  const pending = [{ under: base, over: root }];
  for (const { under, over } of pending) {
    if (opaque.has(over)) under.entries.clear();
    for (const name of hidden.get(over) ?? []) under.entries.delete(name);
    for (const [name, entry] of over.entries) {
      const below = under.entries.get(name);
      if (entry.kind === 'directory' && below?.kind === 'directory') pending.push({ under: below, over: entry });
      else under.entries.set(name, entry);
    }
    copyMetadata(over, under);
  }
  settleLinks(base);
  return base;
}

function emptyCopy(directory: DirectoryNode): DirectoryNode {
  return { ...directory, entries: new Map() };
}

/** Whether the base's inode can stay in the place of the other, with the names that it has. */
function compareLeaves(base: DirectoryNode, whole: DirectoryNode): (before: TreeNode, after: TreeNode) => boolean {
  const names = new Map([...namesOfLinked(base), ...namesOfLinked(whole)]);
  // A whiteout that the image itself holds marks its directory, so it must lie where the directory comes from.
  return (before, after) => isSameInode(before, after) && !isWhiteout(after) && names.get(before) === names.get(after);
}

function isSameInode(before: TreeNode, after: TreeNode): boolean {
  const isSameTime = before.mtime.sec === after.mtime.sec && before.mtime.nsec === after.mtime.nsec;
  return isSameTime && aspectsOf(before, after).length === 0;
}

/** All names in one text, of each inode that has several. */
function namesOfLinked(root: DirectoryNode): Map<TreeNode, string> {
  const names = new Map<TreeNode, string>();
  for (const { path, entry } of walkTree(root)) {
    const inode = inodeOf(entry);
    if (inode.kind !== 'directory' && inode.nlink > 1) names.set(inode, `${names.get(inode) ?? ''}${path}\0`);
  }
  return names;
}
