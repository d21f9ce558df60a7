import { expect, test } from 'vitest';
import { planEtcMerge } from '../../src/deploy/etc-merge.ts';
import { checkRandomMerges, randomTriple, scanned } from '../helpers/etc-model.ts';

const TRIPLES = 4_000;

test(`${TRIPLES} random merges give what the rules say, under every policy`, () => {
  const { failures, conflicting } = checkRandomMerges(1, TRIPLES);
  expect(failures).toEqual([]);
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
