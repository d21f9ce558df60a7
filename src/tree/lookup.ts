/** Finding nodes by path. No symlink is followed except where a function says so. Pure. */

import { rawFromText } from './name.ts';
import { inodeOf, type DirectoryNode, type TreeNode } from './node.ts';

const MAX_LINKS = 40;

/** The node at `path` (text, `/`-separated); undefined when a component is missing or is no directory. */
export function lookup(root: DirectoryNode, path: string): TreeNode | undefined {
  let node: TreeNode = root;
  for (const part of path.split('/').filter(Boolean)) {
    if (node.kind !== 'directory') return undefined;
    const entry = node.entries.get(rawFromText(part));
    if (entry === undefined) return undefined;
    node = inodeOf(entry);
  }
  return node;
}

/** The node at `path` with symlinks resolved inside the tree, `..` clamped at the root; undefined also for a loop. */
export function resolve(root: DirectoryNode, path: string): TreeNode | undefined {
  const pending = path.split('/').reverse();
  const trail: DirectoryNode[] = [root];
  let links = 0;
  let found: TreeNode = root;
  while (pending.length > 0) {
    const part = pending.pop();
    if (part === undefined || part === '' || part === '.') continue;
    if (found.kind !== 'directory') return undefined;
    if (part === '..') {
      if (trail.length > 1) trail.pop();
      found = trail.at(-1) ?? root;
      continue;
    }
    const entry = found.entries.get(rawFromText(part));
    if (entry === undefined) return undefined;
    const node = inodeOf(entry);
    if (node.kind === 'symlink') {
      links += 1;
      if (links > MAX_LINKS) return undefined;
      const target = Buffer.from(node.target, 'latin1').toString('utf8');
      if (target.startsWith('/')) {
        trail.length = 1;
        found = root;
      }
      pending.push(...target.split('/').reverse());
      continue;
    }
    found = node;
    if (node.kind === 'directory') trail.push(node);
  }
  return found;
}
