/**
 * Annotated dump of a composefs image: every byte range in file order with the record it holds and the value of each
 * field. For people who compare two images, and the golden file of the format; bytes that belong to nothing are shown.
 */

import { displayRaw, rawFromBytes, type RawName } from '../../tree/name.ts';
import { roundUp } from '../bytes/align.ts';
import type { FieldText, RecordType } from '../bytes/record.ts';
import { ErofsImage, type Extent, type ImageInode } from './image.ts';
import * as L from './layout.ts';
import { overlayDataOf } from './overlay-data.ts';
import { chunksOf } from './plan.ts';

/** A range of the file and what is known about it. */
interface Range {
  readonly offset: number;
  readonly size: number;
  readonly title: string;
  readonly fields: readonly FieldText[];
}

/** The dump, line by line without line feeds. Throws as `readComposefsImage` does. */
export function* inspectImage(bytes: Uint8Array): Generator<string, void> {
  const ranges = new Inspection(new ErofsImage(bytes)).run();
  ranges.sort((a, b) => a.offset - b.offset);
  let end = 0;
  for (const range of ranges) {
    yield* gapLines(bytes, end, range.offset);
    yield* rangeLines(range);
    end = Math.max(end, range.offset + range.size);
  }
  yield* gapLines(bytes, end, bytes.length);
}

function* rangeLines({ offset, size, title, fields }: Range): Generator<string, void> {
  yield `${hex(offset)} ${title} (${size} bytes)`;
  for (const field of fields) yield `  ${hex(offset + field.offset)} ${field.name.padEnd(18)} ${field.text}`;
}

/** What lies between records: padding, and chunk tables that were moved to the data area, to which nothing refers. */
function* gapLines(bytes: Uint8Array, from: number, to: number): Generator<string, void> {
  let start = from;
  while (start < to) {
    const meaning = meaningOf(bytes, start, to);
    let end = blockEnd(start, to);
    // A table is one block; padding and what has no meaning go on as long as they stay the same.
    while (meaning !== 'moved chunk table' && end < to && meaningOf(bytes, end, to) === meaning)
      end = blockEnd(end, to);
    const piece = bytes.subarray(start, end);
    const content = meaning === 'unclaimed' ? ` ${shorten(rawFromBytes(piece))}` : '';
    yield `${hex(start)} ${meaning} (${piece.length} bytes)${content}`;
    start = end;
  }
}

/** The end of the block that `offset` lies in, at most `limit`. */
function blockEnd(offset: number, limit: number): number {
  return Math.min(limit, (Math.floor(offset / L.BLOCK_SIZE) + 1) * L.BLOCK_SIZE);
}

function meaningOf(bytes: Uint8Array, offset: number, limit: number): 'zero' | 'moved chunk table' | 'unclaimed' {
  const piece = bytes.subarray(offset, blockEnd(offset, limit));
  if (piece.every((byte) => byte === 0)) return 'zero';
  return piece.length === L.BLOCK_SIZE && piece.every((byte) => byte === 0xff) ? 'moved chunk table' : 'unclaimed';
}

function hex(offset: number): string {
  return offset.toString(16).padStart(8, '0');
}

/** Content in one line. */
function shorten(content: RawName): string {
  const shown = displayRaw(content.slice(0, 64) as RawName);
  return content.length > 64 ? `"${shown}"…` : `"${shown}"`;
}

class Inspection {
  readonly #image: ErofsImage;
  readonly #ranges: Range[] = [];
  readonly #sharedOffsets = new Set<number>();

  constructor(image: ErofsImage) {
    this.#image = image;
  }

  run(): Range[] {
    this.#record(L.composefsHeader, 0, 'composefs header');
    this.#record(L.superblock, L.SUPERBLOCK_OFFSET, 'superblock');
    const { rootNid } = this.#image;
    const seen = new Set([rootNid]);
    const stack = [{ nid: rootNid, path: '/' }];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      const inode = this.#image.inode(top.nid);
      const type = inode.extended ? L.extendedInode : L.compactInode;
      this.#record(type, inode.offset, `${type.name} nid ${top.nid}, ${inode.kind} ${displayRaw(top.path as RawName)}`);
      this.#xattrs(inode);
      if (inode.kind === 'directory') {
        for (const { name, nid } of this.#directory(inode)) {
          if (seen.has(nid)) continue;
          seen.add(nid);
          stack.push({ nid, path: top.path === '/' ? `/${name}` : `${top.path}/${name}` });
        }
      } else if (inode.kind === 'symlink' || inode.kind === 'file') this.#content(inode);
    }
    return this.#ranges;
  }

  #record(type: Pick<RecordType<unknown>, 'size' | 'describe'>, offset: number, title: string): void {
    this.#add(offset, type.size, title, type.describe(this.#image.view, offset));
  }

  #add(offset: number, size: number, title: string, fields: readonly FieldText[] = []): void {
    this.#ranges.push({ offset, size, title, fields });
  }

  #xattrs(inode: ImageInode): void {
    if (inode.xattrSize === 0) return;
    this.#image.xattrs(inode); // refuses what the plain walk below would stumble over
    this.#record(L.xattrHeader, inode.xattrOffset, L.xattrHeader.name);
    const { sharedCount } = L.xattrHeader.decode(this.#image.view, inode.xattrOffset);
    let at = inode.xattrOffset + L.xattrHeader.size;
    for (let i = 0; i < sharedCount; i++, at += 4) {
      const target = this.#image.superblock.xattrBlock * L.BLOCK_SIZE + 4 * this.#image.view.getUint32(at, true);
      this.#add(at, 4, `shared xattr reference to ${hex(target)}`);
      if (!this.#sharedOffsets.has(target)) this.#xattr(target, 'shared xattr');
      this.#sharedOffsets.add(target);
    }
    while (at < inode.tailOffset) at = this.#xattr(at, 'inline xattr');
  }

  #xattr(at: number, title: string): number {
    const { nameSize, valueSize } = L.xattrEntry.decode(this.#image.view, at);
    const size = roundUp(L.xattrEntry.size + nameSize + valueSize, 4);
    const text = (offset: number, length: number): string =>
      shorten(rawFromBytes(this.#image.bytes.subarray(at + offset, at + offset + length)));
    const valueOffset = L.xattrEntry.size + nameSize;
    this.#add(at, size, title, [
      ...L.xattrEntry.describe(this.#image.view, at),
      { name: 'suffix', offset: L.xattrEntry.size, size: nameSize, text: text(L.xattrEntry.size, nameSize) },
      { name: 'value', offset: valueOffset, size: valueSize, text: text(valueOffset, valueSize) },
    ]);
    return at + size;
  }

  /** Describes the entries and returns them. */
  #directory(inode: ImageInode): { readonly name: RawName; readonly nid: number }[] {
    const extents = this.#image.extents(inode);
    const entries = this.#image.entries(inode, extents);
    let index = 0;
    for (const { offset, size } of extents.flatMap(directoryPieces)) {
      const count = L.dirent.decode(this.#image.view, offset).nameOffset / L.dirent.size;
      const fields: FieldText[] = [];
      for (let i = 0; i < count; i++, index++) {
        const { nid, nameOffset, fileType } = L.dirent.decode(this.#image.view, offset + i * L.dirent.size);
        const text = `nid ${nid} name offset ${nameOffset} file type ${fileType} ${shorten(entries[index]!.name)}`;
        fields.push({ name: L.dirent.name, offset: i * L.dirent.size, size: L.dirent.size, text });
      }
      this.#add(offset, size, `entries of nid ${inode.nid}`, fields);
    }
    return entries;
  }

  #content(inode: ImageInode): void {
    if (inode.layout === L.LAYOUT_CHUNKED) return this.#chunkTable(inode);
    for (const { offset, size } of this.#image.extents(inode)) {
      const content = rawFromBytes(this.#image.bytes.subarray(offset, offset + size));
      this.#add(offset, size, `content of nid ${inode.nid}: ${shorten(content)}`);
    }
  }

  /** A table never crosses a block: one that would has been moved to the data area, where nothing refers to it. */
  #chunkTable(inode: ImageInode): void {
    const { nid, size, tailOffset } = inode;
    const isVersion2 = this.#image.header.composefsVersion === 2;
    const hasDigest = overlayDataOf(inode, this.#image.xattrs(inode))?.digest !== undefined;
    const { bits, count } = isVersion2 ? { bits: L.MAX_CHUNK_BITS, count: Number(hasDigest) } : chunksOf(size);
    const end = tailOffset + 4 * count;
    const moved = Math.floor(tailOffset / L.BLOCK_SIZE) !== Math.floor((end - 1) / L.BLOCK_SIZE);
    if (!moved && end <= this.#image.bytes.length) {
      this.#add(tailOffset, 4 * count, `chunk table of nid ${nid}: ${count} of 2^${bits} bytes`);
    }
  }
}

/** The blocks of an extent one by one; the last may be shorter. */
function directoryPieces({ offset, size }: Extent): Extent[] {
  const count = Math.ceil(size / L.BLOCK_SIZE);
  return Array.from({ length: count }, (_, block) => ({
    offset: offset + block * L.BLOCK_SIZE,
    size: Math.min(L.BLOCK_SIZE, size - block * L.BLOCK_SIZE),
  }));
}
