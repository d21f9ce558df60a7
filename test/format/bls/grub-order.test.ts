import fc from 'fast-check';
import { expect, test } from 'vitest';
import { grubDefaults, type GrubEntry } from '../../../src/format/bls/grub-order.ts';
import { defaultOfFedoraGrub, defaultOfUpstreamGrub, defaultOfVersionKeyGrub } from '../../helpers/loader-oracles.ts';

const linux = '/linux';
const ours: GrubEntry = { file: 'hostctl-00000007+3-0.conf', version: '7', linux };
const older: GrubEntry = { file: 'hostctl-00000006.conf', version: '6', linux };

test.each<[string, GrubEntry, string[]]>([
  ['a name that is lower everywhere', { file: 'debian-12.conf', version: '1', linux }, [ours.file]],
  ['a higher name', { file: 'zzz.conf', linux }, ['zzz.conf', ours.file]],
  ['a number, which RPM puts above letters', { file: '6f0c-6.1.conf', linux }, ['6f0c-6.1.conf', ours.file]],
  ['a higher version key', { file: 'debian-12.conf', version: '12', linux }, [ours.file, 'debian-12.conf']],
  ['an entry that GRUB does not show', { file: 'zzz.conf', version: '9' }, [ours.file]],
])('beside our own entries, %s', (_, foreign, expected) => {
  expect(grubDefaults([older, foreign, ours]).map(({ file }) => file)).toEqual(expected);
});

test('agrees with the loaders, one by one, on any names and versions', () => {
  const text = fc.string({ unit: fc.constantFrom(...'0019abZz-.~+_'), minLength: 1, maxLength: 8 });
  const entry = fc.record({ file: text.map((stem) => `${stem}.conf`), version: fc.option(text, { nil: undefined }) });
  const entries = fc.uniqueArray(entry, { selector: ({ file }) => file, minLength: 2, maxLength: 3 });
  fc.assert(
    fc.property(entries, (list) => {
      const oracle = list.map(({ file, version }) => ({ fileName: file, version }));
      const expected = [defaultOfFedoraGrub, defaultOfUpstreamGrub, defaultOfVersionKeyGrub].map((of) => of(oracle));
      const found = grubDefaults(list.map((item) => ({ ...item, linux }))).map(({ file }) => file);
      expect(found).toEqual([...new Set(expected)]);
    }),
    { numRuns: 3000 },
  );
});
