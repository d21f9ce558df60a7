import { describe, expect, test } from 'vitest';

import { compareRaw, displayRaw, rawFromBytes, rawFromText, rawToBytes } from '../../src/tree/name.ts';

describe('raw names', () => {
  test('keep every byte', () => {
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    expect(Buffer.from(rawToBytes(rawFromBytes(bytes)))).toEqual(Buffer.from(bytes));
    expect(Buffer.from(rawToBytes(rawFromText('ü')))).toEqual(Buffer.from([0xc3, 0xbc]));
  });

  test('compare as bytes, not as UTF-16', () => {
    const names = ['\u{10000}', '\uffff', 'b', 'ab', 'a', ''].map(rawFromText);
    expect(names.sort(compareRaw)).toEqual(['', 'a', 'ab', 'b', '\uffff', '\u{10000}'].map(rawFromText));
  });

  test.each([
    ['plain', 'plain', 'plain'],
    ['UTF-8', 'größe', 'größe'],
    ['control characters', 'a\nb\x1b[0m', 'a\\x0ab\\x1b[0m'],
    ['a backslash', 'a\\b', 'a\\x5cb'],
    ['a bidirectional override', 'a\u202eb', 'a\\u202eb'],
  ])('with %s are shown in readable form', (_, text, shown) => {
    expect(displayRaw(rawFromText(text))).toBe(shown);
  });

  test('that are no UTF-8 are shown with each odd byte escaped once', () => {
    expect(displayRaw(rawFromBytes(Buffer.from([0x61, 0xff, 0x5c, 0xc3, 0x0a])))).toBe('a\\xff\\x5c\\xc3\\x0a');
  });
});
