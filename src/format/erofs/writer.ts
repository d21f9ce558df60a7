/**
 * Second pass of the EROFS writer: emits the planned image, front to back. Every byte is decided by the plan; what is
 * not written stays zero.
 */

import type { DirectoryNode, VerityAlgorithm } from '../../tree/node.ts';
import { writeRaw } from '../../tree/name.ts';
import { assertValidTree, type ValidTree } from '../../tree/validate.ts';
import { viewOf } from '../bytes/record.ts';
import { hasWhiteout, prepareTree, type ComposefsVersion, type LayerMarks, type PreparedInode } from './composefs.ts';
import { blockEnd } from './directory-blocks.ts';
import { FILE_TYPES } from './file-type.ts';
import * as L from './layout.ts';
import { planImage, storedSize, type ImagePlan } from './plan.ts';
import { planVersion2, prepareVersion2 } from './version2.ts';
import { splitShared, xattrEntrySize, type Xattr } from './xattrs.ts';

export interface ComposefsImageOptions {
  /** The algorithm that all digests of the tree must have been made with. */
  readonly algorithm: VerityAlgorithm;
  /** Version to start from; 1 unless `maxVersion` is 0. 2 is written when it is asked for, never chosen. */
  readonly minVersion?: ComposefsVersion;
  /** Version that whiteouts may raise it to; 1 when not given. Below `minVersion` it has no effect. */
  readonly maxVersion?: ComposefsVersion;
  /** Makes it a layer over another image, in version 0 or 1: what it hides there. */
  readonly marks?: LayerMarks;
}

export interface ComposefsImage {
  readonly bytes: Uint8Array;
  /** Composefs version in the header. */
  readonly version: ComposefsVersion;
}

/**
 * The composefs image of a tree, byte for byte as mkcomposefs writes it; version 1 unless told otherwise
 * (`minVersion: 0` is mkcomposefs' default mode; 2 as composefs-rs writes it). The tree is not modified. Throws
 * `image-invalid` listing every problem when the tree cannot be an image.
 */
export function writeComposefsImage(root: DirectoryNode, options: ComposefsImageOptions): ComposefsImage {
  assertValidTree(root, { algorithm: options.algorithm });
  return writeValidTree(root, options);
}

/** The same of a tree that is known to be valid for the algorithm. */
export function writeValidTree(root: ValidTree, options: Omit<ComposefsImageOptions, 'algorithm'>): ComposefsImage {
  const version = chooseVersion(root, options);
  const plan =
    version === 2 ? planVersion2(prepareVersion2(root)) : planImage(prepareTree(root, version, options.marks));
  return { bytes: emitImage(plan), version };
}

function chooseVersion(
  root: DirectoryNode,
  { minVersion, maxVersion = 1 }: Pick<ComposefsImageOptions, 'minVersion' | 'maxVersion'>,
): ComposefsVersion {
  const base = minVersion ?? maxVersion;
  return base < maxVersion && hasWhiteout(root) ? 1 : base;
}

/** Writes out a plan. */
export function emitImage(plan: ImagePlan): Uint8Array {
  const bytes = new Uint8Array(plan.sizeBytes);
  const output: Output = { bytes: Buffer.from(bytes.buffer), view: viewOf(bytes) };
  emitHeader(output, plan);
  for (const inode of plan.tree.inodes) {
    emitInode(output, plan, inode);
    emitXattrs(output, plan, inode);
    emitData(output, plan, inode);
  }
  for (const xattr of plan.tree.sharedXattrs) emitXattr(output, plan.inodesEnd + xattr.sharedOffset, xattr);
  return bytes;
}

interface Output {
  readonly bytes: Buffer;
  readonly view: DataView;
}

function emitHeader({ view }: Output, { tree, offset, sizeBytes, xattrBlock }: ImagePlan): void {
  L.composefsHeader.encode(view, 0, {
    magic: L.COMPOSEFS_MAGIC,
    headerVersion: 1,
    flags: tree.hasAcl ? L.COMPOSEFS_FLAG_HAS_ACL : 0,
    composefsVersion: tree.version,
  });
  L.superblock.encode(view, L.SUPERBLOCK_OFFSET, {
    magic: L.EROFS_MAGIC,
    featureCompat: L.FEATURE_COMPAT_MTIME | L.FEATURE_COMPAT_XATTR_FILTER,
    blockSizeBits: Math.log2(L.BLOCK_SIZE),
    rootNid: offset[0]! / L.SLOT_SIZE,
    inodeCount: BigInt(tree.inodes.length),
    buildTimeSec: tree.minMtime.sec,
    buildTimeNsec: tree.minMtime.nsec,
    blockCount: sizeBytes / L.BLOCK_SIZE,
    metaBlock: 0,
    xattrBlock,
    featureIncompat: 0,
    dirBlockBits: 0,
  });
}

function emitInode({ view }: Output, plan: ImagePlan, inode: PreparedInode): void {
  const { ino, mode, nlink, uid, gid, mtime } = inode;
  const offset = plan.offset[ino]!;
  const xattrSize = plan.xattrSize[ino]!;
  const form = plan.extended[ino]!;
  const format = (dataLayout(plan, inode) << 1) | form;
  const xattrCount = xattrSize === 0 ? 0 : (xattrSize - L.xattrHeader.size) / 4 + 1;
  const data = dataField(plan, inode);
  const size = storedSize(inode, { blocks: plan.blocks[ino]!, tail: plan.tail[ino]! });
  // Whole literals: spreading what both have in common took a third of the time of writing an image.
  if (form === 0) {
    const values = { format, xattrCount, mode, nlink, size, data, ino: plan.inodeNumber(ino), uid, gid };
    L.compactInode.encode(view, offset, values);
  } else {
    const { sec: mtimeSec, nsec: mtimeNsec } = mtime;
    const [number, bigSize] = [plan.inodeNumber(ino), BigInt(size)];
    const values = { format, xattrCount, mode, size: bigSize, data, ino: number, uid, gid, mtimeSec, mtimeNsec, nlink };
    L.extendedInode.encode(view, offset, values);
  }
}

function isExternal({ node }: PreparedInode): boolean {
  return node?.kind === 'file' && node.content.kind === 'external';
}

function dataLayout(plan: ImagePlan, inode: PreparedInode): number {
  if (isExternal(inode)) return L.LAYOUT_CHUNKED;
  return plan.tail[inode.ino]! > 0 ? L.LAYOUT_INLINE : L.LAYOUT_PLAIN;
}

/** `i_u`: what it means depends on the kind of inode. */
function dataField(plan: ImagePlan, { ino, kind, node }: PreparedInode): number {
  if (kind === 'char' || kind === 'block') return node !== undefined && 'rdev' in node ? node.rdev : 0;
  const block = plan.blocks[ino]! > 0 ? plan.firstBlock[ino]! : 0;
  if (node?.kind === 'file' && node.content.kind === 'external') {
    // libcomposefs stores the address of a table it moved out and then the format over its low half.
    return ((block & 0xffff0000) | (plan.chunks(node.content).bits - 12)) >>> 0;
  }
  return block;
}

function emitXattrs(output: Output, plan: ImagePlan, inode: PreparedInode): void {
  const { ino } = inode;
  if (plan.xattrSize[ino] === 0) return;
  const xattrs = plan.tree.xattrsOf(inode);
  const { shared, inline } = splitShared(xattrs, plan.maxShared);
  let at = plan.offset[ino]! + headSize(plan, ino);
  L.xattrHeader.encode(output.view, at, {
    nameFilter: ~xattrs.reduce((bits, xattr) => bits | xattr.name.filterBit, 0) >>> 0,
    sharedCount: shared.length,
  });
  at += L.xattrHeader.size;
  for (const xattr of shared) {
    output.view.setUint32(at, (plan.inodesEnd - plan.xattrBlock * L.BLOCK_SIZE + xattr.sharedOffset) / 4, true);
    at += 4;
  }
  for (const xattr of inline) {
    emitXattr(output, at, xattr);
    at += xattrEntrySize(xattr);
  }
}

function emitXattr({ bytes, view }: Output, at: number, { name, key }: Xattr): void {
  L.xattrEntry.encode(view, at, {
    nameSize: name.suffix.length,
    nameIndex: name.index,
    valueSize: name.form.sizeOf(key),
  });
  writeRaw(bytes, name.suffix, at + L.xattrEntry.size);
  name.form.write(bytes, at + L.xattrEntry.size + name.suffix.length, key);
}

function headSize(plan: ImagePlan, ino: number): number {
  return plan.extended[ino] === 1 ? L.extendedInode.size : L.compactInode.size;
}

function emitData(output: Output, plan: ImagePlan, inode: PreparedInode): void {
  const { ino, kind, node } = inode;
  const tailAt = plan.offset[ino]! + headSize(plan, ino) + plan.xattrSize[ino]!;
  const blockAt = plan.firstBlock[ino]! * L.BLOCK_SIZE;
  if (kind === 'directory') return emitDirectory(output, plan, inode, blockAt, tailAt);
  const blocks = plan.blocks[ino]!;
  if (node?.kind === 'symlink') {
    writeRaw(output.bytes, node.target, blocks > 0 ? blockAt : tailAt);
  } else if (node?.kind === 'file' && node.content.kind === 'inline') {
    const split = Math.min(blocks * L.BLOCK_SIZE, node.content.bytes.length);
    output.bytes.set(node.content.bytes.subarray(0, split), blockAt);
    output.bytes.set(node.content.bytes.subarray(split), tailAt);
  } else if (isExternal(inode)) {
    output.bytes.fill(0xff, tailAt, tailAt + plan.tail[ino]!);
    output.bytes.fill(0xff, blockAt, blockAt + blocks * L.BLOCK_SIZE);
  }
}

function emitDirectory(output: Output, plan: ImagePlan, inode: PreparedInode, blockAt: number, tailAt: number): void {
  const { names } = inode;
  const blocks = plan.blocks[inode.ino]!;
  let from = 0;
  for (let block = 0; from < names.length; block++) {
    const end = blockEnd(names, from);
    emitDirents(output, plan, inode, from, end, block < blocks ? blockAt + block * L.BLOCK_SIZE : tailAt);
    from = end;
  }
}

/** Directory entries `from`…`end`−1 as one block or tail: the records, then the names. */
function emitDirents(
  output: Output,
  plan: ImagePlan,
  { names, targets }: PreparedInode,
  from: number,
  end: number,
  at: number,
): void {
  let nameOffset = (end - from) * L.dirent.size;
  for (let i = from; i < end; i++) {
    const target = targets[i]!;
    L.dirent.encode(output.view, at + (i - from) * L.dirent.size, {
      nid: BigInt(plan.offset[target.ino]! / L.SLOT_SIZE),
      nameOffset,
      fileType: FILE_TYPES[target.kind].direntType,
    });
    writeRaw(output.bytes, names[i]!, at + nameOffset);
    nameOffset += names[i]!.length;
  }
}
