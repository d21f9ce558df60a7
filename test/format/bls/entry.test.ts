import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type BlsField,
  entryOptions,
  entryProblems,
  entryValue,
  entryValues,
  formatEntry,
  parseEntry,
  sanitizeValue,
} from '../../../src/format/bls/entry.ts';

const utf8 = new TextEncoder();
const parse = (text: string): readonly BlsField[] => parseEntry(utf8.encode(text)).fields;

const GOOD: readonly BlsField[] = [
  { key: 'title', value: 'Debian GNU/Linux 13 (trixie)' },
  { key: 'version', value: '42' },
  { key: 'sort-key', value: 'hostctl' },
  { key: 'linux', value: '/hostctl/ab12/linux' },
  { key: 'initrd', value: '/hostctl/ab12/initrd' },
  { key: 'options', value: 'root=UUID=1 rw' },
  { key: 'options', value: 'quiet' },
  { key: 'x-options-source-tuned', value: 'nosmt' },
];

describe('parseEntry', () => {
  test('keeps every key in file order and drops comments, blanks around and bare keys', () => {
    const text =
      '# comment\r\n\n title \t A  title  \nlinux\t/a\ngrub_class\nx-own  1 = 2\n#linux /b\noptions a\noptions b';
    expect(parse(text)).toEqual([
      { key: 'title', value: 'A  title' },
      { key: 'linux', value: '/a' },
      { key: 'x-own', value: '1 = 2' },
      { key: 'options', value: 'a' },
      { key: 'options', value: 'b' },
    ]);
  });

  test('finds values', () => {
    const entry = { fields: [...GOOD, { key: 'title', value: 'last' }] };
    expect(entryValue(entry, 'title')).toBe('last');
    expect(entryValue(entry, 'efi')).toBeUndefined();
    expect(entryValues(entry, 'options')).toEqual(['root=UUID=1 rw', 'quiet']);
    expect(entryOptions(entry)).toBe('root=UUID=1 rw quiet');
  });
});

describe('formatEntry', () => {
  test('writes one line for each field', () => {
    expect(formatEntry({ fields: GOOD })).toBe(
      [
        'title Debian GNU/Linux 13 (trixie)',
        'version 42',
        'sort-key hostctl',
        'linux /hostctl/ab12/linux',
        'initrd /hostctl/ab12/initrd',
        'options root=UUID=1 rw',
        'options quiet',
        'x-options-source-tuned nosmt',
        '',
      ].join('\n'),
    );
  });

  test.each<[string, BlsField[], string[]]>([
    ['nothing to boot', [{ key: 'title', value: 'x' }], ['Neither "linux" nor "efi" nor "uki"']],
    ['an empty value', [...GOOD, { key: 'efi', value: '' }], ['Value of "efi" is empty: ""']],
    ['a repeated key', [...GOOD, { key: 'title', value: 'x' }], ['Key "title" stands twice']],
    ['a dollar sign', [...GOOD, { key: 'options', value: 'a=$b' }], ['Value of "options" has a "$": "a=$b"']],
    ['a path that climbs', [{ key: 'linux', value: '/a/../b' }], ['Value of "linux" is not a plain path: "/a/../b"']],
    ['a relative path', [{ key: 'linux', value: 'a' }], ['Value of "linux" is not a plain path: "a"']],
    ['a doubled slash', [{ key: 'linux', value: '//a' }], ['Value of "linux" is not a plain path: "//a"']],
    ['a key with a blank', [...GOOD, { key: 'a b', value: 'x' }], ['Bad key "a b"']],
    ['a comment as key', [...GOOD, { key: '#a', value: 'x' }], ['Bad key "#a"']],
    ['blanks at the end', [...GOOD, { key: 'x-a', value: 'x ' }], ['Value of "x-a" begins or ends with a blank: "x "']],
    [
      'a bad machine id',
      [...GOOD, { key: 'machine-id', value: 'A' }],
      ['Value of "machine-id" is not a machine id: "A"'],
    ],
  ])('refuses %s', (_, fields, problems) => {
    expect(entryProblems({ fields })).toEqual(problems);
    expect(() => formatEntry({ fields })).toThrowError(
      expect.objectContaining({
        code: 'format-invalid',
        message: expect.stringContaining(problems[0] ?? '?') as string,
      }) as Error,
    );
  });

  test('writes what comes back as it was', () => {
    const field = fc
      .record({
        key: fc.constantFrom('options', 'initrd', 'extra'),
        value: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }),
      })
      .filter((one) => entryProblems({ fields: [{ key: 'linux', value: '/a' }, one] }).length === 0);
    fc.assert(
      fc.property(fc.array(field), (more) => {
        const fields = [{ key: 'linux', value: '/a' }, ...more];
        expect(parse(formatEntry({ fields }))).toEqual(fields);
      }),
    );
  });
});

describe('sanitizeValue', () => {
  test.each([
    ['Debian 13', 'Debian 13'],
    ['a\nlinux /evil', 'a linux /evil'],
    ['a\u0085b\u2028c\x1b[31m', 'a_b c_[31m'],
    ['  $HOME \t', '_HOME'],
    ['\ud800x', '_x'],
    [' \n', undefined],
    ['ä'.repeat(300), 'ä'.repeat(200)],
  ])('turns %j into %j', (text, expected) => {
    expect(sanitizeValue(text)).toBe(expected);
  });

  test('always gives a value that can be written', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 260 }), (text) => {
        const value = sanitizeValue(text);
        if (value === undefined) return;
        expect(
          entryProblems({
            fields: [
              { key: 'linux', value: '/a' },
              { key: 'title', value },
            ],
          }),
        ).toEqual([]);
      }),
    );
  });
});
