import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isHostctlError } from '../../../src/errors.ts';
import { entryProblems, formatEntry, parseEntry } from '../../../src/format/bls/entry.ts';

const utf8 = new TextEncoder();

describe('hostile boot entries', () => {
  test.each<[string, Uint8Array, string]>([
    ['not UTF-8', Uint8Array.of(0x74, 0x20, 0xff), 'Cannot parse boot entry: it is not UTF-8'],
    ['with NUL', utf8.encode('linux /a\0'), 'Cannot parse boot entry: it has a NUL at offset 8'],
    ['too large', new Uint8Array(65_537).fill(0x61), 'Cannot parse boot entry: it has 65537 bytes, more than 65536'],
  ])('that are %s are refused', (_, bytes, message) => {
    expect(() => parseEntry(bytes)).toThrowError(expect.objectContaining({ code: 'format-invalid', message }) as Error);
  });

  test.each(['x\nlinux /evil', 'x\rlinux /evil', 'x\0', 'x\x1b[2J', 'x\u2028y', 'x\u0085y', '\ud800', 'x\x7f'])(
    'cannot be made by a label %j',
    (value) => {
      const fields = [
        { key: 'title', value },
        { key: 'linux', value: '/a' },
      ];
      expect(entryProblems({ fields })).toEqual([
        `Value of "title" has a control character or a line break: ${JSON.stringify(value)}`,
      ]);
      expect(() => formatEntry({ fields })).toThrow();
    },
  );

  test('of a line without end cost no more than their length', () => {
    const bytes = utf8.encode(`a${' '.repeat(65_000)}b`);
    const start = performance.now();
    expect(parseEntry(bytes).fields).toEqual([{ key: 'a', value: 'b' }]);
    expect(parseEntry(utf8.encode(' '.repeat(65_000))).fields).toEqual([]);
    expect(parseEntry(utf8.encode(`a ${'b '.repeat(32_000)}\tc`)).fields).toHaveLength(1);
    expect(performance.now() - start).toBeLessThan(2000);
  });

  test('of random bytes give a typed error or fields that have no line break', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.string({ unit: fc.constantFrom(...'a# \t\r\n\0é/'), maxLength: 60 }).map((text) => utf8.encode(text)),
    );
    fc.assert(
      fc.property(bytes, (input) => {
        try {
          for (const { key, value } of parseEntry(input).fields) {
            expect(`${key}${value}`).not.toMatch(/[\r\n\0]/);
            expect(value).not.toBe('');
          }
        } catch (error) {
          expect(isHostctlError(error, 'format-invalid')).toBe(true);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
