/** Sections of PE files, in pieces of any size, and files that are none. */

import { describe, expect, test } from 'vitest';
import { peSectionPieces, readPeSections } from '../../src/format/pe.ts';
import { peFile } from '../helpers/pe-builder.ts';

const uki = peFile([
  { name: '.linux', content: Buffer.alloc(200_000, 'kernel') },
  { name: '.cmdline', content: 'root=x composefs=?y\0\0\0' },
  { name: '.initrd', content: Buffer.alloc(70_000, 'initrd') },
  { name: '.cmdline', content: 'of a second profile', virtualSize: 11 },
]);

/** The file in pieces that are lent for one step each. */
function* lent(file: Uint8Array, pieceBytes: number): Generator<Uint8Array> {
  const buffer = Buffer.alloc(pieceBytes);
  for (let at = 0; at < file.length; at += pieceBytes) {
    const piece = file.subarray(at, at + pieceBytes);
    buffer.set(piece);
    yield buffer.subarray(0, piece.length);
  }
}

function sections(file: Uint8Array, name: string, pieceBytes = Math.max(file.length, 1)): string[] {
  return readPeSections(lent(file, pieceBytes), name).map((bytes) => Buffer.from(bytes).toString());
}

function streamed(file: Uint8Array, name: string, pieceBytes = Math.max(file.length, 1)): string {
  return Buffer.concat(copies(peSectionPieces(lent(file, pieceBytes), name))).toString();
}

function copies(pieces: Iterable<Uint8Array>): Buffer[] {
  const copied: Buffer[] = [];
  for (const piece of pieces) copied.push(Buffer.from(piece));
  return copied;
}

describe('sections of a PE file', () => {
  test.each([uki.length, 100_000, 4096, 511])('are found in pieces of %i bytes', (pieceBytes) => {
    expect(sections(uki, '.cmdline', pieceBytes)).toEqual(['root=x composefs=?y\0\0\0', 'of a second']);
    expect(sections(uki, '.osrel', pieceBytes)).toEqual([]);
    expect(streamed(uki, '.initrd', pieceBytes)).toBe('initrd'.repeat(12_000).slice(0, 70_000));
    expect(streamed(uki, '.cmdline', pieceBytes)).toBe('root=x composefs=?y\0\0\0');
    expect(() => streamed(uki, '.osrel', pieceBytes)).toThrow(/^PE file has no section ".osrel"$/);
  });

  test('are not read beyond the end of the one that is wanted', () => {
    function* cut(): Generator<Uint8Array> {
      yield uki.subarray(0, 250_000);
      throw new Error('read on');
    }
    expect(Buffer.concat(copies(peSectionPieces(cut(), '.cmdline'))).toString()).toBe('root=x composefs=?y\0\0\0');
  });

  const flipped = (at: number, value: number): Buffer => {
    const copy = Buffer.from(uki);
    copy.writeUInt32LE(value, at);
    return copy;
  };
  test.each<readonly [string, Uint8Array, RegExp]>([
    ['an empty file', Buffer.alloc(0), /^File is no PE file$/],
    ['text', Buffer.from('MZ and nothing more'.padEnd(200)), /^File is no PE file$/],
    ['a header beyond the file', flipped(60, 0xffffffff), /^File is no PE file$/],
    ['a file cut in the table', uki.subarray(0, 300), /section table of 4 entries that cannot be read/],
    ['a file cut in a section', uki.subarray(0, -1024), /ends inside its section/],
    ['a section beyond the file', flipped(128 + 24 + 112 + 40 + 20, 0xfffffff0), /ends inside its section/],
    ['a table of 65,535', flipped(128 + 6, 0xffff), /section table of 65535 entries/],
    ['a command line over 64 KiB', peFile([{ name: '.cmdline', content: 'x'.repeat(65_537) }]), /has 65537 bytes/],
  ])('%s is refused', (_title, file, message) => {
    expect(() => sections(file, '.cmdline')).toThrow(message);
    expect(() => sections(file, '.cmdline', 1000)).toThrow(message);
  });

  test.each<readonly [string, Uint8Array, RegExp]>([
    ['an empty file', Buffer.alloc(0), /^File is no PE file$/],
    ['text', Buffer.from('MZ and nothing more'.padEnd(200)), /^File is no PE file$/],
    ['a file cut in it', uki.subarray(0, 210_000), /^PE file ends inside its section ".initrd"$/],
  ])('%s is refused in pieces too', (_title, file, message) => {
    expect(() => streamed(file, '.initrd', 1000)).toThrow(message);
  });
});
