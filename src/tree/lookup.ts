/** Looks up entries of a finished tree by path. */

import { rawFromText, type RawName } from './name.ts';
import { inodeOf, type DirectoryNode, type TreeNode } from './node.ts';

/** Symlinks on one way, as the kernel counts them. */
const MAX_LINKS = 40;

/** The inode at a path such as `usr/lib/os-release`, or undefined; "" and "/" are the root. Follows no symlinks. */
export function lookup(root: DirectoryNode, path: string): TreeNode | undefined {
  let node: TreeNode | undefined = root;
  for (const component of path.split('/')) {
    if (component === '') continue;
    const entry = node.kind === 'directory' ? node.entries.get(rawFromText(component)) : undefined;
    if (entry === undefined) return undefined;
    node = inodeOf(entry);
  }
  return node;
}

/**
 * The inode that a process whose root is the tree finds at a path, symlinks followed, also the last; undefined where
 * that is nothing.
 */
export function resolve(root: DirectoryNode, path: RawName): TreeNode | undefined {
  const way: TreeNode[] = [root];
  const pending = path.split('/').reverse() as RawName[];
  let links = 0;
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === '' || name === '.') continue;
    if (name === '..') {
      if (way.length > 1) way.pop();
      continue;
    }
    const here = way.at(-1);
    const entry = here?.kind === 'directory' ? here.entries.get(name) : undefined;
    if (entry === undefined) return undefined;
    const node = inodeOf(entry);
    if (node.kind !== 'symlink') {
      way.push(node);
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) return undefined;
    if (node.target.startsWith('/')) way.length = 1;
    pending.push(...(node.target.split('/').reverse() as RawName[]));
  }
  return way.at(-1);
}

/** The directory at a path, or undefined if there is none or something else. */
export function lookupDirectory(root: DirectoryNode, path: string): DirectoryNode | undefined {
  const node = lookup(root, path);
  return node?.kind === 'directory' ? node : undefined;
}

/** A copy of the tree that can be changed without changing the original; what is never changed is shared. */
export function copyTree(root: DirectoryNode): DirectoryNode {
  const copies = new Map<TreeNode, TreeNode>();
  const pending: { readonly from: DirectoryNode; readonly to: DirectoryNode }[] = [];
  const copy = <T extends TreeNode>(node: T): T => {
    const known = copies.get(node);
    if (known !== undefined) return known as T;
    const made = { ...node };
    if (made.kind === 'directory') {
      const to: DirectoryNode = { ...made, entries: new Map() };
      pending.push({ from: node as DirectoryNode, to });
      copies.set(node, to);
      return to as T;
    }
    copies.set(node, made);
    return made;
  };
  const result = copy(root);
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    for (const [name, entry] of next.from.entries) {
      next.to.entries.set(
        name,
        entry.kind === 'hardlink' ? { kind: 'hardlink', target: copy(entry.target) } : copy(entry),
      );
    }
  }
  return result;
}
