/** The comparators of the loader oracles against programs that carry the same order: systemd's and coreutils'. */
import { execFileSync, spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compareFileVersions, compareUapi } from '../helpers/loader-oracles.ts';
import { missingPrograms } from '../helpers/requires.ts';

const noSystemd = missingPrograms('systemd-analyze').length > 0;

test.skipIf(noSystemd)('UAPI.10 as systemd-analyze compares', () => {
  const version = fc.string({ unit: fc.constantFrom(...'0019abZ-.~^+_'), minLength: 1, maxLength: 7 });
  fc.assert(
    fc.property(version, version, (a, b) => {
      const { status } = spawnSync('systemd-analyze', ['compare-versions', '--', a, b]);
      const order = new Map([
        [0, 0],
        [11, 1],
        [12, -1],
      ]).get(status ?? -1);
      expect([a, b, Math.sign(compareUapi(a, b))]).toEqual([a, b, order]);
    }),
    { numRuns: 200 },
  );
});

test("gnulib's filevercmp as sort -V sorts", () => {
  const unit = fc.constantFrom(...'0019abZ-.~+_');
  // sort puts hidden files first; a loader does not look at them.
  const stem = fc.string({ unit, minLength: 1, maxLength: 7 }).filter((text) => !text.startsWith('.'));
  const name = stem.map((text) => `${text}.conf`);
  fc.assert(
    fc.property(fc.uniqueArray(name, { minLength: 50, maxLength: 100 }), (names) => {
      const input = `${names.join('\n')}\n`;
      const sorted = execFileSync('sort', ['-V'], { input, encoding: 'utf8', env: { LC_ALL: 'C' } });
      expect([...names].sort(compareFileVersions)).toEqual(sorted.trimEnd().split('\n'));
    }),
    { numRuns: 20 },
  );
});
