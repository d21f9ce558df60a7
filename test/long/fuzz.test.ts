/** Ten million mutated inputs over all parsers, on two threads: typed errors, or values that print back the same. */

import { Worker } from 'node:worker_threads';
import { build } from 'esbuild';
import { expect, test } from 'vitest';
import type { FuzzReport } from '../fuzz/run.ts';
import { targets } from '../fuzz/targets.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

const THREADS = 2;
const EXECUTIONS = 10_000_000;
/** New every day, unless the seed of a failure is given. */
const SEED = Number(process.env['HOSTCTL_FUZZ_SEED'] ?? Math.floor(Date.now() / 86_400_000));

async function bundledWorker(): Promise<string> {
  const outfile = `${scratchDir()}/worker.mjs`;
  const entry = new URL('../fuzz/worker.ts', import.meta.url).pathname;
  // Dependencies that are CommonJS ask for Node's modules by "require".
  const banner = { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" };
  await build({
    entryPoints: [entry],
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    outfile,
    banner,
  });
  return outfile;
}

function runWorker(file: string, thread: number): Promise<FuzzReport[]> {
  return new Promise((resolve, reject) => {
    const reports: FuzzReport[] = [];
    const worker = new Worker(file, {
      workerData: { executions: EXECUTIONS / THREADS, seed: SEED * THREADS + thread },
    });
    worker.on('message', (report: FuzzReport) => reports.push(report));
    worker.once('error', reject);
    worker.once('exit', () => resolve(reports));
  });
}

test(`every parser withstands its share of ${EXECUTIONS} inputs`, async () => {
  const file = await bundledWorker();
  const reports = (await Promise.all(Array.from({ length: THREADS }, (_, i) => runWorker(file, i)))).flat();
  const lines = targets.map(({ name }) => {
    const ofTarget = reports.filter((report) => report.name === name);
    const sum = (of: (report: FuzzReport) => number): number => ofTarget.reduce((total, report) => total + of(report), 0);
    return `${name}: ${sum(({ executions }) => executions)} executions, ${Math.max(...ofTarget.map(({ kinds }) => kinds))} kinds, ${(sum(({ ms }) => ms) / 1000).toFixed(0)} s`;
  });
  console.log(`Seed ${SEED}\n${lines.join('\n')}`);
  expect(reports.flatMap(({ name, failures }) => failures.map((failure) => ({ name, ...failure })))).toEqual([]);
  expect(reports.reduce((sum, { executions }) => sum + executions, 0)).toBeGreaterThanOrEqual(EXECUTIONS);
}); // prettier-ignore
