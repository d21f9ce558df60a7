/**
 * Concurrency: several workers run random commands on one host at the same time, and some of these are killed at random
 * moments. No command may end in a bug or in an answer of the kernel that nobody thought of, as when another command took
 * away what this one holds; whenever all are done, the host must boot whole, and in the end nothing may be damaged. What
 * each worker draws follows from a seed; how they meet is chance.
 */

import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { checkHost } from './checker/check.ts';
import { stableId } from './checker/entries.ts';
import { mountedFiles } from './checker/mounted.ts';
import { hostctlCommand, imageReference, type Lab, runToEnd } from './lib/scene.ts';
import type { Violation } from './sweep.ts';

export interface ConcurrencyOptions {
  readonly workers: number;
  readonly seconds: number;
  readonly seed: number;
}

/** Time between two looks at the whole host. */
const ROUND_MS = 20_000;
/** Of all runs; the others go to their end. */
const KILLED_SHARE = 0.3;
const LONGEST_RUN_MS = 3_000;
/** What hostctl says before a system error that none of its messages is about. */
const UNFORESEEN = 'hostctl failed: ';

export async function runTogether(
  lab: Lab,
  { workers, seconds, seed }: ConcurrencyOptions,
): Promise<{ points: number; violations: Violation[] }> {
  const at = `${lab.directory}/together`;
  rmSync(at, { recursive: true, force: true });
  mkdirSync(`${at}/boot`, { recursive: true });
  const words = (args: readonly string[]): string[] =>
    hostctlCommand(lab, { root: at, boot: `${at}/boot` }, ['--wait', '60', ...args]);
  const violations: Violation[] = [];
  const report = (command: string, problem: string): void =>
    void violations.push({ command, fault: 'other commands', call: '', problem });
  const first = await runToEnd(words(['deploy', '--allow-missing-verity', imageReference(lab)('v1')]));
  if (first.code !== 0) throw new Error(`The first deployment ended with ${String(first.code)}: ${first.output}`);
  bless(at);
  let points = 0;
  const end = Date.now() + seconds * 1000;
  const draws = Array.from({ length: workers }, (_, worker) => drawing(seed * 1000 + worker));
  while (Date.now() < end && violations.length === 0) {
    const roundEnd = Math.min(end, Date.now() + ROUND_MS);
    await Promise.all(
      draws.map(async (draw) => {
        while (Date.now() < roundEnd) {
          const args = drawCommand(lab, draw, deploymentIds(at));
          points += 1;
          const killAfterMs = draw() < KILLED_SHARE ? draw() * LONGEST_RUN_MS : undefined;
          const { code, output } = await runFor(words(args), killAfterMs);
          if (code === 1 || output.includes(UNFORESEEN)) report(args.join(' '), `a bug: ${output}`);
          if (draw() < 0.2) bless(at);
        }
      }),
    );
    const problem = whatIsBroken(at);
    if (problem !== undefined) report('all', problem);
  }
  for (const args of [['gc'], ['fsck', '--deep']]) {
    const { code, output } = await runToEnd(words(args));
    if (code !== 0) report(args.join(' '), `ended with ${String(code)}: ${output}`);
  }
  return { points, violations };
}

/** Numbers from 0 to 1 that follow from `seed` (a linear congruential generator). */
function drawing(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Of those that have an entry now. */
function deploymentIds(at: string): string[] {
  const named = readdirSync(`${at}/boot/loader/entries`).map((name) => /^hostctl-0*(\d+)/.exec(name)?.[1]);
  return named.filter((id) => id !== undefined);
}

function drawCommand(lab: Lab, draw: () => number, ids: readonly string[]): string[] {
  const image = imageReference(lab)(draw() < 0.5 ? 'v1' : 'v2');
  const id = ids[Math.floor(draw() * ids.length)] ?? '1';
  const commands = [
    ['deploy', '--allow-missing-verity', image],
    ['deploy', '--allow-missing-verity', '--stage', image],
    ['switch', image],
    ['upgrade', '--tag', draw() < 0.5 ? 'v1' : 'v2'],
    ['upgrade', '--check'],
    ['rollback'],
    ['rollback', '--to', id],
    ['unstage'],
    ['finalize-staged'],
    ['pin', id],
    ['unpin', id],
    ['delete', id],
    ['kargs', '--append', `draw=${id}`],
    ['gc'],
    ['gc'],
    ['gc', '--dry-run'],
    ['fsck'],
    ['status'],
    ['image', 'pull', image],
    ['image', 'list'],
  ];
  return commands[Math.floor(draw() * commands.length)] ?? ['status'];
}

/** Runs a program, killed after some time where one is given. */
function runFor(words: readonly string[], killAfterMs: number | undefined): ReturnType<typeof runToEnd> {
  if (killAfterMs === undefined) return runToEnd(words, 120_000);
  return new Promise((resolve, reject) => {
    const [program = '', ...args] = words;
    const child = spawn(program, args, { stdio: 'ignore' });
    const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, output: '' });
    });
  });
}

/** What a good boot of the newest entry does: its counter goes. */
function bless(at: string): void {
  const entries = `${at}/boot/loader/entries`;
  const newest = readdirSync(entries)
    .filter((name) => name.endsWith('.conf'))
    .sort()
    .at(-1);
  if (newest === undefined || stableId(newest) === newest.replace(/\.conf$/, '')) return;
  try {
    renameSync(`${entries}/${newest}`, `${entries}/${stableId(newest)}.conf`);
  } catch {
    // A command took the entry away in this moment: then there is nothing to bless.
  }
}

function whatIsBroken(at: string): string | undefined {
  const host = { boot: mountedFiles(at), bootDir: 'boot', root: mountedFiles(at) };
  const { answer, reason, broken } = checkHost(host, { old: undefined, new: undefined });
  if (answer === 'BAD' && reason?.includes('is neither old nor new') !== true) return reason;
  return broken.size > 0 ? [...broken].join('; ') : undefined;
}
