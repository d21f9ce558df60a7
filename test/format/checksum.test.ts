import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hasChecksum, withChecksum } from '../../src/format/checksum.ts';
import { parseEntry } from '../../src/format/bls/entry.ts';
import { parseKeyfile } from '../../src/format/keyfile.ts';

const text = '[a]\nb = c\n';

describe('a text with its checksum', () => {
  test('is the text and a comment that both formats pass over', () => {
    expect(withChecksum(text, ';')).toMatch(/^\[a\]\nb = c\n; sha256 [0-9a-f]{64}\n$/);
    expect(parseKeyfile(withChecksum(text, ';'))).toEqual(parseKeyfile(text));
    const entry = 'title x\nlinux /a\n';
    expect(parseEntry(Buffer.from(withChecksum(entry, '#')))).toEqual(parseEntry(Buffer.from(entry)));
  });

  test('is known again, and no other text is', () => {
    const whole = withChecksum(text, ';');
    expect(hasChecksum(whole)).toBe(true);
    fc.assert(
      fc.property(fc.nat(whole.length * 8 - 1), (bit) => {
        const bytes = Buffer.from(whole);
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        return !hasChecksum(bytes.toString('latin1'));
      }),
    );
    for (let length = 0; length < whole.length; length += 1) expect(hasChecksum(whole.slice(0, length))).toBe(false);
    expect(hasChecksum(`${whole}more\n`)).toBe(false);
    expect(hasChecksum(whole + whole)).toBe(false);
  });
});
