/**
 * A tree as composefs dump text exactly as the tree holds it: entries in the order of their maps, hard links where they
 * stand, stated sizes kept. Unlike the canonical dump it hides nothing from the program that reads it, and it shares no
 * code with what is tested.
 */

import type { DirectoryNode, LeafNode, TreeNode } from '../../src/tree/node.ts';

const TYPE_BITS: Readonly<Record<TreeNode['kind'], number>> = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
};

/** Latin1 text. Parents come before their children; link targets may come later. */
export function rawDump(root: DirectoryNode): string {
  const lines: string[] = [line('/', root)];
  const paths = new Map<TreeNode, string>();
  const links: { index: number; path: string; target: LeafNode }[] = [];
  const queue = [{ path: '', directory: root }];
  for (const { path: parent, directory } of queue) {
    for (const [name, entry] of directory.entries) {
      const path = `${parent}/${name}`;
      if (entry.kind === 'hardlink') {
        links.push({ index: lines.push('') - 1, path, target: entry.target });
        continue;
      }
      paths.set(entry, path);
      lines.push(line(path, entry));
      if (entry.kind === 'directory') queue.push({ path, directory: entry });
    }
  }
  for (const { index, path, target } of links) {
    lines[index] =
      `${escape(path)} 0 @${(TYPE_BITS[target.kind] | 0o644).toString(8)} 1 0 0 0 0.0 ${escape(paths.get(target)!)} - -`;
  }
  return lines.map((text) => `${text}\n`).join('');
}

function line(path: string, node: TreeNode): string {
  const { kind, mode, uid, gid, mtime } = node;
  let size: bigint | number = 0;
  let rest = '- - -';
  if (node.kind === 'symlink') rest = `${escape(node.target)} - -`;
  else if (node.kind === 'file' && node.content.kind === 'inline') {
    size = node.content.bytes.length;
    rest = size === 0 ? '- - -' : `- ${escape(Buffer.from(node.content.bytes).toString('latin1'))} -`;
  } else if (node.kind === 'file' && node.content.kind === 'external') {
    size = node.content.size;
    rest = `${node.content.path === undefined ? '-' : escape(node.content.path)} - ${node.content.digest ?? '-'}`;
  } else if ('statedSize' in node) size = node.statedSize ?? 0;
  const rdev = node.kind === 'char' || node.kind === 'block' ? node.rdev : 0;
  const nlink = node.kind === 'directory' ? 1 : node.nlink;
  const time = `${mtime.sec}.${mtime.nsec}`;
  const xattrs = [...node.xattrs].map(
    ([name, value]) => ` ${escape(name)}=${escape(Buffer.from(value).toString('latin1'))}`,
  );
  const type = (TYPE_BITS[kind] | mode).toString(8);
  return `${escape(path)} ${size} ${type} ${nlink} ${uid} ${gid} ${rdev} ${time} ${rest}${xattrs.join('')}`;
}

/** Everything but letters, digits and a few signs as `\xHH`. */
function escape(text: string): string {
  return text.replace(/[^A-Za-z0-9_./]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
