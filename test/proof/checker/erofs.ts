/**
 * A minimal EROFS walker for composefs images: names, types, small contents, and the object each larger file refers
 * to. Written from the kernel's documentation of EROFS; anything it does not expect is `Damage`.
 */

import { Damage } from './files.ts';

export interface ImageEntry {
  readonly path: string;
  readonly type: 'file' | 'directory' | 'symlink' | 'other';
  readonly size: number;
  /** Content held in the image; a symlink's target. */
  readonly content?: Buffer;
  /** Path below `objects/`, and the digest the image pins for it. */
  readonly object?: { readonly path: string; readonly digest: string };
}

interface Inode {
  readonly mode: number;
  readonly size: number;
  readonly layout: number;
  readonly union: number;
  /** Where what follows the inode and its xattrs begins. */
  readonly tail: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

const BLOCK = 4096;
const SUPERBLOCK = 1024;

/** The same image is asked for again and again while crash states are tried. */
const known = new WeakMap<Buffer, readonly ImageEntry[]>();

/** Every name in the image but the whiteouts of the object directories, root first. `image` must not change later. */
export function readImage(image: Buffer): readonly ImageEntry[] {
  const before = known.get(image);
  if (before) return before;
  try {
    const entries = walk(image);
    known.set(image, entries);
    return entries;
  } catch (error) {
    if (error instanceof RangeError) throw new Damage(`image: ${error.message}`, { cause: error });
    throw error;
  }
}

function walk(image: Buffer): ImageEntry[] {
  if (image.readUInt32LE(SUPERBLOCK) !== 0xe0f5e1e2) throw new Damage('image: no EROFS superblock');
  if (image.readUInt8(SUPERBLOCK + 12) !== 12) throw new Damage('image: block size');
  const rootNid = image.readUInt16LE(SUPERBLOCK + 14);
  const entries: ImageEntry[] = [];
  const directories = new Set<number>();
  const queue: { nid: number; path: string }[] = [{ nid: rootNid, path: '' }];
  for (let next = queue.pop(); next; next = queue.pop()) {
    const { nid, path } = next;
    const inode = readInode(image, nid);
    const type = typeOf(inode.mode);
    if (type === 'other' && inode.union === 0) continue;
    entries.push(describe(image, inode, path, type));
    if (type !== 'directory') continue;
    if (directories.has(nid)) throw new Damage(`image: directory /${path} has two parents`);
    directories.add(nid);
    for (const child of readDirents(dataOf(image, inode))) {
      if (child.name !== '.' && child.name !== '..') {
        queue.push({ nid: child.nid, path: path === '' ? child.name : `${path}/${child.name}` });
      }
    }
  }
  return entries;
}

function describe(image: Buffer, inode: Inode, path: string, type: ImageEntry['type']): ImageEntry {
  const entry = { path, type, size: inode.size };
  if (type === 'symlink') return { ...entry, content: dataOf(image, inode) };
  if (type !== 'file') return entry;
  if (inode.layout !== 4) return { ...entry, content: dataOf(image, inode) };
  const redirect = inode.xattrs.get('trusted.overlay.redirect')?.toString('latin1');
  const metacopy = inode.xattrs.get('trusted.overlay.metacopy');
  const length = metacopy?.length;
  if (redirect === undefined || !metacopy || (length !== 36 && length !== 68)) {
    throw new Damage(`image: /${path} has no verified content`);
  }
  return {
    ...entry,
    object: { path: redirect.replace(/^\/+/, ''), digest: metacopy.toString('hex', 4) },
  };
}

function typeOf(mode: number): ImageEntry['type'] {
  switch (mode & 0o170000) {
    case 0o100000:
      return 'file';
    case 0o040000:
      return 'directory';
    case 0o120000:
      return 'symlink';
    default:
      return 'other';
  }
}

function readInode(image: Buffer, nid: number): Inode {
  const offset = nid * 32;
  const format = image.readUInt16LE(offset);
  const extended = (format & 1) === 1;
  const count = image.readUInt16LE(offset + 2);
  const xattrStart = offset + (extended ? 64 : 32);
  const xattrBytes = count === 0 ? 0 : 12 + 4 * (count - 1);
  return {
    mode: image.readUInt16LE(offset + 4),
    size: extended ? Number(image.readBigUInt64LE(offset + 8)) : image.readUInt32LE(offset + 8),
    layout: (format >> 1) & 7,
    union: image.readUInt32LE(offset + 16),
    tail: xattrStart + xattrBytes,
    xattrs: count === 0 ? new Map() : readXattrs(image, xattrStart, xattrBytes),
  };
}

const PREFIXES = [
  '',
  'user.',
  'system.posix_acl_access',
  'system.posix_acl_default',
  'trusted.',
  'lustre.',
  'security.',
];

function readXattrs(image: Buffer, start: number, length: number): Map<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  const readEntry = (at: number): number => {
    const nameLength = image.readUInt8(at);
    const prefix = PREFIXES[image.readUInt8(at + 1)];
    const valueLength = image.readUInt16LE(at + 2);
    if (prefix === undefined) throw new Damage(`image: xattr prefix at ${at}`);
    const value = at + 4 + nameLength;
    if (value + valueLength > image.length) throw new Damage(`image: xattr at ${at} runs past the end`);
    xattrs.set(prefix + image.toString('latin1', at + 4, value), image.subarray(value, value + valueLength));
    return (value + valueLength + 3) & ~3;
  };
  const shared = image.readUInt8(start + 4);
  const table = image.readUInt32LE(SUPERBLOCK + 44) * BLOCK;
  for (let i = 0; i < shared; i += 1) readEntry(table + image.readUInt32LE(start + 12 + 4 * i) * 4);
  for (let at = start + 12 + 4 * shared; at < start + length;) at = readEntry(at);
  return xattrs;
}

/** The bytes of an inode that keeps them in the image. */
function dataOf(image: Buffer, inode: Inode): Buffer {
  const { size, layout, union, tail } = inode;
  if (size > image.length) throw new Damage(`image: inode of ${size} bytes`);
  if (layout !== 0 && layout !== 2) throw new Damage(`image: data layout ${layout}`);
  const inline = layout === 2 ? size % BLOCK || (size === 0 ? 0 : BLOCK) : 0;
  const inBlocks = size - inline;
  if (union * BLOCK + inBlocks > image.length || tail + inline > image.length) {
    throw new Damage('image: data past the end');
  }
  return Buffer.concat([image.subarray(union * BLOCK, union * BLOCK + inBlocks), image.subarray(tail, tail + inline)]);
}

function readDirents(data: Buffer): { nid: number; name: string }[] {
  const found: { nid: number; name: string }[] = [];
  for (let offset = 0; offset < data.length; offset += BLOCK) {
    const block = data.subarray(offset, offset + BLOCK);
    const names = block.readUInt16LE(8);
    const count = names / 12;
    for (let i = 0; i < count; i += 1) {
      const from = block.readUInt16LE(12 * i + 8);
      const to = i + 1 < count ? block.readUInt16LE(12 * (i + 1) + 8) : block.length;
      const name = block.toString('latin1', from, to).replace(/\0.*$/s, '');
      if (name === '' || name.includes('/')) throw new Damage('image: bad name');
      found.push({ nid: Number(block.readBigUInt64LE(12 * i)), name });
    }
  }
  return found;
}
