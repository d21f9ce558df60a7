import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Outcome, type Part, runKept, tally } from './results.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'hostctl-results-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const violation = { command: 'deploy', fault: 'kill at 3', call: 'fsync', problem: 'gone' };

/** A part that finds something else each time it is run. */
function counting(name: string): Part & { runs: number } {
  const part = {
    name,
    runs: 0,
    run(): Promise<Outcome[]> {
      part.runs += 1;
      return Promise.resolve([{ name, row: 'killPoints', points: part.runs, violations: [violation] }]);
    },
  };
  return part;
}

test('a part is run once on a tree', async () => {
  const part = counting('deploy: kill at each call');
  const file = `${folder}/new/results.jsonl`;
  const first = await runKept(part, file, 'tree');
  expect(first.kept).toBe(false);
  expect(await runKept(part, file, 'tree')).toEqual({ outcomes: first.outcomes, kept: true });
  expect(part.runs).toBe(1);
});

test('what was found on another tree, or by another part, counts for nothing', async () => {
  const file = `${folder}/results.jsonl`;
  const part = counting('one');
  await runKept(part, file, 'tree');
  expect((await runKept(part, file, 'other tree')).kept).toBe(false);
  expect((await runKept(counting('two'), file, 'tree')).kept).toBe(false);
  expect(part.runs).toBe(2);
  expect(readFileSync(file, 'utf8').split('\n')).toHaveLength(4);
});

test('without a file nothing is kept', async () => {
  const part = counting('one');
  await runKept(part, undefined, 'tree');
  expect((await runKept(part, undefined, 'tree')).kept).toBe(false);
  expect(part.runs).toBe(2);
});

test('a row has the sum of its points and all violations', async () => {
  const outcomes = [...(await counting('one').run()), ...(await counting('two').run())];
  expect(tally(outcomes, 'killPoints')).toEqual({ points: 2, violations: [violation, violation] });
  expect(tally(outcomes, 'mutants')).toEqual({ points: 0, violations: [] });
});
