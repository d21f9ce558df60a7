import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatHostctlEntryName, parseEntryName } from '../../../src/format/bls/name.ts';
import { compareMenuEntries, defaultMenuEntry, type MenuEntry, sortMenu } from '../../../src/format/bls/order.ts';
import {
  countDown,
  defaultOfFedoraGrub,
  defaultOfSystemdBoot,
  defaultOfUpstreamGrub,
  defaultOfVersionKeyGrub,
} from '../../helpers/loader-oracles.ts';

interface Named extends MenuEntry {
  readonly fileName: string;
}

function entry(fileName: string, keys: Omit<MenuEntry, 'name'> = {}): Named {
  const name = parseEntryName(fileName);
  if (!name) throw new Error(fileName);
  return { fileName, name, ...keys };
}

function names(entries: readonly Named[]): string[] {
  return entries.map(({ fileName }) => fileName);
}

describe('sortMenu', () => {
  test.each<[string, Named[]]>([
    ['used-up entries last', [entry('a.conf'), entry('z+0-3.conf')]],
    ['used-up entries last, before any key', [entry('a.conf'), entry('z+0-3.conf', { sortKey: 'a' })]],
    ['entries with a sort key first', [entry('a.conf', { sortKey: 'z' }), entry('z.conf')]],
    ['sort keys ascending', [entry('a.conf', { sortKey: 'debian' }), entry('z.conf', { sortKey: 'fedora' })]],
    [
      'sort keys by bytes, not by UTF-16 units',
      [entry('a.conf', { sortKey: '\ufb00' }), entry('b.conf', { sortKey: '\u{1f600}' })],
    ],
    [
      'then machine ids ascending',
      [entry('a.conf', { sortKey: 'k', machineId: '1' }), entry('b.conf', { sortKey: 'k', machineId: '2' })],
    ],
    [
      'an absent machine id before any',
      [entry('a.conf', { sortKey: 'k' }), entry('b.conf', { sortKey: 'k', machineId: '0' })],
    ],
    [
      'then versions descending',
      [entry('a.conf', { sortKey: 'k', version: '10' }), entry('b.conf', { sortKey: 'k', version: '9' })],
    ],
    ['then ids descending', [entry('x-10.conf', { sortKey: 'k' }), entry('x-9.conf', { sortKey: 'k' })]],
    ['versions do not count without sort key', [entry('b.conf', { version: '1' }), entry('a.conf', { version: '2' })]],
    ['ids are compared without counter', [entry('x-2.conf'), entry('x-1+9-0.conf')]],
    ['of equal ids the one with more tries left', [entry('x+2-0.conf'), entry('x+1-0.conf')]],
    ['of equal tries left the one tried less', [entry('x+2-0.conf'), entry('x+2-1.conf')]],
  ])('puts %s', (_, expected) => {
    expect(names(sortMenu(expected))).toEqual(names(expected));
    expect(names(sortMenu([...expected].reverse()))).toEqual(names(expected));
  });

  test('boots a used-up entry only when there is no other', () => {
    expect(defaultMenuEntry([entry('a+0-3.conf'), entry('b+0-3.conf')])?.fileName).toBe('b+0-3.conf');
    expect(defaultMenuEntry([])).toBeUndefined();
  });

  const menuEntry = fc
    .record({
      id: fc.constantFrom('a', 'b-1', 'b-2', 'c_1'),
      tries: fc.constantFrom('', '+0-3', '+1-2', '+3'),
      sortKey: fc.constantFrom(undefined, 'k', 'l'),
      machineId: fc.constantFrom(undefined, '1'),
      version: fc.constantFrom(undefined, '1', '2~a'),
    })
    .map(({ id, tries, ...keys }) => entry(`${id}${tries}.conf`, keys));

  test('begins with what systemd-boot starts', () => {
    fc.assert(
      fc.property(fc.uniqueArray(menuEntry, { selector: ({ fileName }) => fileName, minLength: 1 }), (entries) => {
        expect(defaultMenuEntry(entries)?.fileName).toBe(defaultOfSystemdBoot(entries));
      }),
      { numRuns: 2000 },
    );
  });

  test('is a consistent order', () => {
    fc.assert(
      fc.property(menuEntry, menuEntry, menuEntry, (a, b, c) => {
        expect(Math.sign(compareMenuEntries(a, b))).toBe(0 - Math.sign(compareMenuEntries(b, a)));
        if (compareMenuEntries(a, b) <= 0 && compareMenuEntries(b, c) <= 0) {
          expect(compareMenuEntries(a, c)).toBeLessThanOrEqual(0);
        }
      }),
    );
  });
});

describe('the default among our own entries', () => {
  const ours = fc
    .uniqueArray(fc.integer({ min: 1, max: 99_999_999 }), { minLength: 1, maxLength: 6 })
    .chain((sequences) =>
      fc.tuple(
        ...sequences.map((sequence) =>
          fc
            .option(fc.record({ left: fc.integer({ min: 1, max: 9 }), done: fc.integer({ min: 0, max: 9 }) }))
            .map((counter) =>
              entry(formatHostctlEntryName(counter ? { sequence, counter } : { sequence }), {
                sortKey: 'hostctl',
                version: String(sequence),
              }),
            ),
        ),
      ),
    );

  test('is the newest in every loader, whatever tries are left', () => {
    fc.assert(
      fc.property(ours, (entries) => {
        const newest = entries.reduce((a, b) => (Number(a.version) > Number(b.version) ? a : b)).fileName;
        const oracle = entries.map(({ fileName, version }) => ({ fileName, version: version ?? '' }));
        expect({
          ours: defaultMenuEntry(entries)?.fileName,
          systemdBoot: defaultOfSystemdBoot(entries),
          fedora: defaultOfFedoraGrub(oracle),
          upstream: defaultOfUpstreamGrub(oracle),
          versionKey: defaultOfVersionKeyGrub(oracle),
        }).toEqual({ ours: newest, systemdBoot: newest, fedora: newest, upstream: newest, versionKey: newest });
      }),
      { numRuns: 1000 },
    );
  });

  test('moves to the next newest only in the loader that counts, once the tries are used up', () => {
    let tried = 'hostctl-00000002+2-0.conf';
    const older = { fileName: 'hostctl-00000001.conf', version: '1' };
    const seen: (string | undefined)[] = [];
    for (let boot = 0; boot < 3; boot += 1) {
      const keys = { sortKey: 'hostctl' };
      seen.push(
        defaultMenuEntry([entry(older.fileName, { ...keys, version: '1' }), entry(tried, { ...keys, version: '2' })])
          ?.fileName,
      );
      tried = countDown(tried);
    }
    expect(seen).toEqual(['hostctl-00000002+2-0.conf', 'hostctl-00000002+1-1.conf', older.fileName]);
    const used = [older, { fileName: 'hostctl-00000002+0-2.conf', version: '2' }];
    expect(defaultOfFedoraGrub(used)).toBe('hostctl-00000002+0-2.conf');
  });
});
