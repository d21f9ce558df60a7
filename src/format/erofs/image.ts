/**
 * The structures of an EROFS image as composefs writes them: superblock, inodes, xattrs, directory entries, data. The
 * bytes may come from anywhere: every offset is checked, and an image whose inodes claim more bytes than it has is
 * refused, so reading each inode once takes time and memory in proportion to the image.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, rawFromBytes, type RawName } from '../../tree/name.ts';
import type { Timestamp } from '../../tree/node.ts';
import { roundUp } from '../bytes/align.ts';
import { viewOf, type Decoded } from '../bytes/record.ts';
import { kindOfMode, MODE_PERMISSION_MASK, type NodeKind } from './file-type.ts';
import * as L from './layout.ts';
import { joinXattrName } from './xattr-name.ts';

export interface ImageInode {
  readonly nid: number;
  /** Of the inode in the file. */
  readonly offset: number;
  readonly extended: boolean;
  readonly kind: NodeKind;
  /** Permission bits. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Timestamp;
  /** `i_size`, at most 2^53. */
  readonly size: number;
  /** `LAYOUT_*` */
  readonly layout: number;
  /** `i_u`: block address, chunk format or device number. */
  readonly data: number;
  /** Bytes of the xattr area. */
  readonly xattrSize: number;
  /** Where xattrs begin. */
  readonly xattrOffset: number;
  /** Where an inline tail or chunk table begins. */
  readonly tailOffset: number;
}

export interface ImageXattr {
  readonly name: RawName;
  /** A view of the image. */
  readonly value: Uint8Array;
  readonly shared: boolean;
}

export interface ImageEntry {
  readonly name: RawName;
  readonly nid: number;
  readonly fileType: number;
}

/** A piece of the file that holds content of an inode. */
export interface Extent {
  readonly offset: number;
  readonly size: number;
}

/** Throws the error of a malformed image: `where` is a record, then what is wrong with a field. */
export function refuseImage(where: string, offset: number, problem: string): never {
  throw new HostctlError('format-invalid', `Cannot read the image: ${where} at offset ${offset}: ${problem}`);
}

export class ErofsImage {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly header: Decoded<typeof L.composefsHeader>;
  readonly superblock: Decoded<typeof L.superblock>;
  readonly #sharedXattrs = new Map<number, ImageXattr>();
  readonly #buildTime: Timestamp;
  #claimed = 0;

  /** Throws `format-invalid` for what is no composefs image, `image-unsupported` for one of another format version. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.header = L.composefsHeader.decode(this.view, 0);
    this.superblock = L.superblock.decode(this.view, L.SUPERBLOCK_OFFSET);
    checkHeader(this.header);
    checkSuperblock(this.superblock, bytes.length);
    this.#buildTime = { sec: this.superblock.buildTimeSec, nsec: this.superblock.buildTimeNsec };
  }

  get rootNid(): number {
    return this.superblock.rootNid;
  }

  /** Where the inode with this number begins. */
  offsetOf(nid: number): number {
    return this.superblock.metaBlock * L.BLOCK_SIZE + nid * L.SLOT_SIZE;
  }

  /** Reads an inode. The room it takes counts against the size of the image: read each one once. */
  inode(nid: number): ImageInode {
    const offset = this.offsetOf(nid);
    const format = this.#u16(offset, 'inode');
    const extended = (format & 1) === 1;
    const layout = format >> 1;
    const raw = extended ? L.extendedInode.decode(this.view, offset) : L.compactInode.decode(this.view, offset);
    const mtime = 'mtimeSec' in raw ? { sec: raw.mtimeSec, nsec: raw.mtimeNsec } : this.#buildTime;
    const size = Number(raw.size);
    const kind = kindOfMode(raw.mode);
    if (kind === undefined) refuseImage('inode', offset, `mode 0${raw.mode.toString(8)} has no file type`);
    if (layout !== L.LAYOUT_PLAIN && layout !== L.LAYOUT_INLINE && layout !== L.LAYOUT_CHUNKED) {
      refuseImage('inode', offset, `format ${format} has no known data layout`);
    }
    if (size > 2 ** 53) refuseImage('inode', offset, `size ${raw.size} is above 2^53`);
    if (mtime.nsec > 999_999_999) refuseImage('inode', offset, `mtime has ${mtime.nsec} nanoseconds`);
    const headSize = (extended ? L.extendedInode : L.compactInode).size;
    const xattrSize = raw.xattrCount === 0 ? 0 : L.xattrHeader.size + 4 * (raw.xattrCount - 1);
    this.#claim('inode', offset, headSize + xattrSize);
    return {
      nid,
      offset,
      extended,
      kind,
      mode: raw.mode & MODE_PERMISSION_MASK,
      nlink: raw.nlink,
      uid: raw.uid,
      gid: raw.gid,
      mtime,
      size,
      layout,
      data: raw.data,
      xattrSize,
      xattrOffset: offset + headSize,
      tailOffset: offset + headSize + xattrSize,
    };
  }

  /** The xattrs of an inode by their full names in the image, in disk order: written with the inode, then shared. */
  xattrs(inode: ImageInode): ImageXattr[] {
    if (inode.xattrSize === 0) return [];
    const { xattrOffset, tailOffset } = inode;
    const { sharedCount } = L.xattrHeader.decode(this.view, xattrOffset);
    const inlineOffset = xattrOffset + L.xattrHeader.size + 4 * sharedCount;
    if (inlineOffset > tailOffset) {
      refuseImage('xattr header', xattrOffset, `shared count ${sharedCount} runs past the ${inode.xattrSize} bytes`);
    }
    const xattrs: ImageXattr[] = [];
    for (let at = inlineOffset; at < tailOffset;) {
      const { xattr, end } = this.#xattr(at, tailOffset, false);
      xattrs.push(xattr);
      at = end;
    }
    for (let at = xattrOffset + L.xattrHeader.size; at < inlineOffset; at += 4) xattrs.push(this.#sharedXattr(at));
    if (hasNameTwice(xattrs)) refuseImage('xattr header', xattrOffset, 'a name appears twice');
    return xattrs;
  }

  /**
   * Where the content of a directory, an inline file or a symlink lies, in order: blocks, then the tail. Counts against
   * the size of the image like `inode`.
   */
  extents(inode: ImageInode): Extent[] {
    const { offset, size, layout } = inode;
    if (layout === L.LAYOUT_CHUNKED) refuseImage('inode', offset, `chunk-based ${inode.kind}`);
    const tail = layout === L.LAYOUT_INLINE ? size % L.BLOCK_SIZE : 0;
    const extents: Extent[] = [];
    if (size > tail) {
      const blocks = { offset: inode.data * L.BLOCK_SIZE, size: size - tail };
      this.#claim(`${inode.kind} data`, blocks.offset, blocks.size);
      extents.push(blocks);
    }
    if (tail > 0) {
      this.#claim(`${inode.kind} tail`, inode.tailOffset, tail);
      extents.push({ offset: inode.tailOffset, size: tail });
    }
    return extents;
  }

  /** The content of an inline file or a symlink; a view of the image where it lies in one piece. */
  content(inode: ImageInode): Uint8Array {
    const pieces = this.extents(inode).map(({ offset, size }) => this.bytes.subarray(offset, offset + size));
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
  }

  /** All entries of a directory, "." and ".." too. Refuses names out of order, which no lookup would find. */
  entries(inode: ImageInode, extents = this.extents(inode)): ImageEntry[] {
    const entries: ImageEntry[] = [];
    for (const { offset, size } of extents) {
      for (let at = 0; at < size; at += L.BLOCK_SIZE) {
        this.#readDirents(offset + at, Math.min(L.BLOCK_SIZE, size - at), entries);
      }
    }
    return entries;
  }

  #readDirents(start: number, size: number, entries: ImageEntry[]): void {
    const end = start + size;
    const count = this.#nameOffset(start, end, 0) / L.dirent.size;
    for (let i = 0; i < count; i++) {
      const at = start + i * L.dirent.size;
      const { nid, fileType } = L.dirent.decode(this.view, at);
      const from = start + this.#nameOffset(start, end, i);
      const next = i + 1 < count ? start + this.#nameOffset(start, end, i + 1) : this.#lastNameEnd(from, end);
      const name = rawFromBytes(this.bytes.subarray(from, Math.max(from, next)));
      if (name.length < 1 || name.length > 255) refuseImage('dirent', at, `name of ${next - from} bytes`);
      if (/[\0/]/.test(name)) refuseImage('dirent', at, `name "${displayRaw(name)}" has a slash or NUL`);
      const before = entries.at(-1)?.name;
      if (before !== undefined && before >= name) {
        refuseImage('dirent', at, `name "${displayRaw(name)}" is not after "${displayRaw(before)}"`);
      }
      if (nid * BigInt(L.SLOT_SIZE) >= BigInt(this.bytes.length))
        refuseImage('dirent', at, `nid ${nid} is beyond the end`);
      entries.push({ name, nid: Number(nid), fileType });
    }
  }

  /** The checked name offset of the dirent with this index; the first also tells how many there are. */
  #nameOffset(start: number, end: number, index: number): number {
    const at = start + index * L.dirent.size;
    const { nameOffset } = L.dirent.decode(this.view, at);
    const misplaced = index === 0 ? nameOffset === 0 || nameOffset % L.dirent.size !== 0 : false;
    if (misplaced || start + nameOffset >= end) refuseImage('dirent', at, `name offset ${nameOffset}`);
    return nameOffset;
  }

  #lastNameEnd(from: number, end: number): number {
    const nul = this.bytes.subarray(from, end).indexOf(0);
    return nul < 0 ? end : from + nul;
  }

  #sharedXattr(referenceAt: number): ImageXattr {
    const reference = this.view.getUint32(referenceAt, true);
    const at = this.superblock.xattrBlock * L.BLOCK_SIZE + 4 * reference;
    let xattr = this.#sharedXattrs.get(at);
    if (xattr === undefined) {
      if (at >= this.bytes.length) refuseImage('shared xattr reference', referenceAt, `${reference} is beyond the end`);
      xattr = this.#xattr(at, this.bytes.length, true).xattr;
      this.#sharedXattrs.set(at, xattr);
    }
    return xattr;
  }

  #xattr(at: number, limit: number, shared: boolean): { readonly xattr: ImageXattr; readonly end: number } {
    const { nameSize, nameIndex, valueSize } = L.xattrEntry.decode(this.view, at);
    const valueAt = at + L.xattrEntry.size + nameSize;
    const end = at + roundUp(L.xattrEntry.size + nameSize + valueSize, 4);
    if (end > limit) refuseImage('xattr entry', at, `${nameSize} + ${valueSize} bytes run past offset ${limit}`);
    const name = joinXattrName(nameIndex, rawFromBytes(this.bytes.subarray(at + L.xattrEntry.size, valueAt)));
    if (name === undefined) refuseImage('xattr entry', at, `name index ${nameIndex}`);
    if (name === '' || name.includes('\0')) refuseImage('xattr entry', at, `name "${displayRaw(name as RawName)}"`);
    const value = this.bytes.subarray(valueAt, valueAt + valueSize);
    return { xattr: { name: name as RawName, value, shared }, end };
  }

  #u16(offset: number, what: string): number {
    if (offset + 2 > this.bytes.length) refuseImage(what, offset, `beyond the end at ${this.bytes.length}`);
    return this.view.getUint16(offset, true);
  }

  /** No byte belongs to two inodes, so all they claim together fits into the image. */
  #claim(what: string, offset: number, size: number): void {
    if (offset + size > this.bytes.length) {
      refuseImage(what, offset, `${size} bytes run past the end at ${this.bytes.length}`);
    }
    this.#claimed += size;
    if (this.#claimed > this.bytes.length)
      refuseImage(what, offset, 'inodes overlap: they claim more than the image has');
  }
}

/** Files have two or three xattrs, and a set takes longer to make than these to compare. */
function hasNameTwice(xattrs: readonly ImageXattr[]): boolean {
  if (xattrs.length > 8) return new Set(xattrs.map(({ name }) => name)).size !== xattrs.length;
  for (let i = 1; i < xattrs.length; i++) {
    for (let j = 0; j < i; j++) if (xattrs[i]!.name === xattrs[j]!.name) return true;
  }
  return false;
}

function checkHeader({ magic, headerVersion, composefsVersion }: Decoded<typeof L.composefsHeader>): void {
  if (magic !== L.COMPOSEFS_MAGIC) refuseImage('composefs header', 0, `magic 0x${magic.toString(16)}`);
  if (headerVersion !== 1) unsupported(`header version ${headerVersion}`);
  if (composefsVersion > 2) unsupported(`composefs version ${composefsVersion}`);
}

function checkSuperblock(superblock: Decoded<typeof L.superblock>, sizeBytes: number): void {
  const { magic, blockSizeBits, dirBlockBits, featureIncompat, blockCount, buildTimeNsec } = superblock;
  const refuse = (problem: string): never => refuseImage('superblock', L.SUPERBLOCK_OFFSET, problem);
  if (magic !== L.EROFS_MAGIC) refuse(`magic 0x${magic.toString(16)}`);
  if (2 ** (blockSizeBits + dirBlockBits) !== L.BLOCK_SIZE || dirBlockBits !== 0) unsupported('another block size');
  if (featureIncompat !== 0) unsupported(`EROFS features 0x${featureIncompat.toString(16)}`);
  if (blockCount * L.BLOCK_SIZE !== sizeBytes) refuse(`${blockCount} blocks in a file of ${sizeBytes} bytes`);
  if (buildTimeNsec > 999_999_999) refuse(`build time has ${buildTimeNsec} nanoseconds`);
}

function unsupported(what: string): never {
  throw new HostctlError('image-unsupported', `Cannot read the image: it has ${what}`);
}
