/**
 * What the parts of the proof found, and where it is kept: the whole takes hours on a small machine, so a part that has
 * been run is not run again as long as neither hostctl nor the proof is another.
 */

import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { filesBelow } from './lib/files-below.ts';
import type { Violation } from './sweep.ts';

/** Lines of the table. */
export const ROWS = [
  'killPoints',
  'injectedErrors',
  'powerCutStates',
  'fatStates',
  'realBoots',
  'fullDisks',
  'corruption',
  'concurrency',
  'mutants',
] as const;
export type Row = (typeof ROWS)[number];

export interface Outcome {
  readonly name: string;
  readonly row: Row;
  readonly points: number;
  /** Of a mutant: that it was not caught. */
  readonly violations: readonly Violation[];
}

/** A piece of the proof that runs by itself. */
export interface Part {
  readonly name: string;
  run(): Promise<readonly Outcome[]>;
}

/** What outcomes are bound to: the names and all bytes of these files, and of those in these folders. */
export function treeOf(paths: readonly string[]): string {
  const hash = createHash('sha256');
  const files = paths.flatMap((path) =>
    statSync(path).isDirectory() ? filesBelow(path).map((name) => `${path}/${name}`) : [path],
  );
  for (const path of files) {
    hash.update(`${basename(path)} ${createHash('sha256').update(readFileSync(path)).digest('hex')}\n`);
  }
  return hash.digest('hex').slice(0, 16);
}

/** A line of the file that results are kept in. */
interface Kept {
  readonly tree: string;
  readonly part: string;
  readonly outcomes: readonly Outcome[];
}

/** The part's outcome, from `file` where one of the same `tree` is kept there; else it is run, and added to the file. */
export async function runKept(
  part: Part,
  file: string | undefined,
  tree: string,
): Promise<{ outcomes: readonly Outcome[]; kept: boolean }> {
  if (file === undefined) return { outcomes: await part.run(), kept: false };
  const known = readKept(file).find((one) => one.tree === tree && one.part === part.name);
  if (known !== undefined) return { outcomes: known.outcomes, kept: true };
  const outcomes = await part.run();
  const line: Kept = { tree, part: part.name, outcomes };
  mkdirSync(dirname(file), { recursive: true });
  // At its end, with one call: several proofs may share the file.
  appendFileSync(file, `${JSON.stringify(line)}\n`);
  return { outcomes, kept: false };
}

function readKept(file: string): Kept[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Kept);
}

/** Points of one row, and what is wrong in them. */
export function tally(outcomes: readonly Outcome[], row: Row): { points: number; violations: Violation[] } {
  const own = outcomes.filter((outcome) => outcome.row === row);
  return {
    points: own.reduce((sum, { points }) => sum + points, 0),
    violations: own.flatMap(({ violations }) => violations),
  };
}
