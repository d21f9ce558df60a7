/** Sections of PE files, in pieces of any size, and files that are none. */

import { describe, expect, test } from 'vitest';
import { readPeSections } from '../../src/format/pe.ts';
import { peFile } from '../helpers/pe-builder.ts';

const uki = peFile([
  { name: '.linux', content: Buffer.alloc(200_000, 'kernel') },
  { name: '.cmdline', content: 'root=x composefs=?y\0\0\0' },
  { name: '.initrd', content: Buffer.alloc(70_000, 'initrd') },
  { name: '.cmdline', content: 'of a second profile', virtualSize: 11 },
]);

function sections(file: Uint8Array, name: string, pieceBytes = file.length): string[] {
  const pieces = Array.from({ length: Math.ceil(file.length / pieceBytes) }, (_, i) =>
    file.subarray(i * pieceBytes, (i + 1) * pieceBytes),
  );
  return readPeSections(pieces, name).map((bytes) => Buffer.from(bytes).toString());
}

describe('sections of a PE file', () => {
  test.each([uki.length, 100_000, 4096, 511])('are found in pieces of %i bytes', (pieceBytes) => {
    expect(sections(uki, '.cmdline', pieceBytes)).toEqual(['root=x composefs=?y\0\0\0', 'of a second']);
    expect(sections(uki, '.osrel', pieceBytes)).toEqual([]);
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
});
