/**
 * What the parts of the proof found, and where it is kept: the whole takes hours on a small machine, so a part that has
 * been run is not run again as long as neither hostctl nor the proof is another.
 */

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
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
  return hash.digest('hex');
}

/** The part's outcome, from `folder` where one of the same `tree` is kept there. */
export async function runKept(
  part: Part,
  folder: string | undefined,
  tree: string,
): Promise<{ outcomes: readonly Outcome[]; kept: boolean }> {
  if (folder === undefined) return { outcomes: await part.run(), kept: false };
  const key = createHash('sha256').update(`${tree} ${part.name}`).digest('hex').slice(0, 16);
  const path = `${folder}/${key}.json`;
  if (existsSync(path)) return { outcomes: JSON.parse(readFileSync(path, 'utf8')) as Outcome[], kept: true };
  const outcomes = await part.run();
  mkdirSync(folder, { recursive: true });
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(outcomes, undefined, 1)}\n`);
  renameSync(temporary, path);
  return { outcomes, kept: false };
}

/** Points of one row, and what is wrong in them. */
export function tally(outcomes: readonly Outcome[], row: Row): { points: number; violations: Violation[] } {
  const own = outcomes.filter((outcome) => outcome.row === row);
  return {
    points: own.reduce((sum, { points }) => sum + points, 0),
    violations: own.flatMap(({ violations }) => violations),
  };
}
