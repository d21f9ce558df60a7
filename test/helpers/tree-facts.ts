/**
 * A tree as plain values that tests compare as a whole: one record per name, the first name of an inode in depth-first
 * byte order with all that is known of it, the others as links to that. Independent of the code under test.
 */

import { inodeOf, type DirectoryNode, type TreeNode } from '../../src/tree/node.ts';

export type Fact = Readonly<Record<string, unknown>>;

/** Facts by path, in depth-first byte order. */
export function treeFacts(root: DirectoryNode): Record<string, Fact> {
  const facts: Record<string, Fact> = {};
  const firstPaths = new Map<TreeNode, string>();
  const stack: { path: string; node: TreeNode }[] = [{ path: '/', node: root }];
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    const { path, node } = top;
    const firstPath = firstPaths.get(node);
    facts[path] = firstPath === undefined ? nodeFact(node) : { link: firstPath };
    if (firstPath !== undefined) continue;
    firstPaths.set(node, path);
    if (node.kind !== 'directory') continue;
    const sorted = [...node.entries].sort(([a], [b]) => (a < b ? 1 : -1));
    for (const [name, entry] of sorted) {
      stack.push({ path: `${path === '/' ? '' : path}/${name}`, node: inodeOf(entry) });
    }
  }
  return facts;
}

function nodeFact(node: TreeNode): Fact {
  const { kind, mode, uid, gid, mtime } = node;
  const xattrs = Object.fromEntries([...node.xattrs].map(([name, value]) => [name, hex(value)] as const));
  const common = { kind, mode, uid, gid, mtime: `${mtime.sec}.${mtime.nsec}`, xattrs };
  switch (node.kind) {
    case 'directory':
      return common;
    case 'file':
      return {
        ...common,
        nlink: node.nlink,
        content: node.content.kind === 'inline' ? hex(node.content.bytes) : { ...node.content },
      };
    case 'symlink':
      return { ...common, nlink: node.nlink, target: node.target };
    case 'char':
    case 'block':
      return { ...common, nlink: node.nlink, rdev: node.rdev };
    case 'fifo':
    case 'socket':
      return { ...common, nlink: node.nlink };
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
