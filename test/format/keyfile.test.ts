import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatKeyfile, keyfileValue, parseKeyfile } from '../../src/format/keyfile.ts';

const origin = new Map([
  ['origin', new Map([['container-image-reference', 'ostree-unverified-image:docker://quay.io/x/y:1?a=b;c#d']])],
  [
    'boot',
    new Map([
      ['boot_type', 'bls'],
      ['digest', 'ab12'],
    ]),
  ],
]);

test('an origin is written as bootc writes it, values literal', () => {
  expect(formatKeyfile(origin)).toBe(
    `[origin]
container-image-reference = ostree-unverified-image:docker://quay.io/x/y:1?a=b;c#d

[boot]
boot_type = bls
digest = ab12
`,
  );
  expect(parseKeyfile(formatKeyfile(origin))).toEqual(origin);
  expect(keyfileValue(origin, 'boot', 'digest')).toBe('ab12');
  expect(keyfileValue(origin, 'boot', '__proto__')).toBeUndefined();
});

describe('parseKeyfile', () => {
  test('takes comments, blanks, other line ends, empty values and a section in two pieces', () => {
    const text = '# c\r\n[a]\r\n  x=1\r\n; c\n[b]\ny =\n\n[a]\n z = 2 = 3 ';
    expect(parseKeyfile(text)).toEqual(
      new Map([
        ['a', new Map(Object.entries({ x: '1', z: '2 = 3' }))],
        ['b', new Map(Object.entries({ y: '' }))],
      ]),
    );
  });

  test('names that are prototypes elsewhere are names here', () => {
    const file = parseKeyfile('[__proto__]\nconstructor = 1\n[toString]\na.b = 2');
    expect(keyfileValue(file, '__proto__', 'constructor')).toBe('1');
    expect(keyfileValue(file, 'toString', 'a.b')).toBe('2');
    expect(({} as Record<string, unknown>)['a']).toBeUndefined();
  });

  test.each([
    ['x = 1', 'line 1 stands before the first section'],
    ['[a]\nx', 'line 2 is neither a section nor an assignment'],
    ['[a', 'line 1 is neither a section nor an assignment'],
    ['[a]\n= 1', 'line 2 is neither a section nor an assignment'],
    ['[a]\nx = 1\nx = 2', 'line 3 repeats "x"'],
    ['[a]\nx = 1\u00852', 'line 2 has a control character in "x"'],
    ['[a]\nx = \0', 'line 2 has a control character in "x"'],
    ['#'.repeat(65_537), 'of 65537 characters'],
  ])('refuses %j', (text, message) => {
    expect(() => parseKeyfile(text)).toThrowError(
      expect.objectContaining({ code: 'format-invalid', message: expect.stringContaining(message) as string }) as Error,
    );
  });
});

describe('formatKeyfile', () => {
  test.each([
    ['a', 'x', 'line\nbreak'],
    ['a', 'x', ' blank'],
    ['a', 'x y', 'z'],
    ['a', '', 'z'],
    ['a]', 'x', 'z'],
    [' a', 'x', 'z'],
  ])('refuses section %j, key %j, value %j', (section, key, value) => {
    expect(() => formatKeyfile(new Map([[section, new Map([[key, value]])]]))).toThrowError(
      expect.objectContaining({ code: 'format-invalid' }) as Error,
    );
  });

  test('writes what comes back as it was', () => {
    const value = fc.string({ unit: fc.constantFrom(...'ab ="\'\\;#[]$é'), maxLength: 12 }).map((text) => text.trim());
    const section = fc.dictionary(fc.stringMatching(/^[a-z][a-z_-]{0,5}$/), value);
    fc.assert(
      fc.property(fc.dictionary(fc.stringMatching(/^[a-z]{1,4}$/), section), (file) => {
        const keyfile = new Map(
          Object.entries(file).map(([name, entries]) => [name, new Map(Object.entries(entries))]),
        );
        expect(parseKeyfile(formatKeyfile(keyfile))).toEqual(keyfile);
      }),
    );
  });
});
