/**
 * First pass of the EROFS writer: gives every inode, tail and data block its place. Follows libcomposefs so exactly
 * that images come out byte-identical, odd padding rules included; nothing is written here.
 */

import { assertNever, HostctlError } from '../../errors.ts';
import { contentSize, type ExternalContent } from '../../tree/node.ts';
import { roundUp } from '../bytes/align.ts';
import type { PreparedInode, PreparedTree } from './composefs.ts';
import { directoryExtent, directorySize } from './directory-blocks.ts';
import {
  BLOCK_SIZE,
  compactInode,
  extendedInode,
  INODES_START,
  MAX_CHUNK_BITS,
  MAX_SHARED_REFERENCES,
  MAX_TAIL,
  SLOT_SIZE,
} from './layout.ts';
import { xattrAreaSize } from './xattrs.ts';

/** One row for each inode of the tree, by `ino`: a million inodes cost 28 MB. */
interface Columns {
  readonly tree: PreparedTree;
  /** Offset of each inode in the file. */
  readonly offset: Float64Array;
  /** 1 where the inode takes the extended form. */
  readonly extended: Uint8Array;
  /** Bytes of the xattr area. */
  readonly xattrSize: Uint32Array;
  /** Blocks in the data area. */
  readonly blocks: Uint32Array;
  /** Bytes after inode and xattrs. */
  readonly tail: Uint16Array;
  /** Address of the first block in the data area; meaningless without blocks. */
  readonly firstBlock: Uint32Array;
}

export interface ImagePlan extends Columns {
  /** End of the inode area, where the shared xattr table starts. */
  readonly inodesEnd: number;
  /** Size of the image, a multiple of 4096. */
  readonly sizeBytes: number;
  /** Block that references to shared xattrs count from. */
  readonly xattrBlock: number;
  /** Chunk size (as a power of two) and number of chunk addresses of an external file. */
  readonly chunks: (content: ExternalContent) => { readonly bits: number; readonly count: number };
  /** References to shared xattrs that an inode may have. */
  readonly maxShared: number;
  /** `i_ino`. */
  readonly inodeNumber: (ino: number) => number;
}

/** Places everything. Throws `image-invalid` when the image would outgrow its address fields. */
export function planImage(tree: PreparedTree): ImagePlan {
  const plan = newColumns(tree);
  let position = INODES_START;
  for (const inode of tree.inodes) {
    const { ino } = inode;
    const room = dataRoom(inode);
    const extended = needsExtended(inode, room, tree);
    const xattrSize = xattrAreaSize(tree.xattrsOf(inode));
    const head = (extended ? extendedInode.size : compactInode.size) + xattrSize;
    position = roundUp(position, SLOT_SIZE);
    const placed = inode.kind === 'symlink' ? placeSymlink(position, head, room) : placeOther(position, head, room);
    plan.offset[ino] = placed.offset;
    plan.extended[ino] = extended ? 1 : 0;
    plan.xattrSize[ino] = xattrSize;
    plan.blocks[ino] = placed.blocks;
    plan.tail[ino] = placed.tail;
    position = placed.offset + head + placed.tail;
  }
  const { inodesEnd, sizeBytes } = placeData(plan, position);
  return {
    ...plan,
    inodesEnd,
    sizeBytes,
    xattrBlock: blockOf(inodesEnd),
    chunks: ({ size }) => chunksOf(size),
    maxShared: MAX_SHARED_REFERENCES,
    inodeNumber: (ino) => ino,
  };
}

/** Columns to be filled in. */
export function newColumns(tree: PreparedTree): Columns {
  const count = tree.inodes.length;
  return {
    tree,
    offset: new Float64Array(count),
    extended: new Uint8Array(count),
    xattrSize: new Uint32Array(count),
    blocks: new Uint32Array(count),
    tail: new Uint16Array(count),
    firstBlock: new Uint32Array(count),
  };
}

/**
 * Gives the data area its place, behind inodes that end at `position` and the shared xattrs: fills in `firstBlock`.
 * Throws `image-invalid` when the image would outgrow its address fields.
 */
export function placeData(
  { tree, blocks, firstBlock }: Columns,
  position: number,
): Pick<ImagePlan, 'inodesEnd' | 'sizeBytes'> {
  const inodesEnd = roundUp(position, SLOT_SIZE);
  let block = roundUp(inodesEnd + tree.sharedXattrsSize, BLOCK_SIZE) / BLOCK_SIZE;
  for (let ino = 0; ino < tree.inodes.length; ino++) {
    firstBlock[ino] = block;
    block += blocks[ino]!;
  }
  if (block > 0xffffffff) throw new HostctlError('image-invalid', `Cannot write an image of ${block} blocks`);
  return { inodesEnd, sizeBytes: block * BLOCK_SIZE };
}

/** Chunk size (as a power of two) and number of chunks of an external file. */
export function chunksOf(sizeBytes: number): { bits: number; count: number } {
  let bits = 12;
  let chunk = BLOCK_SIZE;
  for (; bits < MAX_CHUNK_BITS && chunk < sizeBytes; bits++) chunk *= 2;
  return { bits, count: Math.ceil(sizeBytes / chunk) };
}

/** Bytes of `i_size`; for what stores no size this is 0. */
export function storedSize(inode: PreparedInode, room: Room): number {
  switch (inode.kind) {
    case 'directory':
      return directorySize(room);
    case 'file':
    case 'symlink':
      return leafSize(inode);
    case 'char':
    case 'block':
    case 'fifo':
    case 'socket':
      return 0;
    default:
      return assertNever(inode.kind);
  }
}

/** Blocks in the data area, and bytes beside the inode. */
interface Room {
  readonly blocks: number;
  readonly tail: number;
}

interface Place extends Room {
  readonly offset: number;
}

function leafSize({ kind, node }: PreparedInode): number {
  if (node?.kind === 'symlink') return node.target.length;
  if (kind !== 'file' || node?.kind !== 'file') return 0;
  return contentSize(node.content);
}

function dataRoom(inode: PreparedInode): Room {
  const { node } = inode;
  if (inode.kind === 'directory') return directoryExtent(inode.names);
  if (node?.kind === 'symlink') return { blocks: 0, tail: node.target.length };
  if (node?.kind !== 'file') return { blocks: 0, tail: 0 };
  if (node.content.kind === 'external') return { blocks: 0, tail: 4 * chunksOf(node.content.size).count };
  const size = node.content.bytes.length;
  const tail = size % BLOCK_SIZE;
  const blocks = Math.floor(size / BLOCK_SIZE);
  return tail > MAX_TAIL ? { blocks: blocks + 1, tail: 0 } : { blocks, tail };
}

/** A stated size of a special file counts here, although 0 is stored. */
function needsExtended(inode: PreparedInode, room: Room, tree: PreparedTree): boolean {
  const { node, mtime } = inode;
  const size =
    node !== undefined && 'statedSize' in node && inode.kind !== 'file'
      ? (node.statedSize ?? 0n)
      : storedSize(inode, room);
  return (
    mtime.sec !== tree.minMtime.sec ||
    mtime.nsec !== tree.minMtime.nsec ||
    inode.nlink > 0xffff ||
    inode.uid > 0xffff ||
    inode.gid > 0xffff ||
    size > 0xffffffff
  );
}

/**
 * Inode, xattrs and target go into one block. A target that cannot is moved to the data area, and the padding is still
 * computed as if it were there.
 */
function placeSymlink(position: number, head: number, { tail }: Room): Place {
  const total = head + tail;
  const crosses = blockOf(position) !== blockOf(position + total - 1);
  const offset = crosses ? roundUp(position, BLOCK_SIZE) : position;
  return total >= BLOCK_SIZE ? { offset, blocks: 1, tail: 0 } : { offset, blocks: 0, tail };
}

/** Inode and xattrs may cross block boundaries, the tail may not. */
function placeOther(position: number, head: number, { blocks, tail }: Room): Place {
  const room = leftInBlock(position + head);
  if (room >= tail) return { offset: position, blocks, tail };
  const padding = roundUp(room, SLOT_SIZE);
  if (leftInBlock(position + head + padding) >= tail) return { offset: position + padding, blocks, tail };
  return { offset: roundUp(position, BLOCK_SIZE), blocks: blocks + 1, tail: 0 };
}

function blockOf(position: number): number {
  return Math.floor(position / BLOCK_SIZE);
}

/** 1…4096. */
function leftInBlock(position: number): number {
  return BLOCK_SIZE - (position % BLOCK_SIZE);
}
