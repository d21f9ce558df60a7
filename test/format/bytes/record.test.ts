import { describe, expect, test } from 'vitest';

import { roundUp } from '../../../src/format/bytes/align.ts';
import {
  asHex,
  asOctal,
  fixedBytes,
  i64,
  record,
  u16,
  u32,
  u64,
  u8,
  viewOf,
  zero,
} from '../../../src/format/bytes/record.ts';

const sample = record('sample', {
  kind: u8,
  reserved: zero(1),
  mode: asOctal(u16),
  magic: asHex(u32),
  size: u64,
  time: i64,
  name: fixedBytes(4),
});
const values = {
  kind: 7,
  mode: 0o644,
  magic: 0xfeedbeef,
  size: 0xffffffffffffffffn,
  time: -2n,
  name: Uint8Array.of(1, 2),
};

describe('a record', () => {
  test('has its fields one after the other in the order of the table', () => {
    expect({ size: sample.size, offsets: sample.offsets }).toEqual({
      size: 28,
      offsets: { kind: 0, reserved: 1, mode: 2, magic: 4, size: 8, time: 16, name: 24 },
    });
  });

  test('is written little-endian with reserved bytes zero, wherever it stands', () => {
    const bytes = new Uint8Array(40).fill(0xee).subarray(6);
    sample.encode(viewOf(bytes), 3, values);
    expect(Buffer.from(bytes).toString('hex')).toBe(
      `eeeeee${'0700a401efbeedfe'}${'ff'.repeat(8)}fe${'ff'.repeat(7)}01020000eeeeee`,
    );
  });

  test('is read as it was written, and described field by field', () => {
    const bytes = new Uint8Array(sample.size);
    sample.encode(viewOf(bytes), 0, values);
    expect(sample.decode(viewOf(bytes), 0)).toEqual({ ...values, name: Uint8Array.of(1, 2, 0, 0) });
    bytes[1] = 9;
    expect(sample.describe(viewOf(bytes), 0).map(({ name, text }) => [name, text])).toEqual([
      ['kind', '7'],
      ['reserved', 'reserved, but 09'],
      ['mode', '0644'],
      ['magic', '0xfeedbeef'],
      ['size', '18446744073709551615'],
      ['time', '-2'],
      ['name', '01020000'],
    ]);
  });

  test.each([1, -1, 100])('is not read at offset %i where it does not fit', (offset) => {
    const view = viewOf(new Uint8Array(sample.size));
    const message = `Cannot read sample at offset ${offset}: it takes 28 bytes and the data ends at 28`;
    expect(() => sample.decode(view, offset)).toThrow(message);
    expect(() => sample.describe(view, offset)).toThrow(message);
  });

  test('refuses bytes that do not fit their field', () => {
    const view = viewOf(new Uint8Array(sample.size));
    expect(() => sample.encode(view, 0, { ...values, name: new Uint8Array(5) })).toThrow('Cannot store 5 bytes in 4');
  });
});

test.each([
  [0, 8, 0],
  [1, 8, 8],
  [8, 8, 8],
  [9, 8, 16],
  [2 ** 40 + 1, 4096, 2 ** 40 + 4096],
])('%i rounded up to a multiple of %i is %i', (value, unit, expected) => {
  expect(roundUp(value, unit)).toBe(expected);
});
