import { expect, test } from 'vitest';
import { checkRandomMerges } from '../helpers/etc-model.ts';

const TRIPLES = 100_000;
/** Not those of the normal suite. */
const FIRST_SEED = 1_000_000;

test(`${TRIPLES} random /etc merges give what the rules say, under every policy`, () => {
  const { failures, conflicting } = checkRandomMerges(FIRST_SEED, TRIPLES);
  expect(failures).toEqual([]);
  expect(conflicting).toBeGreaterThan(TRIPLES / 20);
});
