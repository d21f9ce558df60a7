/**
 * A tree as a flat table, so that a test can state all of it: path to `d755`, `f644 text`, `-> target`, `= first/name`
 * of a hard link, `c 1,3`.
 */

import { displayRaw, type RawName } from '../../src/tree/name.ts';
import type { DirectoryNode, LeafNode, TreeEntry, TreeNode } from '../../src/tree/node.ts';

/** Every entry below the root by path, in no particular order. */
export function listing(root: DirectoryNode, describe = describeNode): Record<string, string> {
  const result = new Map<string, string>();
  const names = new Map<TreeNode, string>();
  const links: { path: string; target: LeafNode }[] = [];
  for (const { path, entry } of walk(root)) {
    if (entry.kind === 'hardlink') {
      links.push({ path, target: entry.target });
    } else {
      names.set(entry, path);
      result.set(path, describe(entry));
    }
  }
  for (const { path, target } of links) result.set(path, `= ${names.get(target) ?? '(nowhere)'}`);
  return Object.fromEntries(result);
}

/** Every entry below the root with its path. */
export function* walk(root: DirectoryNode): Generator<{ path: string; entry: TreeEntry }> {
  const stack: { path: string; directory: DirectoryNode }[] = [{ path: '', directory: root }];
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    for (const [name, entry] of top.directory.entries) {
      const path = `${top.path}${top.path === '' ? '' : '/'}${displayRaw(name)}`;
      yield { path, entry };
      if (entry.kind === 'directory') stack.push({ path, directory: entry });
    }
  }
}

export function describeNode(node: TreeNode): string {
  const mode = node.mode.toString(8);
  const links = node.kind !== 'directory' && node.nlink !== 1 ? ` x${node.nlink}` : '';
  switch (node.kind) {
    case 'directory':
      return `d${mode}`;
    case 'file': {
      const { content } = node;
      const what =
        content.kind === 'inline' ? latin1(content.bytes) : `<${content.size} ${content.digest?.slice(0, 12) ?? ''}>`;
      return `f${mode} ${what}${links}`;
    }
    case 'symlink':
      return `-> ${displayRaw(node.target)}${links}`;
    case 'char':
    case 'block':
      return `${node.kind[0]} ${(node.rdev >>> 8) & 0xfff},${(node.rdev & 0xff) | ((node.rdev >>> 12) & ~0xff)}${links}`;
    default:
      return `${node.kind}${links}`;
  }
}

/** As `describeNode`, with what is not usual: ` 1:2` for an owner, ` @5.5` for a time, ` name=value` for xattrs. */
export function describeFully(node: TreeNode): string {
  const { uid, gid, mtime, xattrs } = node;
  const nsec = mtime.nsec === 0 ? '' : `.${String(mtime.nsec).padStart(9, '0').replace(/0+$/, '')}`;
  const owner = uid === 0 && gid === 0 ? '' : ` ${uid}:${gid}`;
  const time = mtime.sec === 0n && nsec === '' ? '' : ` @${mtime.sec}${nsec}`;
  const pairs = [...xattrs].map(([name, value]) => ` ${displayRaw(name)}=${latin1(value)}`).sort();
  return `${describeNode(node)}${owner}${time}${pairs.join('')}`;
}

function latin1(bytes: Uint8Array): string {
  return displayRaw(Buffer.from(bytes).toString('latin1') as RawName);
}
