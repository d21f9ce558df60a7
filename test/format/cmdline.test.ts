import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  checkCmdlineLength,
  type DigestArgument,
  findDigestArguments,
  findKargs,
  formatDigestArgument,
  formatKarg,
  joinCmdline,
  type Karg,
  parseDigestArgument,
  parseKarg,
  sameKargKey,
  splitCmdline,
} from '../../src/format/cmdline.ts';
import type { VerityDigest } from '../../src/tree/node.ts';

const HEX64 = '0123456789abcdef'.repeat(4) as VerityDigest;
const HEX128 = '0123456789abcdef'.repeat(8) as VerityDigest;

describe('splitCmdline', () => {
  test.each<[string, string[]]>([
    ['', []],
    ['  a\t b\n', ['a', 'b']],
    ['a="b c" d', ['a="b c"', 'd']],
    ['"a=b c" d', ['"a=b c"', 'd']],
    ['a=b" "c d', ['a=b" "c', 'd']],
    ['a="b c', ['a="b c']],
    ['a=""', ['a=""']],
  ])('splits %j', (text, expected) => {
    expect(splitCmdline(text)).toEqual(expected);
  });

  test('gives back what was joined', () => {
    const arg = fc
      .tuple(fc.stringMatching(/^[a-z.-]{1,8}$/), fc.option(fc.stringMatching(/^[a-z =,/]{0,12}$/), { nil: undefined }))
      .map(([key, value]) => formatKarg(key, value));
    fc.assert(
      fc.property(fc.array(arg), (args) => {
        expect(splitCmdline(joinCmdline(args))).toEqual(args);
      }),
    );
  });
});

describe('joinCmdline', () => {
  test.each(['', ' ', 'a b', 'a="b', 'a\nb', '"a\tb"', 'a\0', 'a\u0085', '\ud800'])('refuses %j', (arg) => {
    expect(() => joinCmdline(['quiet', arg])).toThrowError(
      expect.objectContaining({ code: 'format-invalid' }) as Error,
    );
  });
});

describe('parseKarg', () => {
  test.each<[string, Karg]>([
    ['quiet', { key: 'quiet', value: undefined }],
    ['a=', { key: 'a', value: '' }],
    ['a=b=c', { key: 'a', value: 'b=c' }],
    ['a="b c"', { key: 'a', value: 'b c' }],
    ['"a=b c"', { key: 'a', value: 'b c' }],
    ['a="b c', { key: 'a', value: 'b c' }],
    ['"', { key: '', value: undefined }],
    ['a="', { key: 'a', value: '' }],
  ])('reads %s', (arg, expected) => {
    expect(parseKarg(arg)).toEqual(expected);
  });

  test('comes back from formatKarg', () => {
    const value = fc.stringMatching(/^[a-z =,.]*$/);
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z_.-]+$/), fc.option(value, { nil: undefined }), (key, text) => {
        expect(parseKarg(formatKarg(key, text))).toEqual({ key, value: text });
      }),
    );
  });

  test('refuses a value with a double quote, which nothing can escape', () => {
    expect(() => formatKarg('a', 'b"c')).toThrow('Cannot write a double quote in kernel argument "a"');
  });
});

test('keys are the same with dashes and underscores, and in no other way', () => {
  expect(sameKargKey('rd-luks_uuid', 'rd_luks-uuid')).toBe(true);
  expect(sameKargKey('Root', 'root')).toBe(false);
  expect(findKargs(['a-b=1', 'c', 'a_b=2', 'a-b', 'a-bc=3'], 'a_b')).toEqual(['1', '2', undefined]);
});

describe('digest arguments', () => {
  const argument = (formatVersion: 0 | 1 | 2, digest: VerityDigest, verityRequired: boolean): DigestArgument => ({
    parameters: { formatVersion, algorithm: digest.length === 128 ? 'sha512' : 'sha256', logBlockSize: 12 },
    digest,
    verityRequired,
  });

  test.each<[string, DigestArgument]>([
    [`composefs.digest=v1-sha512-12:${HEX128}`, argument(1, HEX128, true)],
    [`composefs.digest=?v1-sha512-12:${HEX128}`, argument(1, HEX128, false)],
    [`composefs.digest=v0-sha256-12:${HEX64}`, argument(0, HEX64, true)],
    [`composefs.digest=v2-sha256-12:${HEX64}`, argument(2, HEX64, true)],
  ])('%s is read and written', (text, expected) => {
    expect(parseDigestArgument(text)).toEqual(expected);
    expect(formatDigestArgument(expected)).toBe(text);
  });

  test.each<[string, DigestArgument]>([
    [`composefs=${HEX64}`, argument(2, HEX64, true)],
    [`composefs=?${HEX128}`, argument(2, HEX128, false)],
    [`composefs.digest="v1-sha256-12:${HEX64}"`, argument(1, HEX64, true)],
  ])('%s is read', (text, expected) => {
    expect(parseDigestArgument(text)).toEqual(expected);
  });

  test.each(['quiet', 'composefs.verity=1', `xcomposefs=${HEX64}`, `composefs_digest=v1-sha256-12:${HEX64}`])(
    '%s is none',
    (text) => {
      expect(parseDigestArgument(text)).toBeUndefined();
    },
  );

  test.each([
    ['composefs=', 'format-invalid'],
    ['composefs', 'format-invalid'],
    [`composefs=${HEX64.toUpperCase()}`, 'format-invalid'],
    [`composefs=??${HEX64}`, 'format-invalid'],
    [`composefs=${HEX64}0`, 'format-invalid'],
    [`composefs.digest=${HEX64}`, 'format-invalid'],
    [`composefs.digest=v1-sha512-12:${HEX64}`, 'format-invalid'],
    [`composefs.digest=v1-sha256-12:${HEX128}`, 'format-invalid'],
    [`composefs.digest=v1-sha256-12:${HEX64}x`, 'format-invalid'],
    [`composefs.digest=v3-sha256-12:${HEX64}`, 'image-unsupported'],
    [`composefs.digest=v01-sha256-12:${HEX64}`, 'image-unsupported'],
    [`composefs.digest=v1-md5-12:${HEX64}`, 'image-unsupported'],
    [`composefs.digest=v1-sha256-16:${HEX64}`, 'image-unsupported'],
  ])('%s is refused', (text, code) => {
    expect(() => parseDigestArgument(text)).toThrowError(expect.objectContaining({ code }) as Error);
  });

  test('are found in order', () => {
    const args = splitCmdline(`rw composefs.digest=v1-sha512-12:${HEX128} quiet composefs=${HEX64}`);
    expect(findDigestArguments(args)).toEqual([argument(1, HEX128, true), argument(2, HEX64, true)]);
  });
});

test.each([
  ['x86_64', 2047],
  ['riscv64', 1023],
  ['s390x', 4095],
  ['unheard-of', 1023],
])('a %s kernel takes %d bytes of command line', (machine, limit) => {
  expect(() => checkCmdlineLength('a'.repeat(limit), machine)).not.toThrow();
  expect(() => checkCmdlineLength('a'.repeat(limit + 1), machine)).toThrow(`a ${machine} kernel takes ${limit}`);
});
