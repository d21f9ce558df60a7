/** A short run of the fuzzing of `test/long/fuzz.test.ts`, always with the same seed, and what it has ever found. */

import { describe, expect, test } from 'vitest';
import { fuzz, outcomeOf } from '../fuzz/run.ts';
import { targets } from '../fuzz/targets.ts';

describe('every parser answers mutated inputs as it should', () => {
  test.each(targets.map((target) => [target.name, target] as const))('%s', async (_name, target) => {
    const { failures, kinds } = await fuzz(target, 200, 1);
    expect(failures).toEqual([]);
    // A target that always says the same tests nothing.
    expect(kinds).toBeGreaterThan(1);
  });
});

/** Inputs, in hex, that were once not answered as they should be. */
const findings: readonly (readonly [target: string, input: string])[] = [
  ['boot entry name', Buffer.from('hostctl-00000007+03-0.coNF').toString('hex')],
  ['auth.json', Buffer.from('{"auths":{"h.example":{"auth":"YTpi\\nx: y"}}}').toString('hex')],
];

test.each(findings)('%s: %s', async (name, input) => {
  const target = targets.find((each) => each.name === name)!;
  expect((await outcomeOf(target, Buffer.from(input, 'hex'))).problem).toBeUndefined();
});
