/** What a shell script takes, itself and everything it starts. */

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../run.ts';

export interface Measured {
  readonly wallSec: number;
  /** User and system time. */
  readonly cpuSec: number;
  /** Of the largest process. */
  readonly maxRssMiB: number;
}

/** Runs `script` with `variables`; `folder` is for notes of its own. */
export async function measure(folder: string, script: string, variables: NodeJS.ProcessEnv): Promise<Measured> {
  const notes = join(folder, 'time');
  await run('/usr/bin/time', ['--format', '%e %U %S %M', '--output', notes, 'sh', '-euc', script], { env: variables });
  const [wall = 0, user = 0, system = 0, kib = 0] = readFileSync(notes, 'utf8').trim().split(' ').map(Number);
  rmSync(notes);
  return { wallSec: wall, cpuSec: user + system, maxRssMiB: kib / 1024 };
}

/** The middle one. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}
