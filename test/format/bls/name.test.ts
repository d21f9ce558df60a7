import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  formatHostctlEntryName,
  type HostctlEntryName,
  isBadName,
  MAX_SEQUENCE,
  parseEntryName,
  parseHostctlEntryName,
} from '../../../src/format/bls/name.ts';
import { countDown } from '../../helpers/loader-oracles.ts';

const counter = fc.record({ left: fc.integer({ min: 0, max: 9 }), done: fc.integer({ min: 0, max: 9 }) });
const sequence = fc.integer({ min: 1, max: MAX_SEQUENCE });

describe('parseEntryName', () => {
  test.each([
    ['fedora-6.1.conf', { id: 'fedora-6.1', suffix: '.conf' }],
    ['a+3.conf', { id: 'a', suffix: '.conf', counter: { left: 3 } }],
    ['a+3-0.conf', { id: 'a', suffix: '.conf', counter: { left: 3, done: 0 } }],
    ['a+10-02.EFI', { id: 'a', suffix: '.efi', counter: { left: 10, done: 2 } }],
    ['a+b+0-3.conf', { id: 'a+b', suffix: '.conf', counter: { left: 0, done: 3 } }],
    ['a+3-x.conf', { id: 'a+3-x', suffix: '.conf' }],
    ['a+3-0-1.conf', { id: 'a+3-0-1', suffix: '.conf' }],
    ['+3.conf', { id: '+3', suffix: '.conf' }],
  ])('reads %s', (fileName, expected) => {
    expect(parseEntryName(fileName)).toEqual(expected);
  });

  test.each([
    'a.conf.tmp',
    '.conf',
    'a b.conf',
    'ä.conf',
    'a.txt',
    '',
    `${'a'.repeat(251)}.conf`,
    '../a.conf',
    'a\n.conf',
  ])('takes %j for no entry', (fileName) => {
    expect(parseEntryName(fileName)).toBeUndefined();
  });

  test('calls an entry bad exactly when no try is left', () => {
    const bad = ['a.conf', 'a+1-2.conf', 'a+0-3.conf', 'a+0.conf'].map((fileName) => {
      const name = parseEntryName(fileName);
      return name && isBadName(name);
    });
    expect(bad).toEqual([false, false, true, true]);
  });
});

describe('names of our own', () => {
  test.each<[HostctlEntryName, string]>([
    [{ sequence: 1 }, 'hostctl-00000001.conf'],
    [{ sequence: 42, counter: { left: 3, done: 0 } }, 'hostctl-00000042+3-0.conf'],
    [{ sequence: 42, counter: { left: 2, done: 1 } }, 'hostctl-00000042+2-1.conf'],
    [{ sequence: 99_999_999 }, 'hostctl-99999999.conf'],
  ])('%j is %s', (name, fileName) => {
    expect(formatHostctlEntryName(name)).toBe(fileName);
    expect(parseHostctlEntryName(fileName)).toEqual(name);
  });

  test.each([
    'hostctl-1.conf',
    'hostctl-00000000.conf',
    'hostctl-00000001.efi',
    'hostctl-00000001.conf.tmp',
    'xhostctl-00000001.conf',
  ])('takes %s for none of ours', (fileName) => {
    expect(parseHostctlEntryName(fileName)).toBeUndefined();
  });

  test.each<HostctlEntryName>([
    { sequence: 0 },
    { sequence: 1.5 },
    { sequence: 100_000_000 },
    { sequence: Number.NaN },
    { sequence: 1, counter: { left: 10 } },
    { sequence: 1, counter: { left: 1, done: -1 } },
  ])('refuses to name %j', (name) => {
    expect(() => formatHostctlEntryName(name)).toThrowError(
      expect.objectContaining({ code: 'state-invalid' }) as Error,
    );
  });

  test('come back as they were, and keep their length and sequence when a loader counts them down', () => {
    fc.assert(
      fc.property(sequence, counter, (number, tries) => {
        const fileName = formatHostctlEntryName({ sequence: number, counter: tries });
        expect(parseHostctlEntryName(fileName)).toEqual({ sequence: number, counter: tries });
        const counted = countDown(fileName);
        expect(counted).toHaveLength(fileName.length);
        expect(parseHostctlEntryName(counted)).toEqual({
          sequence: number,
          counter: { left: Math.max(0, tries.left - 1), done: Math.min(9, tries.done + 1) },
        });
      }),
    );
  });
});
