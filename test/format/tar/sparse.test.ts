/** Sparse files: all four forms come out expanded, and maps that lie are refused. */

import { describe, expect, test } from 'vitest';
import { sparse10, sparseEntries, type SparseForm, type SparsePair } from '../../helpers/sparse-builder.ts';
import { base256, paxHeader, tar, tarFile, type PaxRecords } from '../../helpers/tar-builder.ts';
import { collectTar } from '../../helpers/tar-collect.ts';

function expanded(map: readonly SparsePair[], realSize: number): string {
  const bytes = Buffer.alloc(realSize);
  for (const [i, [offset, length]] of map.entries()) bytes.fill(97 + (i % 26), offset, offset + length);
  return bytes.toString('latin1');
}

const packedSize = (map: readonly SparsePair[]): number => map.reduce((sum, [, length]) => sum + length, 0);
const build = (form: SparseForm, map: readonly SparsePair[], realSize: number, content?: string): Buffer =>
  tar([...sparseEntries(form, 'f', map, realSize, content), tarFile('next')]);
const pax = (records: PaxRecords, content: string): Buffer => tar([paxHeader(records), tarFile('f', content)]);
const form10 = (text: string): Buffer => tar(sparse10('f', text, 10, ''));

const forms: readonly SparseForm[] = ['old GNU', '0.0', '0.1', '1.0'];
const many = Array.from({ length: 60 }, (_, i): SparsePair => [i * 1000, 10]);
const maps: readonly (readonly [title: string, map: readonly SparsePair[], realSize: number])[] = [
  ['data at both ends', [[0, 5], [995, 5]], 1000], // prettier-ignore
  ['a hole at both ends', [[512, 700]], 100_000], // prettier-ignore
  ['a last segment of no bytes, as GNU tar ends a map', [[3, 4], [200_000, 0]], 200_000], // prettier-ignore
  ['nothing but a hole', [[100, 0]], 100], // prettier-ignore
  ['more segments than a header holds', many, 60_000],
];

describe.each(forms)('sparse form %s', (form) => {
  test.each(maps)('expands %s', (_title, map, realSize) => {
    const { entries } = collectTar(build(form, map, realSize), 777);
    expect(entries.map(({ name, size, holeBytes, content }) => ({ name, size, holeBytes, content }))).toEqual([
      { name: 'f', size: realSize, holeBytes: realSize - packedSize(map), content: expanded(map, realSize) },
      { name: 'next', size: 0, holeBytes: 0, content: '' },
    ]);
  });

  test.each<readonly [string, readonly SparsePair[], number, RegExp]>([
    ['overlap', [[0, 10], [5, 10]], 100, /segment 1 overlaps/], // prettier-ignore
    ['go back', [[50, 10], [0, 10]], 100, /segment 1 overlaps/], // prettier-ignore
    ['end behind the file', [[0, 10], [95, 10]], 100, /segment 1 ends behind/], // prettier-ignore
    ['make the file too large', [[0, 1]], 2 ** 36 + 1, /at most 68719476736/],
  ])('refuses segments that %s', (_title, map, realSize, message) => {
    expect(() => collectTar(build(form, map, realSize))).toThrow(message);
  });
});

describe('sparse maps', () => {
  const count = 10_001;
  const tooMany = Array.from({ length: count }, (_, i): SparsePair => [i, 0]);
  const records = { 'GNU.sparse.size': '10', 'GNU.sparse.map': '0,1' };
  test.each<readonly [string, Buffer, RegExp]>([
    ['of too many segments in old GNU form', build('old GNU', tooMany, count), /at most 10000/],
    ['of too many segments in form 0.0', build('0.0', tooMany, count), /at most 10000/],
    ['of form 0.1 in more than 64 KiB', build('0.1', tooMany, count), /has a value of 68897 bytes/],
    ['of too many segments in form 1.0', build('1.0', tooMany, count), /10001 segments, at most 10000/],
    ['that say less than is stored', build('old GNU', [[0, 1]], 10, 'xx'), /hold 1 bytes, but 2 are stored/],
    ['that say more than is stored', build('old GNU', [[0, 3]], 10, 'xx'), /hold 3 bytes, but 2 are stored/],
    ['of form 1.0 that do not end', form10('5\n1\n'), /not lines of numbers/],
    [
      'of form 1.0 that are longer than the data',
      form10(`3\n${'0\n'.repeat(2)}`.padEnd(512, '1')),
      /not lines of numbers|longer/,
    ],
    ['of form 1.0 with signs', form10('1\n-1\n5\n'), /not lines of numbers/],
    ['of form 1.0 with an empty line', form10('1\n\n5\n'), /not lines of numbers/],
    ['of form 1.0 with huge numbers', form10(`1\n${'9'.repeat(17)}\n5\n`), /not lines of numbers/],
    ['without real size', pax({ 'GNU.sparse.map': '0,1' }, 'x'), /no real size/],
    ['of an odd count', pax({ ...records, 'GNU.sparse.map': '0,1,2' }, 'x'), /odd count/],
    [
      'with an offset alone',
      pax(
        [
          ['GNU.sparse.size', '9'],
          ['GNU.sparse.offset', '0'],
        ],
        'x',
      ),
      /offset without length/,
    ],
    [
      'with two offsets in turn',
      pax(
        [
          ['GNU.sparse.offset', '0'],
          ['GNU.sparse.offset', '0'],
        ],
        'x',
      ),
      /out of turn/,
    ],
    [
      'in two forms',
      pax([...Object.entries(records), ['GNU.sparse.offset', '0'], ['GNU.sparse.numbytes', '1']], 'x'),
      /exactly one map/,
    ],
    ['of no form', pax({ 'GNU.sparse.size': '10' }, 'x'), /exactly one map/],
    ['of an unknown form', pax({ ...records, 'GNU.sparse.major': '2' }, 'x'), /unknown form 2\.0/],
    ['with an unknown key', pax({ ...records, 'GNU.sparse.new': '2' }, 'x'), /no known sparse form/],
    ['whose count is another', pax({ ...records, 'GNU.sparse.numblocks': '2' }, 'x'), /1 segments instead of 2/],
    ['for a directory', tar([paxHeader(records), tarFile('d', '', { type: '5' })]), /sparse map to a directory/],
    ['for type S, twice', tar([paxHeader(records), tarFile('f', 'x', { type: 'S', format: 'gnu' })]), /second map/],
    ['for type S in ustar', tar([tarFile('f', '', { type: 'S' })]), /no GNU header/],
    ['with numbers below zero', build('old GNU', [], 0).fill(base256(-1n, 12), 386, 398), /checksum/],
  ])('%s are refused', (_title, archive, message) => {
    expect(() => collectTar(archive)).toThrow(message);
  });
});
