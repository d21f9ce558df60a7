/** `systemd-analyze compare-versions` as referee of the version order. */
import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareVersions } from '../../src/format/bls/version.ts';

const probe = spawnSync('systemd-analyze', ['compare-versions', '1', '2']);
const missing = probe.error !== undefined || probe.status !== 12;
if (missing && process.env['HOSTCTL_CONFORMANCE'] === 'require') {
  throw new Error('systemd-analyze compare-versions is missing');
}

/** 11 when the first is newer, 12 when the second is, 0 when they are equal. */
function referee(a: string, b: string): number {
  const { status } = spawnSync('systemd-analyze', ['compare-versions', '--', a, b]);
  if (status === 0) return 0;
  if (status === 11) return 1;
  if (status === 12) return -1;
  throw new Error(`systemd-analyze gave ${String(status)} for ${a} ${b}`);
}

describe.skipIf(missing)('version order', () => {
  test('agrees with systemd-analyze on random versions', () => {
    const version = fc.string({ unit: fc.constantFrom(...'0019abZ-.~^+_'), minLength: 1, maxLength: 7 });
    fc.assert(
      fc.property(version, version, (a, b) => {
        expect([a, b, Math.sign(compareVersions(a, b))]).toEqual([a, b, referee(a, b)]);
      }),
      { numRuns: 400 },
    );
  });
});
