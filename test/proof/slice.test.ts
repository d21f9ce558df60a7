/** A slice of the proof, small enough for every run of the tests; `npm run proof` is the whole. */

import { expect, test } from 'vitest';
import { prove, SLICE } from './proof.ts';

test('no crash of the slice strands a host, and its mutants are caught', async () => {
  const result = await prove(SLICE, (line) => console.log(line));
  const found = [result.killPoints, result.injectedErrors, result.powerCutStates].flatMap(
    ({ violations }) => violations,
  );
  expect(found).toEqual([]);
  expect(result.mutants).toEqual({ points: SLICE.mutants.length, missed: [] });
  // A sweep that meets nothing proves nothing.
  expect(result.killPoints.points).toBeGreaterThan(30);
  expect(result.injectedErrors.points).toBeGreaterThan(30);
  expect(result.powerCutStates.points).toBeGreaterThan(50);
}, 900_000);
