/** A thread of the fuzzing: some executions of every target. */

import { parentPort, workerData } from 'node:worker_threads';
import { fuzz } from './run.ts';
import { targets } from './targets.ts';

const { executions, seed } = workerData as { executions: number; seed: number };
const weights = targets.reduce((sum, { weight }) => sum + weight, 0);
for (const [i, target] of targets.entries()) {
  parentPort?.postMessage(await fuzz(target, Math.ceil((executions * target.weight) / weights), seed * 1000 + i));
}
