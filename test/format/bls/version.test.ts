import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareVersions } from '../../../src/format/bls/version.ts';

/** Worked order of UAPI.10, lowest first. */
const ORDER = [
  '122.1',
  '123~rc1-1',
  '123',
  '123-a',
  '123-a.1',
  '123-1',
  '123-1.1',
  '123^post1',
  '123.a-1',
  '123.1-1',
  '123a-1',
  '124-1',
];

describe('compareVersions', () => {
  test('puts the worked example of the specification in order, each against each', () => {
    ORDER.forEach((a, i) => {
      ORDER.forEach((b, j) => {
        expect([a, b, Math.sign(compareVersions(a, b))]).toEqual([a, b, Math.sign(i - j)]);
      });
    });
  });

  test.each([
    ['', '', 0],
    ['', 'a', -1],
    ['', '~', 1],
    ['', '0', -1],
    ['1', '1_', 0],
    ['1_0', '1+0', 0],
    ['1', 'a', 1],
    ['A', 'a', -1],
    ['ab', 'a', 1],
    ['00012', '12', 0],
    ['9', '10', -1],
    ['99999999999999999999', '100000000000000000000', -1],
    ['1.0', '1.', 1],
    ['1~~', '1~', 1],
    ['1-^.', '1-^.', 0],
    ['é1', '1', 0],
  ])('compares %j with %j as %d', (a, b, expected) => {
    expect(Math.sign(compareVersions(a, b))).toBe(expected);
    expect(Math.sign(compareVersions(b, a))).toBe(0 - expected);
  });

  const version = fc.string({ unit: fc.constantFrom(...'019aZz-.~^+_ é'), maxLength: 8 });

  test('is antisymmetric and transitive', () => {
    fc.assert(
      fc.property(version, version, version, (a, b, c) => {
        expect(Math.sign(compareVersions(a, b))).toBe(0 - Math.sign(compareVersions(b, a)));
        if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) {
          expect(compareVersions(a, c)).toBeLessThanOrEqual(0);
        }
      }),
      { numRuns: 3000 },
    );
  });
});
