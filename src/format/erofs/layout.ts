/**
 * The fixed-size records of a composefs image and the numbers that go with them, as in the kernel's `erofs_fs.h` and,
 * for the first 32 bytes, libcomposefs. Fields that composefs leaves zero in every image are reserved here.
 */

import { asHex, asOctal, i64, record, u16, u32, u64, u8, zero } from '../bytes/record.ts';

export const BLOCK_SIZE = 4096;
/** Inodes start on multiples of this; a nid counts in it. */
export const SLOT_SIZE = 32;
export const SUPERBLOCK_OFFSET = 1024;
/** Where the first inode may start. */
export const INODES_START = 1152;

export const COMPOSEFS_MAGIC = 0xd078629a;
export const COMPOSEFS_FLAG_HAS_ACL = 1;
export const EROFS_MAGIC = 0xe0f5e1e2;
export const FEATURE_COMPAT_MTIME = 2;
export const FEATURE_COMPAT_XATTR_FILTER = 4;

/** Data layouts, bits 1…3 of an inode's format. */
export const LAYOUT_PLAIN = 0;
export const LAYOUT_INLINE = 2;
export const LAYOUT_CHUNKED = 4;

/** A chunk or block address that means "no data". */
export const HOLE = 0xffffffff;
/** Chunk sizes are 2^12…2^43 bytes. */
export const MAX_CHUNK_BITS = 43;
/** More shared xattr references than this per inode are written inline. */
export const MAX_SHARED_REFERENCES = 128;
/** A directory or content tail above this becomes a block of its own. */
export const MAX_TAIL = 2048;

/** Composefs header, at the start of the file. */
export const composefsHeader = record('composefs header', {
  magic: asHex(u32),
  headerVersion: u32,
  flags: asHex(u32),
  composefsVersion: u32,
  reserved: zero(16),
});

/** EROFS superblock; `erofs_super_block`. */
export const superblock = record('superblock', {
  magic: asHex(u32),
  checksum: zero(4),
  featureCompat: asHex(u32),
  blockSizeBits: u8,
  extensionSlots: zero(1),
  rootNid: u16,
  inodeCount: u64,
  buildTimeSec: i64,
  buildTimeNsec: u32,
  blockCount: u32,
  metaBlock: u32,
  xattrBlock: u32,
  uuid: zero(16),
  volumeName: zero(16),
  featureIncompat: asHex(u32),
  compression: zero(2),
  extraDevices: zero(2),
  deviceSlots: zero(2),
  dirBlockBits: u8,
  xattrPrefixCount: zero(1),
  xattrPrefixStart: zero(4),
  packedNid: zero(8),
  xattrFilterReserved: zero(1),
  reserved: zero(23),
});

/** Inode without mtime of its own; `erofs_inode_compact`. `data` is the block address, chunk format or rdev. */
export const compactInode = record('compact inode', {
  format: u16,
  xattrCount: u16,
  mode: asOctal(u16),
  nlink: u16,
  size: u32,
  reserved: zero(4),
  data: u32,
  ino: u32,
  uid: u16,
  gid: u16,
  reserved2: zero(4),
});

/** Full inode; `erofs_inode_extended`. `data` as in the compact form. */
export const extendedInode = record('extended inode', {
  format: u16,
  xattrCount: u16,
  mode: asOctal(u16),
  reserved: zero(2),
  size: u64,
  data: u32,
  ino: u32,
  uid: u32,
  gid: u32,
  mtimeSec: i64,
  mtimeNsec: u32,
  nlink: u32,
  reserved2: zero(16),
});

/** Directory entry; `erofs_dirent`. */
export const dirent = record('dirent', {
  nid: u64,
  nameOffset: u16,
  fileType: u8,
  reserved: zero(1),
});

/** Head of an inode's xattr area; `erofs_xattr_ibody_header`. */
export const xattrHeader = record('xattr header', {
  nameFilter: asHex(u32),
  sharedCount: u8,
  reserved: zero(7),
});

/** Head of one xattr, inline or shared; `erofs_xattr_entry`. Name suffix and value follow. */
export const xattrEntry = record('xattr entry', {
  nameSize: u8,
  nameIndex: u8,
  valueSize: u16,
});
