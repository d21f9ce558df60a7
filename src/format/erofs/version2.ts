/**
 * Composefs version 2: the layout that composefs-rs wrote before version 1, still found on hosts of bootc. The same
 * records in another order: depth first, every inode in its extended form and padded to a slot, no stubs and no
 * rewritten whiteouts, times in seconds, one chunk for each object.
 */

import type { RawName } from '../../tree/name.ts';
import { rawFromBytes } from '../../tree/name.ts';
import type { DirectoryNode, ExternalContent, LeafNode, TreeNode } from '../../tree/node.ts';
import { HostctlError } from '../../errors.ts';
import { roundUp } from '../bytes/align.ts';
import type { PreparedInode, PreparedTree } from './composefs.ts';
import { directoryExtent } from './directory-blocks.ts';
import { FILE_TYPES } from './file-type.ts';
import { BLOCK_SIZE, extendedInode, INODES_START, MAX_CHUNK_BITS, SLOT_SIZE } from './layout.ts';
import { newColumns, placeData, type ImagePlan } from './plan.ts';
import { escapeXattrName } from './xattr-name.ts';
import { xattrAreaSize, XattrPool } from './xattrs.ts';

/** What the count in an inode's xattr header can say. */
const MAX_SHARED = 255;
const EPOCH = { sec: 0n, nsec: 0 };

interface DraftInode extends PreparedInode {
  /** Of a leaf: how many names it has, whatever was stated. */
  nlink: number;
  names: string[];
  targets: PreparedInode[];
}

/** Lists every inode of a valid tree, each directory before its entries and each entry before the next. */
export function prepareVersion2(root: DirectoryNode): PreparedTree {
  const pool = new XattrPool(true);
  const inodes: DraftInode[] = [];
  const linked = new Map<LeafNode, DraftInode>();
  const add = (node: TreeNode): DraftInode => {
    const inode: DraftInode = {
      ino: inodes.length,
      kind: node.kind,
      node,
      mode: FILE_TYPES[node.kind].modeType | node.mode,
      nlink: node.kind === 'directory' ? 2 + countDirectories(node) : 0,
      uid: node.uid,
      gid: node.gid,
      mtime: { sec: node.mtime.sec, nsec: 0 },
      names: [],
      targets: [],
    };
    inodes.push(inode);
    for (const [name, key] of settingsOf(node)) pool.use(name, key);
    return inode;
  };
  const frames: {
    readonly inode: DraftInode;
    readonly parent: DraftInode;
    readonly directory: DirectoryNode;
    at: number;
  }[] = [];
  const open = (inode: DraftInode, parent: DraftInode, directory: DirectoryNode): void => {
    inode.names = [...directory.entries.keys(), '.', '..'].sort();
    frames.push({ inode, parent, directory, at: 0 });
  };
  const first = add(root);
  open(first, first, root);
  for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
    const { inode, parent, directory } = frame;
    const name = inode.names[frame.at];
    frame.at += 1;
    if (name === undefined) frames.pop();
    else if (name === '.') inode.targets.push(inode);
    else if (name === '..') inode.targets.push(parent);
    else {
      const entry = directory.entries.get(name as RawName)!;
      if (entry.kind === 'directory') {
        const child = add(entry);
        inode.targets.push(child);
        open(child, inode, entry);
      } else {
        const leaf = entry.kind === 'hardlink' ? entry.target : entry;
        const known = linked.get(leaf);
        const child = known ?? add(leaf);
        if (known === undefined) linked.set(leaf, child);
        child.nlink += 1;
        inode.targets.push(child);
      }
    }
  }
  const shared = pool.share();
  return {
    version: 2,
    inodes,
    xattrsOf: ({ node }) => settingsOf(node!).map(([name, key]) => pool.get(name, key)),
    hasAcl: false,
    minMtime: EPOCH,
    sharedXattrs: shared.entries,
    sharedXattrsSize: shared.sizeBytes,
  };
}

function countDirectories(node: DirectoryNode): number {
  let count = 0;
  for (const entry of node.entries.values()) if (entry.kind === 'directory') count += 1;
  return count;
}

/** What sends overlayfs to the object first, then those of the node by name. */
function settingsOf(node: TreeNode): (readonly [name: string, key: string])[] {
  const found: [string, string][] = [];
  if (node.kind === 'file' && node.content.kind === 'external') {
    const { digest, path } = node.content;
    found.push(['trusted.overlay.metacopy', digest ?? '']);
    if (path !== undefined) found.push(['trusted.overlay.redirect', path]);
  }
  const own = [...node.xattrs].map(([name, value]) => [escapeXattrName(name), rawFromBytes(value)] as const);
  own.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return [...found, ...own];
}

/** Places everything. Throws `image-invalid` when the image would outgrow its address fields. */
export function planVersion2(tree: PreparedTree): ImagePlan {
  const plan = newColumns(tree);
  plan.extended.fill(1);
  let position = INODES_START;
  for (const inode of tree.inodes) {
    const { ino } = inode;
    const { blocks, tail } = dataRoom(inode);
    const xattrSize = xattrAreaSize(tree.xattrsOf(inode), MAX_SHARED);
    const head = extendedInode.size + xattrSize;
    position = roundUp(position, SLOT_SIZE);
    const isChunked = inode.node?.kind === 'file' && inode.node.content.kind === 'external';
    if (tail > 0 && !isChunked) position = beforeTail(position, head, tail);
    plan.offset[ino] = position;
    plan.xattrSize[ino] = xattrSize;
    plan.blocks[ino] = blocks;
    plan.tail[ino] = tail;
    position += head + tail;
  }
  const { inodesEnd, sizeBytes } = placeData(plan, position);
  return {
    ...plan,
    inodesEnd,
    sizeBytes,
    xattrBlock: 0,
    chunks,
    maxShared: MAX_SHARED,
    inodeNumber: (ino) => plan.offset[ino]! / SLOT_SIZE,
  };
}

/** The format is always that of the largest chunk; a file without a digest has no address. */
function chunks({ digest }: ExternalContent): { bits: number; count: number } {
  return { bits: MAX_CHUNK_BITS, count: digest === undefined ? 0 : 1 };
}

function dataRoom({ kind, node, names }: PreparedInode): { readonly blocks: number; readonly tail: number } {
  if (kind === 'directory') return directoryExtent(names);
  if (node?.kind === 'symlink') return { blocks: 0, tail: node.target.length };
  if (node?.kind !== 'file') return { blocks: 0, tail: 0 };
  if (node.content.kind === 'external') return { blocks: 0, tail: 4 * chunks(node.content).count };
  const { length } = node.content.bytes;
  if (length < BLOCK_SIZE) return { blocks: 0, tail: length };
  throw new HostctlError(
    'image-invalid',
    `Composefs version 2 cannot hold a file of ${length} bytes without an object`,
  );
}

/** Where an inode goes whose tail must not reach over a block boundary, as composefs-rs reckons it. */
function beforeTail(position: number, head: number, tail: number): number {
  const last = position + head - 1;
  const size = tail % BLOCK_SIZE;
  if (Math.floor(last / BLOCK_SIZE) === Math.floor((last + 1 + size) / BLOCK_SIZE)) return position;
  return roundUp(position + BLOCK_SIZE - (last % BLOCK_SIZE), SLOT_SIZE);
}
