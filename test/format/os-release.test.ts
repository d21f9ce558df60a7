import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseAssignments, parseOsRelease } from '../../src/format/os-release.ts';

describe('parseOsRelease', () => {
  test('reads what an entry is made from', () => {
    const text = `PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
# a comment
VERSION_ID="13"
VERSION='13 (trixie)'
ID=debian
IMAGE_ID=host
IMAGE_VERSION=2.1
BUILD_ID=b7
VARIANT_ID=server
`;
    expect(parseOsRelease(text)).toEqual({
      id: 'debian',
      prettyName: 'Debian GNU/Linux 13 (trixie)',
      version: '13 (trixie)',
      versionId: '13',
      imageId: 'host',
      imageVersion: '2.1',
      buildId: 'b7',
      variantId: 'server',
    });
  });

  test('has defaults for an empty file', () => {
    expect(parseOsRelease('')).toEqual({ id: 'linux', prettyName: 'Linux' });
    expect(parseOsRelease('ID=\nPRETTY_NAME=""')).toEqual({ id: 'linux', prettyName: 'Linux' });
  });
});

describe('parseAssignments', () => {
  test.each<[string, Record<string, string>]>([
    ['A=b', { A: 'b' }],
    ['  A=b  ', { A: 'b' }],
    ['A=b # comment', { A: 'b' }],
    ['A=b#c', { A: 'b#c' }],
    ['A=\'b c\'"d e"f', { A: 'b cd ef' }],
    ['A="\\"\\$\\`\\\\\\n"', { A: '"$`\\\\n' }],
    [String.raw`A=b\ c`, { A: 'b c' }],
    ["A='\\n$x'", { A: '\\n$x' }],
    ['A="$HOME"', { A: '$HOME' }],
    ['A="one\ntwo"\nB=3', { A: 'one\ntwo', B: '3' }],
    ['A=1\nA=2', { A: '2' }],
    ['A=1\nA=', {}],
    ['A=b c\nB=2', { B: '2' }],
    ['A="open\nB=2', { B: '2' }],
    ['A\nB = 2\n=3\nC=4', { C: '4' }],
    ['A=\x00\nB=2', { B: '2' }],
    ['__proto__=x', { ['__proto__']: 'x' }],
  ])('reads %j', (text, expected) => {
    expect([...parseAssignments(text)]).toEqual(Object.entries(expected));
  });

  test('never throws, and every single-quoted value comes back', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'AB=\'"\\\n# $x'), maxLength: 40 }), (text) => {
        parseAssignments(text);
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'ab "\\\n$#='), minLength: 1 }), (value) => {
        expect(parseAssignments(`A='${value}'`).get('A')).toBe(value);
      }),
    );
  });
});
