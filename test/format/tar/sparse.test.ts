/** Sparse files: all four forms come out expanded, and maps that lie are refused. */

import { describe, expect, test } from 'vitest';
import { base256, paxHeader, tar, tarFile, type PaxRecords } from '../../helpers/tar-builder.ts';
import { collectTar } from '../../helpers/tar-collect.ts';

type Pair = readonly [offset: number, length: number];

/** Octal as far as it reaches, else base-256. */
const field = (value: number): string =>
  value < 8 ** 11 ? `${value.toString(8).padStart(11, '0')}\0` : base256(BigInt(value), 12).toString('latin1');
const pairs = (list: readonly Pair[]): string => list.map(([offset, length]) => field(offset) + field(length)).join('');
const packedSize = (map: readonly Pair[]): number => map.reduce((sum, [, length]) => sum + length, 0);

/** The data of segments: each byte says which segment it is of. */
function packed(map: readonly Pair[]): string {
  return map.map(([, length], i) => String.fromCharCode(97 + (i % 26)).repeat(length)).join('');
}

function expanded(map: readonly Pair[], realSize: number): string {
  const bytes = Buffer.alloc(realSize);
  for (const [i, [offset, length]] of map.entries()) bytes.fill(97 + (i % 26), offset, offset + length);
  return bytes.toString('latin1');
}

/** Old GNU: the map in the header and in blocks behind it, before the data. */
function oldGnu(map: readonly Pair[], realSize: number, content = packed(map)): Buffer {
  const extensions: Buffer[] = [];
  for (let at = 4; at < map.length; at += 21) {
    const block = Buffer.alloc(512);
    block.write(pairs(map.slice(at, at + 21)), 'latin1');
    if (at + 21 < map.length) block[504] = 1;
    extensions.push(block);
  }
  const head = tarFile('f', '', {
    type: 'S',
    format: 'gnu',
    size: content.length,
    at: [
      [386, pairs(map.slice(0, 4))],
      [482, map.length > 4 ? '\x01' : '\0'],
      [483, field(realSize)],
    ],
  });
  const data = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  data.write(content, 'latin1');
  return tar([head, ...extensions, data, tarFile('next')]);
}

function pax(records: PaxRecords, content: string): Buffer {
  return tar([paxHeader(records), tarFile('GNUSparseFile.1/f', content), tarFile('next')]);
}

function form00(map: readonly Pair[], realSize: number): Buffer {
  const numbers = map.flatMap(([offset, length]) => [['GNU.sparse.offset', `${offset}`], ['GNU.sparse.numbytes', `${length}`]] as const); // prettier-ignore
  const counts = [['GNU.sparse.size', `${realSize}`], ['GNU.sparse.numblocks', `${map.length}`]] as const; // prettier-ignore
  return pax([['path', 'f'], ...counts, ...numbers], packed(map));
}

function form01(map: readonly Pair[], realSize: number): Buffer {
  const records = { 'GNU.sparse.size': `${realSize}`, 'GNU.sparse.name': 'f', 'GNU.sparse.map': map.flat().join(',') };
  return pax(records, packed(map));
}

function form10(map: readonly Pair[], realSize: number, text = `${[map.length, ...map.flat()].join('\n')}\n`): Buffer {
  const block = Buffer.alloc(Math.ceil(text.length / 512) * 512);
  block.write(text);
  const records = {
    'GNU.sparse.major': '1',
    'GNU.sparse.minor': '0',
    'GNU.sparse.name': 'f',
    'GNU.sparse.realsize': `${realSize}`,
  };
  return pax(records, block.toString('latin1') + packed(map));
}

const forms = { 'old GNU': oldGnu, '0.0': form00, '0.1': form01, '1.0': form10 };
const many = Array.from({ length: 60 }, (_, i): Pair => [i * 1000, 10]);
const maps: readonly (readonly [title: string, map: readonly Pair[], realSize: number])[] = [
  ['data at both ends', [[0, 5], [995, 5]], 1000], // prettier-ignore
  ['a hole at both ends', [[512, 700]], 100_000], // prettier-ignore
  ['a last segment of no bytes, as GNU tar ends a map', [[3, 4], [200_000, 0]], 200_000], // prettier-ignore
  ['nothing but a hole', [[100, 0]], 100], // prettier-ignore
  ['more segments than a header holds', many, 60_000],
];

describe.each(Object.entries(forms))('sparse form %s', (_name, build) => {
  test.each(maps)('expands %s', (_title, map, realSize) => {
    const { entries } = collectTar(build(map, realSize), 777);
    expect(entries.map(({ name, size, holeBytes, content }) => ({ name, size, holeBytes, content }))).toEqual([
      { name: 'f', size: realSize, holeBytes: realSize - packedSize(map), content: expanded(map, realSize) },
      { name: 'next', size: 0, holeBytes: 0, content: '' },
    ]);
  });

  test.each<readonly [string, readonly Pair[], number, RegExp]>([
    ['overlap', [[0, 10], [5, 10]], 100, /segment 1 overlaps/], // prettier-ignore
    ['go back', [[50, 10], [0, 10]], 100, /segment 1 overlaps/], // prettier-ignore
    ['end behind the file', [[0, 10], [95, 10]], 100, /segment 1 ends behind/], // prettier-ignore
    ['make the file too large', [[0, 1]], 2 ** 36 + 1, /at most 68719476736/],
  ])('refuses segments that %s', (_title, map, realSize, message) => {
    expect(() => collectTar(build(map, realSize))).toThrow(message);
  });
});

describe('sparse maps', () => {
  const count = 10_001;
  const tooMany = Array.from({ length: count }, (_, i): Pair => [i, 0]);
  const records = { 'GNU.sparse.size': '10', 'GNU.sparse.map': '0,1' };
  test.each<readonly [string, Buffer, RegExp]>([
    ['of too many segments in old GNU form', oldGnu(tooMany, count), /at most 10000/],
    ['of too many segments in form 0.0', form00(tooMany, count), /at most 10000/],
    ['of form 0.1 in more than 64 KiB', form01(tooMany, count), /has a value of 68897 bytes/],
    ['of too many segments in form 1.0', form10(tooMany, count), /10001 segments, at most 10000/],
    ['that say less than is stored', oldGnu([[0, 1]], 10, 'xx'), /hold 1 bytes, but 2 are stored/],
    ['that say more than is stored', oldGnu([[0, 3]], 10, 'xx'), /hold 3 bytes, but 2 are stored/],
    ['of form 1.0 that do not end', form10([], 10, '5\n1\n'), /not lines of numbers/],
    [
      'of form 1.0 that are longer than the data',
      form10([], 10, `3\n${'0\n'.repeat(2)}`.padEnd(512, '1')),
      /not lines of numbers|longer/,
    ],
    ['of form 1.0 with signs', form10([], 10, '1\n-1\n5\n'), /not lines of numbers/],
    ['of form 1.0 with an empty line', form10([], 10, '1\n\n5\n'), /not lines of numbers/],
    ['of form 1.0 with huge numbers', form10([], 10, `1\n${'9'.repeat(17)}\n5\n`), /not lines of numbers/],
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
    ['with numbers below zero', oldGnu([], 0).fill(base256(-1n, 12), 386, 398), /checksum/],
  ])('%s are refused', (_title, archive, message) => {
    expect(() => collectTar(archive)).toThrow(message);
  });
});
