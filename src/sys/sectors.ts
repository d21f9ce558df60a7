/** Reading and writing a disk by its sectors, for what lies on it outside of any file system. */

import * as fs from 'node:fs';
import { writeAll } from './files.ts';

export const SECTOR_BYTES = 512;

export function readSectors(disk: string, first: number, count: number): Uint8Array {
  const bytes = Buffer.alloc(count * SECTOR_BYTES);
  const fd = fs.openSync(disk, 'r');
  try {
    fs.readSync(fd, bytes, 0, bytes.length, first * SECTOR_BYTES);
  } finally {
    fs.closeSync(fd);
  }
  return bytes;
}

/** Durable when it returns. */
export function writeSectors(disk: string, first: number, bytes: Uint8Array): void {
  const fd = fs.openSync(disk, 'r+');
  try {
    writeAll(fd, bytes, first * SECTOR_BYTES);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
