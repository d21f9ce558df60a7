/** A million files: 1 KiB of heap for each, on top of the tree itself, and no more time per file than for few. */

import { execFileSync } from 'node:child_process';

import { build } from 'esbuild';
import { expect, test } from 'vitest';

import { scratchDir } from '../helpers/scratch-dir.ts';

/** What the tree takes by itself, and what writing may take on top; the image is outside the heap. */
const TREE_BYTES_PER_FILE = 650;
const WRITER_BYTES_PER_FILE = 1024;

async function scaleProgram(): Promise<string> {
  const outfile = `${scratchDir()}/scale.mjs`;
  const entry = new URL('../helpers/scale-program.ts', import.meta.url).pathname;
  await build({ entryPoints: [entry], bundle: true, platform: 'node', format: 'esm', target: 'node20', outfile });
  return outfile;
}

/** CPU seconds per million files. */
function cost(program: string, files: number): number {
  const heapMiB = Math.ceil((files * (TREE_BYTES_PER_FILE + WRITER_BYTES_PER_FILE)) / 2 ** 20);
  const stdout = execFileSync(process.execPath, [`--max-old-space-size=${heapMiB}`, program, `${files}`], {
    encoding: 'utf8',
  });
  const { objects, cpuSeconds } = JSON.parse(stdout) as { objects: number; cpuSeconds: number };
  expect(objects).toBe(files);
  return (cpuSeconds / files) * 1e6;
}

test('a million files fit the memory and time they are given', async () => {
  const program = await scaleProgram();
  const few = cost(program, 100_000);
  expect(cost(program, 1_000_000)).toBeLessThan(4 * few);
});
