import { describe, expect, test } from 'vitest';
import { kargsFromFiles, type KargsFile, parseKargsFile, rustArchitecture } from '../../src/format/kargs-d.ts';

describe('parseKargsFile', () => {
  test.each<[string, KargsFile]>([
    ['kargs = ["console=tty0", "quiet"]', { kargs: ['console=tty0', 'quiet'] }],
    ['kargs = []', { kargs: [] }],
    ['kargs = ["a b", "c=\\"d e\\""]', { kargs: ['a', 'b', 'c="d e"'] }],
    ['kargs = ["a"]\nmatch-architectures = ["x86_64"]', { kargs: ['a'], matchArchitectures: ['x86_64'] }],
  ])('reads %s', (text, expected) => {
    expect(parseKargsFile(text, '10.toml')).toEqual(expected);
  });

  test.each([
    ['', '"kargs" is missing'],
    ['kargs = "a"', '"kargs" is not a list of strings'],
    ['kargs = [1]', '"kargs" is not a list of strings'],
    ['kargs = ["a"]\nmatch_architectures = []', 'unknown key "match_architectures"'],
    ['kargs = ["a"]\n[x]', 'unknown key "x"'],
    ['kargs = ["a\\nb=\\"c"]', 'Cannot use kernel argument'],
    ['kargs = ["a\\u0000"]', 'it has a control character or a line break'],
    ['kargs = [', 'not valid TOML'],
    ['__proto__ = 1', 'not valid TOML|unknown key "__proto__"'],
    [`#${'x'.repeat(65_536)}`, 'more than 65536 characters'],
  ])('refuses %j', (text, problem) => {
    expect(() => parseKargsFile(text, '10.toml')).toThrowError(
      expect.objectContaining({
        code: 'image-invalid',
        message: expect.stringMatching(
          new RegExp(`^Cannot read kernel arguments from "10.toml": .*(${problem})`, 's'),
        ) as string,
      }) as Error,
    );
  });
});

test('files apply in byte order of their names, for their architectures, and only when they are TOML', () => {
  const files = new Map([
    ['20-b.toml', 'kargs = ["b"]'],
    ['10-a.toml', 'kargs = ["a"]\nmatch-architectures = ["aarch64", "x86_64"]'],
    ['Z.toml', 'kargs = ["z"]'],
    ['15-power.toml', 'kargs = ["power"]\nmatch-architectures = ["powerpc64"]'],
    ['30-empty.toml', 'kargs = []'],
    ['README', 'not TOML'],
  ]);
  const [a, power, b, z] = [
    { file: '10-a.toml', kargs: ['a'] },
    { file: '15-power.toml', kargs: ['power'] },
    { file: '20-b.toml', kargs: ['b'] },
    { file: 'Z.toml', kargs: ['z'] },
  ];
  expect(kargsFromFiles(files, 'x86_64')).toEqual([a, b, z]);
  expect(kargsFromFiles(files, rustArchitecture('ppc64le'))).toEqual([power, b, z]);
});

test.each([
  ['amd64', 'x86_64'],
  ['arm64', 'aarch64'],
  ['ppc64le', 'powerpc64'],
  ['s390x', 's390x'],
  ['riscv64', 'riscv64'],
])('%s is %s to Rust', (oci, rust) => {
  expect(rustArchitecture(oci)).toBe(rust);
});
