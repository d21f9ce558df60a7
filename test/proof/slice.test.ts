/** A slice of the proof, small enough for every run of the tests; `npm run proof` is the whole. */

import { expect, test } from 'vitest';
import { SLICE } from './plan.ts';
import { prove } from './proof.ts';
import { tally } from './results.ts';

test('no crash of the slice strands a host, and its mutants are caught', async () => {
  const outcomes = await prove(SLICE, { say: (line) => console.log(line) });
  expect(outcomes.flatMap(({ violations }) => violations)).toEqual([]);
  expect(tally(outcomes, 'mutants').points).toBe(SLICE.mutants.length);
  // A sweep that meets nothing proves nothing.
  expect(tally(outcomes, 'killPoints').points).toBeGreaterThan(30);
  expect(tally(outcomes, 'injectedErrors').points).toBeGreaterThan(30);
  expect(tally(outcomes, 'powerCutStates').points).toBeGreaterThan(50);
  expect(tally(outcomes, 'corruption').points).toBeGreaterThan(3);
  expect(tally(outcomes, 'fullDisks').points).toBeGreaterThan(3);
  expect(tally(outcomes, 'concurrency').points).toBeGreaterThan(5);
}, 900_000);
