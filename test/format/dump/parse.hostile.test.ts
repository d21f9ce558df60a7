import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { parseDump } from '../../../src/format/dump/parse.ts';
import { isHostctlError } from '../../../src/errors.ts';
import type { VerityAlgorithm } from '../../../src/tree/node.ts';
import { assertValidTree } from '../../../src/tree/validate.ts';
import { rejectVectors } from '../../helpers/composefs-vectors.ts';

const ROOT = '/ 4096 40755 2 0 0 0 1.0 - - -\n';
const HEX = 'ab'.repeat(32);

function problem(text: string, algorithm?: VerityAlgorithm): string {
  try {
    const tree = parseDump(Buffer.from(text, 'latin1'), algorithm === undefined ? {} : { algorithm });
    // Whoever makes an image of it does not look again.
    assertValidTree(tree);
  } catch (error) {
    if (isHostctlError(error, 'format-invalid')) return error.message.replace(/^Cannot read the dump: /, '');
    throw error;
  }
  return 'accepted';
}

describe('dumps that mkcomposefs refuses are refused with line and field', () => {
  const expected: Readonly<Record<string, string>> = {
    'no-root': 'line 1, field PATH "/a" has no parent directory in the lines before',
    'two-roots': 'line 2, field PATH is a second "/"',
    'dup-path': 'line 3, field PATH "/a" appears twice',
    'parent-is-file': 'line 3, field PATH "/a/b" has no parent directory in the lines before',
    'name-dotdot': 'line 2, field PATH "/.." has a reserved name',
    'name-256': `line 2, field PATH "/${'a'.repeat(256)}" has a name of 256 bytes, above 255`,
    'empty-path': 'line 1, field PATH is empty',
    'symlink-no-target': 'line 2, field PAYLOAD has no target for the symlink',
    'symlink-empty-target': 'line 2, field PAYLOAD has a symlink target of 0 bytes',
    'payload-4096': 'line 2, field PAYLOAD has an object path of 4096 bytes, above 4095',
    'mode-not-octal': 'line 2, field MODE "10x644" is not an octal number',
    'content-5001': 'line 2, field CONTENT has 5001 bytes inline, above 5000',
    'bad-escape': 'line 2, field PATH has the unknown escape "\\q"',
    'bad-hex': 'line 2, field PATH has "\\xzz" without two hex digits',
    'short-hex': 'line 2, field PATH has "\\x1" without two hex digits',
    'trailing-backslash': 'line 2, field PATH ends in a backslash',
    'embedded-nul': 'line 2, field PATH or a later one has a NUL byte',
    'xattr-no-equals': 'line 2, field XATTR "user.a" has no "="',
    'xattr-key-256': 'line 2, field XATTR has an xattr name of 256 bytes',
    'xattr-too-big': 'line 2, field XATTR has xattrs of 32774 bytes in all, above 32767',
    'xattr-total-too-big': 'line 2, field XATTR has xattrs of 40064 bytes in all, above 32767',
    'file-too-big': 'line 2, field SIZE is 9007199254740993, above 2^53',
    'hardlink-missing-target': 'line 2, field PAYLOAD "/nope" is not in the dump',
    'hardlink-self': 'line 2, field PAYLOAD "/f" leads back to the link itself',
    'hardlink-cycle': 'line 2, field PAYLOAD "/b" leads back to the link itself',
    'hardlink-dir-mode': 'line 3, field MODE asks for a hard link to a directory',
    'int-garbage': 'line 2, field SIZE "12a" is not a decimal number',
    'mtime-garbage': 'line 2, field MTIME "1.x" is not SECONDS.NANOSECONDS',
    'truncated-fields': 'line 2, field UID "" is not a decimal number',
  };

  test('each for its own reason', () => {
    const found = rejectVectors().map(({ name, dump }) => [name, problem(Buffer.from(dump).toString('latin1'))]);
    expect(Object.fromEntries(found)).toEqual(expected);
  });
});

describe('what the format leaves open is refused', () => {
  test.each([
    ['an empty dump', '', 'line 1, field PATH is missing: the dump has no "/"'],
    ['an empty line', `${ROOT}\n`, 'line 2, field PATH is empty'],
    ['a relative path', `${ROOT}a 0 100644 1 0 0 0 1.0 - - -\n`, 'line 2, field PATH "a" is not an absolute path'],
    ['a trailing slash', `${ROOT}/a/ 4096 40755 1 0 0 0 1.0 - - -\n`, 'line 2, field PATH "/a/" ends in a slash'],
    [
      'an escaped NUL',
      `${ROOT}/a\\x00b 0 100644 1 0 0 0 1.0 - - -\n`,
      'line 2, field PATH "/a\\x00b" has a name with a slash or NUL in it',
    ],
    [
      'NUL in a target',
      `${ROOT}/l 1 120777 1 0 0 0 1.0 a\\x00 - -\n`,
      'line 2, field PAYLOAD has a symlink target with NUL in it',
    ],
    [
      'NUL in an object path',
      `${ROOT}/f 9 100644 1 0 0 0 1.0 a\\x00 - -\n`,
      'line 2, field PAYLOAD has an object path with NUL in it',
    ],
    [
      'NUL in an xattr name',
      `${ROOT}/f 0 100644 1 0 0 0 1.0 - - - a\\x00=1\n`,
      'line 2, field XATTR has xattr name "a\\x00"',
    ],
    [
      'an empty xattr name',
      `${ROOT}/f 0 100644 1 0 0 0 1.0 - - - =1\n`,
      'line 2, field XATTR has an xattr name of 0 bytes',
    ],
    [
      'two spaces between xattrs',
      `${ROOT}/f 0 100644 1 0 0 0 1.0 - - - a=1  b=2\n`,
      'line 2, field XATTR "" has no "="',
    ],
    [
      'a link to an empty path',
      `${ROOT}/f 0 @100644 1 0 0 0 1.0  - -\n`,
      'line 2, field PAYLOAD "" is not an absolute path',
    ],
    [
      'too long an xattr part',
      `${ROOT}/f 0 100644 1 0 0 0 1.0 - - - a=${'\\x00'.repeat(16_384)}\n`,
      'line 2, field XATTR takes 65538 characters, above 65535',
    ],
    ['a plus sign', `${ROOT}/f +1 100644 1 0 0 0 1.0 - - -\n`, 'line 2, field SIZE "+1" is not a decimal number'],
    [
      'a uid beyond 32 bits',
      `${ROOT}/f 1 100644 1 4294967296 0 0 1.0 - - -\n`,
      'line 2, field UID 4294967296 is above 4294967295',
    ],
    ['a mode without type', `${ROOT}/f 0 644 1 0 0 0 1.0 - - -\n`, 'line 2, field MODE "644" is no file type'],
    ['a mode of type 7', `${ROOT}/f 0 70644 1 0 0 0 1.0 - - -\n`, 'line 2, field MODE "70644" is no file type'],
    ['a root that is a file', '/ 0 100644 1 0 0 0 1.0 - - -\n', 'line 1, field MODE of "/" is no directory'],
    ['a root that is a link', '/ 0 @40755 1 0 0 0 1.0 /a - -\n', 'line 1, field MODE of "/" is no directory'],
    [
      'seconds without nanoseconds',
      `${ROOT}/f 0 100644 1 0 0 0 1 - - -\n`,
      'line 2, field MTIME "1" is not SECONDS.NANOSECONDS',
    ],
    [
      'seconds beyond 64 bits',
      `${ROOT}/f 0 100644 1 0 0 0 9223372036854775808.0 - - -\n`,
      'line 2, field MTIME "9223372036854775808.0" is beyond 64 bits',
    ],
    [
      'a content of another size',
      `${ROOT}/f 3 100644 1 0 0 0 1.0 - ab -\n`,
      'line 2, field CONTENT has 2 bytes, but SIZE says 3',
    ],
    [
      'a symlink with content',
      `${ROOT}/l 2 120777 1 0 0 0 1.0 t ab -\n`,
      'line 2, field CONTENT is given for something that is no regular file',
    ],
    [
      'no DIGEST',
      `${ROOT}/f 0 100644 1 0 0 0 1.0 - -\n`,
      'line 2, field DIGEST "" is neither "-" nor 64 or 128 hex digits',
    ],
    [
      'a digest of 63 digits',
      `${ROOT}/f 9 100644 1 0 0 0 1.0 - - ${HEX.slice(1)}\n`,
      `line 2, field DIGEST "${HEX.slice(1)}" is neither "-" nor 64 or 128 hex digits`,
    ],
    [
      'two algorithms',
      `${ROOT}/f 9 100644 1 0 0 0 1.0 - - ${HEX}\n/g 9 100644 1 0 0 0 1.0 - - ${HEX}${HEX}\n`,
      `line 3, field DIGEST "${HEX}${HEX}" is neither "-" nor 64 hex digits`,
    ],
    [
      'a link without target',
      `${ROOT}/f 0 @100644 1 0 0 0 1.0 - - -\n`,
      'line 2, field PAYLOAD has no target for the hard link',
    ],
    ['a link to the root', `${ROOT}/f 0 @100644 1 0 0 0 1.0 / - -\n`, 'line 2, field PAYLOAD "/" ends in a slash'],
    [
      'a name below a link',
      `${ROOT}/f 0 @100644 1 0 0 0 1.0 /g - -\n/f/x 0 100644 1 0 0 0 1.0 - - -\n`,
      'line 3, field PATH "/f/x" has no parent directory in the lines before',
    ],
  ])('%s', (_, text, expected) => {
    expect(problem(text)).toBe(expected);
  });

  test('a digest of another algorithm than asked for', () => {
    expect(problem(`${ROOT}/f 9 100644 1 0 0 0 1.0 - - ${HEX}\n`, 'sha512')).toBe(
      `line 2, field DIGEST "${HEX}" is neither "-" nor 128 hex digits`,
    );
  });
});

test('a chain of a hundred thousand links is followed in linear time', () => {
  const links = Array.from({ length: 100_000 }, (_, i) => `/l${i} 0 @100644 1 0 0 0 1.0 /l${i + 1} - -\n`);
  const text = `${ROOT}${links.join('')}/l100000 1 100644 100001 0 0 0 1.0 - x -\n`;
  const root = parseDump(Buffer.from(text));
  expect([...root.entries.values()].filter(({ kind }) => kind === 'hardlink')).toHaveLength(100_000);
});

test('random damage gives typed errors only', () => {
  const base = Buffer.from(
    `${ROOT}/d 4096 40755 2 0 0 0 1.0 - - - user.a=\\x00b\n/d/f 9 100644 2 0 0 0 -1.5 ab/cd - ${HEX}\n` +
      `/l 1 120777 1 0 0 0 1.0 t - -\n/g 0 @100644 1 0 0 0 1.0 /d/f - -\n/i 2 100644 1 0 0 0 1.0 - \\n\\\\ -\n`,
  );
  const damage = fc.array(
    fc.tuple(fc.nat(base.length - 1), fc.constantFrom(...Buffer.from(' /\n\\x@-=0\0.a\xff', 'latin1'))),
    {
      minLength: 1,
      maxLength: 6,
    },
  );
  fc.assert(
    fc.property(damage, (changes) => {
      const text = Buffer.from(base);
      for (const [at, byte] of changes) text[at] = byte;
      expect(typeof problem(text.toString('latin1'))).toBe('string');
    }),
    { numRuns: 2000 },
  );
});
