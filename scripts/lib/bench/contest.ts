/** Interleaved rounds of hostctl and of what it is held against, each result looked at. */

import os from 'node:os';
import type { Comparison, Goal } from './comparison.ts';
import { measure, median, type Measured } from './measure.ts';
import type { Run } from './report.ts';
import type { Say } from './setting.ts';

export interface Contestant {
  readonly name: string;
  /** Why it cannot be measured here. */
  readonly unavailable?: string | undefined;
  /** Makes what has to be in place, measures, and looks at the result. Throws where it is not what it should be. */
  run(): Promise<Run>;
}

export interface Result {
  readonly name: string;
  /** None where it was not measured, or once made the wrong thing. */
  readonly runs: readonly Run[];
  readonly note: string | undefined;
}

/** Measures all in each round, in the order given. */
export async function contest(
  title: string,
  rounds: number,
  contestants: readonly Contestant[],
  say: Say,
): Promise<Result[]> {
  const runs = contestants.map((): Run[] => []);
  const notes = contestants.map(({ unavailable }) => unavailable);
  for (let round = 1; round <= rounds; round++) {
    for (const [i, contestant] of contestants.entries()) {
      if (notes[i] !== undefined) continue;
      say(`${title}, round ${round} of ${rounds}: ${contestant.name} (load ${os.loadavg()[0]?.toFixed(1)})`);
      try {
        runs[i]!.push(await contestant.run());
      } catch (error) {
        notes[i] = reasonOf(error);
        say(`Void: ${notes[i]}`);
      }
    }
  }
  return contestants.map(({ name }, i) => ({ name, note: notes[i], runs: notes[i] === undefined ? runs[i]! : [] }));
}

/** Why something could not be measured, as part of a line. */
export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message.split('\n').slice(0, 3).join(' ') : String(error);
}

/** What `script` takes each time, where it is too short to be measured once. */
export async function measureTimes(
  times: number,
  folder: string,
  script: string,
  variables: NodeJS.ProcessEnv,
): Promise<Measured> {
  const loop = `i=0; while [ "$i" -lt ${times} ]; do ${script}; i=$((i + 1)); done`;
  const { wallSec, cpuSec, maxRssMiB } = await measure(folder, loop, variables);
  return { wallSec: wallSec / times, cpuSec: cpuSec / times, maxRssMiB };
}

export type Pick = (run: Run) => number;
export const wall: Pick = ({ wallSec }) => wallSec;
export const cpu: Pick = ({ cpuSec }) => cpuSec;
export const memory: Pick = ({ maxRssMiB }) => maxRssMiB;

export function middle({ runs }: Result, pick: Pick): number | undefined {
  return runs.length === 0 ? undefined : median(runs.map(pick));
}

/** Our median against the least of those of the others. */
export function compare(
  row: string,
  ours: Result,
  others: readonly Result[],
  { pick = wall, goal, unit = 's' }: { readonly pick?: Pick; readonly goal?: Goal; readonly unit?: 's' | 'ms' } = {},
): Comparison {
  const scale = unit === 'ms' ? 1000 : 1;
  const measured = others.filter(({ runs }) => runs.length > 0).sort((a, b) => middle(a, pick)! - middle(b, pick)!);
  const [best] = measured;
  const scaled = (value: number | undefined): number | undefined => (value === undefined ? undefined : value * scale);
  return {
    row,
    unit,
    hostctl: scaled(middle(ours, pick)),
    reference: best === undefined ? undefined : scaled(middle(best, pick)),
    against: (best ?? others[0])?.name ?? '',
    ...(goal === undefined ? {} : { goal }),
    note: ours.note ?? (best === undefined ? others[0]?.note : undefined),
  };
}

/** Hosts are small: what any command may have at most. */
export const MEMORY_LIMIT_MIB = 300;

/** The most memory that one process of ours had, against a limit. */
export function peak(row: string, ours: Result, limitMiB: number = MEMORY_LIMIT_MIB): Comparison {
  const hostctl = middle(ours, memory);
  return { row: `${row}: peak memory`, unit: 'MiB', hostctl, reference: limitMiB, against: 'the limit', goal: { most: 1 }, note: ours.note }; // prettier-ignore
}
