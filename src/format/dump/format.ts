/**
 * Tree to composefs dump format (composefs-dump(5)), in the canonical form: what `composefs-info dump` prints for the
 * image of the tree. Depth first in byte order; the first name of an inode carries it and later names are links to it.
 * Xattrs come in the order of the image that the tree would be written to.
 */

import { rawFromBytes, type RawName } from '../../tree/name.ts';
import type { DirectoryNode, TreeNode } from '../../tree/node.ts';
import { assertValidTree } from '../../tree/validate.ts';
import { prepareTree, type ComposefsVersion, type PreparedInode, type PreparedTree } from '../erofs/composefs.ts';
import { directoryExtent, directorySize } from '../erofs/directory-blocks.ts';
import { FILE_TYPES } from '../erofs/file-type.ts';
import { unescapeXattrName } from '../erofs/xattr-name.ts';
import { splitShared, type Xattr } from '../erofs/xattrs.ts';
import { escapeField, escapeXattrText } from './escape.ts';

export interface FormatDumpOptions {
  /** Composefs version of the image that the dump is of: it can decide the order of xattrs. Default 1. */
  readonly version?: ComposefsVersion;
}

/** About this many characters go into one piece of output. */
const PIECE_LENGTH = 65536;

/**
 * The dump in pieces of whole lines, all ASCII. Directories print their size in the image. Throws `image-invalid` for a
 * tree that cannot be an image.
 */
export function* formatDump(root: DirectoryNode, options: FormatDumpOptions = {}): Generator<string, void> {
  assertValidTree(root);
  let piece = '';
  for (const line of dumpLines(prepareTree(root, options.version ?? 1))) {
    piece += line;
    if (piece.length >= PIECE_LENGTH) {
      yield piece;
      piece = '';
    }
  }
  yield piece;
}

function* dumpLines({ inodes, xattrsOf }: PreparedTree): Generator<string, void> {
  const nameCounts = countNames(inodes);
  const firstPaths = new Map<PreparedInode, string>();
  const stack: { readonly path: string; readonly inode: PreparedInode }[] = [{ path: '', inode: inodes[0]! }];
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    const { inode } = top;
    const path = top.path === '' ? '/' : top.path;
    if (inode.node === undefined) continue; // stubs are no part of the tree
    const firstPath = firstPaths.get(inode);
    yield dumpLine(path, inode, inode.node, xattrFields(xattrsOf(inode), inode.node), firstPath);
    if (firstPath !== undefined) continue;
    if (nameCounts[inode.ino]! > 1) firstPaths.set(inode, path);
    for (let i = inode.names.length - 1; i >= 0; i--) {
      const name = inode.names[i]!;
      if (name !== '.' && name !== '..') stack.push({ path: `${top.path}/${name}`, inode: inode.targets[i]! });
    }
  }
}

/** How many names each inode has, by ino, directories left out. The stated link counts need not be true. */
function countNames(inodes: readonly PreparedInode[]): Uint32Array {
  const counts = new Uint32Array(inodes.length);
  for (const { targets } of inodes) {
    for (const target of targets) if (target.kind !== 'directory') counts[target.ino]!++;
  }
  return counts;
}

/** One line; with `firstPath`, a further name of the inode found there. */
function dumpLine(
  path: string,
  inode: PreparedInode,
  node: TreeNode,
  xattrs: readonly string[],
  firstPath: string | undefined,
): string {
  const mode = (FILE_TYPES[node.kind].modeType | node.mode).toString(8);
  const { size, payload, content, digest } = dataFields(inode, node);
  const fields = [
    escapeField(path),
    size,
    firstPath === undefined ? mode : `@${mode}`,
    inode.nlink,
    node.uid,
    node.gid,
    node.kind === 'char' || node.kind === 'block' ? node.rdev : 0,
    `${node.mtime.sec}.${node.mtime.nsec}`,
    optionalField(firstPath ?? payload),
    optionalField(content),
    digest ?? '-',
    ...xattrs,
  ];
  return `${fields.join(' ')}\n`;
}

function optionalField(value: string | undefined): string {
  return value === undefined || value === '' ? '-' : escapeField(value);
}

interface DataFields {
  readonly size: number;
  readonly payload?: string | undefined;
  readonly content?: string;
  readonly digest?: string | undefined;
}

function dataFields(inode: PreparedInode, node: TreeNode): DataFields {
  switch (node.kind) {
    case 'directory':
      return { size: directorySize(directoryExtent(inode.names)) };
    case 'symlink':
      return { size: node.target.length, payload: node.target };
    case 'file':
      if (node.content.kind === 'external') {
        return { size: node.content.size, payload: node.content.path, digest: node.content.digest };
      }
      return { size: node.content.bytes.length, content: rawFromBytes(node.content.bytes) };
    case 'char':
    case 'block':
    case 'fifo':
    case 'socket':
      return { size: 0 };
  }
}

/** In the order of the image: those written with the inode first, then the shared ones. */
function xattrFields(xattrs: readonly Xattr[], node: TreeNode): string[] {
  const { inline, shared } = splitShared(xattrs);
  const fields: string[] = [];
  for (const { name } of [...inline, ...shared]) {
    const given = unescapeXattrName(name.full);
    const value = given === undefined ? undefined : node.xattrs.get(given as RawName);
    if (given !== undefined && value !== undefined) {
      fields.push(`${escapeXattrText(given)}=${escapeXattrText(rawFromBytes(value))}`);
    }
  }
  return fields;
}
