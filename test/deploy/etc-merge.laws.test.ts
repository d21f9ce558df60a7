import { expect, test } from 'vitest';
import { planEtcMerge, type EtcConflictRule } from '../../src/deploy/etc-merge.ts';
import { applyInMemory, modelMerge, plain, randomTriple, scanned } from '../helpers/etc-model.ts';

const TRIPLES = process.env['HOSTCTL_LONG'] === '1' ? 100_000 : 4_000;
const RULES: readonly (EtcConflictRule | undefined)[] = [undefined, 'keep-local', 'take-image'];

test(`${TRIPLES} random merges give what the rules say, under every policy`, { timeout: 900_000 }, () => {
  let conflicting = 0;
  for (let seed = 1; seed <= TRIPLES; seed += 1) {
    const triple = randomTriple(seed);
    const next = plain(triple.next);
    for (const rule of RULES) {
      const plan = planEtcMerge(triple, rule === undefined ? {} : { otherwise: rule });
      const outcome = {
        result: applyInMemory(next, plan.changes),
        conflicts: plan.conflicts.map(({ path }) => path).sort(),
      };
      const expected = modelMerge(plain(triple.base), plain(triple.local), next, rule);
      if (JSON.stringify(sorted(outcome)) !== JSON.stringify(sorted(expected))) {
        expect.soft(outcome, `seed ${seed}, policy ${rule ?? 'none'}`).toEqual(expected);
        return;
      }
      if (outcome.conflicts.length > 0) conflicting += 1;
    }
  }
  // The generator must not have lost the interesting ones.
  expect(conflicting).toBeGreaterThan(TRIPLES / 20);
});

test('an unchanged /etc becomes the new default, and the default of the same image changes nothing', () => {
  for (let seed = 1; seed <= 500; seed += 1) {
    const triple = randomTriple(seed);
    const [base, local, next] = [scanned(triple.base), scanned(triple.local), scanned(triple.next)];
    const nothing = { changes: [], conflicts: [], settled: [], shadowed: [] };
    expect(planEtcMerge({ base, local: base, next }), `seed ${seed}`).toEqual(nothing);
    expect(planEtcMerge({ base, local: next, next }), `seed ${seed}`).toEqual(nothing);
    expect(planEtcMerge({ base, local, next: base }).conflicts, `seed ${seed}`).toEqual([]);
  }
});

test('the order of entries in memory does not matter', () => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const { base, local, next } = randomTriple(seed);
    const backwards = { ...local, entries: new Map([...local.entries].reverse()) };
    expect(planEtcMerge({ base, local: backwards, next }), `seed ${seed}`).toEqual(planEtcMerge({ base, local, next }));
  }
});

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value as Record<string, unknown>)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}
