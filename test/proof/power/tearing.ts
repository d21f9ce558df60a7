/**
 * Where a power cut may tear a write: at 512 bytes, except in what a file system itself needs written whole. These
 * exceptions are the file systems' own; no program on top can work around them, so a state that breaks them accuses
 * nobody.
 */

import type { FileSystem } from '../lib/disks.ts';

/** Smallest piece of a write that is there or not. */
const SECTOR = 512;
/** Block of every file system under proof, and what is written whole where one needs that. */
export const BLOCK = 4096;

/** Superblocks that are rewritten in place and that nothing mends. */
const SUPERBLOCKS: Readonly<Partial<Record<FileSystem, readonly number[]>>> = {
  ext4: [0],
  btrfs: [64 * 2 ** 10, 64 * 2 ** 20],
};

/**
 * First bytes of the metadata blocks of XFS (version 5) that are larger than a sector: B+tree blocks, directory blocks,
 * remote attributes and symlinks. Its headers of an allocation group and its inodes each fit in one sector.
 */
const XFS_BLOCKS = new Set([
  'AB3B',
  'AB3C',
  'IAB3',
  'FIB3',
  'RMB3',
  'R3FC',
  'BMA3',
  'XDB3',
  'XDD3',
  'XDF3',
  'XARM',
  'XSLM',
]);
/** The same of directory and attribute nodes and leaves, at their ninth byte. */
const XFS_NODES = new Set([0x3ebe, 0x3df1, 0x3dff, 0x3bee]);

/**
 * Bytes of a write that a cut keeps or loses together.
 *
 * @param offset on the disk
 * @param data what is written there and behind
 */
export function tearUnit(type: FileSystem, offset: number, data: Buffer): number {
  if (type === 'xfs') return offset % BLOCK === 0 && isXfsBlock(data) ? BLOCK : SECTOR;
  const block = offset - (offset % BLOCK);
  return SUPERBLOCKS[type]?.includes(block) ? BLOCK : SECTOR;
}

/**
 * XFS' log recovery leaves a block alone whose header has the change's sequence number already, so it does not mend one
 * that was torn behind its header: the next read finds a wrong checksum. The log itself, inodes and file data are torn
 * at sectors like everything else.
 */
function isXfsBlock(data: Buffer): boolean {
  if (data.length < 10) return false;
  return XFS_BLOCKS.has(data.toString('latin1', 0, 4)) || XFS_NODES.has(data.readUInt16BE(8));
}
