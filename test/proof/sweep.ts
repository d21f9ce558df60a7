/**
 * The kill and error sweep: a command is run once for each of its calls that changes a file system, and meets a fault
 * exactly there. Afterwards the host must boot the old or the new deployment, the exit status must have told the truth,
 * and the same command must go through when it is run again: once from each state that faults leave, many leave the same.
 */

import { existsSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { copyDisk } from './lib/disks.ts';
import { fingerprint } from './lib/fingerprint.ts';
import {
  hostAt,
  imagesFor,
  judge,
  type Lab,
  type Mounted,
  mountDisks,
  rootOf,
  runToEnd,
  type Scene,
  sceneCommand,
} from './lib/scene.ts';
import { recover } from './recovery.ts';

export interface Fault {
  /** As `tracer/trace.c` knows it. */
  readonly kind: string;
  /** From the Nth call on, not only there. */
  readonly sticky: boolean;
}

export const KILLS: readonly Fault[] = [
  { kind: 'kill', sticky: false },
  { kind: 'kill-main', sticky: false },
  { kind: 'term', sticky: false },
];

export const ERRORS: readonly Fault[] = ['ENOSPC', 'EIO', 'EDQUOT', 'EROFS', 'EMFILE']
  .flatMap((kind) => [
    { kind, sticky: false },
    { kind, sticky: true },
  ])
  .concat({ kind: 'short', sticky: false });

const SIGTERM = os.constants.signals.SIGTERM;

export interface Violation {
  readonly command: string;
  readonly fault: string;
  /** The call that met it, as the tracer logged it. */
  readonly call: string;
  readonly problem: string;
}

export interface SweepResult {
  /** Faults that met a call. */
  readonly points: number;
  readonly violations: readonly Violation[];
}

export interface SweepOptions {
  readonly tracer: string;
  /** Runs at a time. */
  readonly jobs: number;
  /** Take every Nth call only. */
  readonly stride?: number;
  /** Fingerprints of states from which the command went through when it was run again: once is enough for each. */
  readonly done: Set<string>;
  /** End at the first violation, and look from the last call on, where most breaks show: enough for a mutant. */
  readonly stopAtFirst?: boolean;
}

/** Sweeps one command with one fault. Ends when a run comes to its end without meeting the fault. */
export async function sweep(lab: Lab, scene: Scene, fault: Fault, options: SweepOptions): Promise<SweepResult> {
  const violations: Violation[] = [];
  const step = (options.stride ?? 1) * (options.stopAtFirst ? -1 : 1);
  let points = 0;
  let next = options.stopAtFirst ? await countCalls(lab, scene, fault, options.tracer) : 1;
  let ended = false;
  const work = async (job: number): Promise<void> => {
    while (!ended && next > 0) {
      const at = next;
      next += step;
      const result = await runPoint(lab, scene, fault, at, options, `${lab.directory}/job-${job}`);
      if (result.call === undefined) ended = true;
      else points += 1;
      if (options.stopAtFirst && result.problems.length > 0) ended = true;
      for (const problem of result.problems) {
        violations.push({
          command: scene.command.name,
          fault: `${fault.kind}${fault.sticky ? ' from' : ' at'} ${at}`,
          call: result.call ?? 'none',
          problem,
        });
      }
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, (_, job) => work(job)));
  return { points, violations };
}

/** How many calls could meet the fault: those of a run in which none does. */
export async function countCalls(lab: Lab, scene: Scene, fault: Fault, tracer: string): Promise<number> {
  const never = 1_000_000_000;
  const { counted } = await runPoint(lab, scene, fault, never, { tracer, done: new Set() }, `${lab.directory}/job-0`);
  return counted;
}

interface Point {
  /** Calls that could have met the fault. */
  readonly counted: number;
  /** Undefined when no call met the fault. */
  readonly call: string | undefined;
  readonly problems: readonly string[];
}

async function runPoint(
  lab: Lab,
  scene: Scene,
  fault: Fault,
  at: number,
  { tracer, done }: Pick<SweepOptions, 'tracer' | 'done'>,
  directory: string,
): Promise<Point> {
  // Names of their own: a loop device goes away a moment after its mount, and until then remembers its file's bytes.
  const disks = { root: `${directory}-root-${at}.img`, boot: `${directory}-boot-${at}.img` };
  await copyDisk(scene.disks.root, disks.root);
  await copyDisk(scene.disks.boot, disks.boot);
  const mounted = await mountDisks(disks, directory);
  const log = `${directory}.log`;
  try {
    const root = rootOf(scene.command, mounted);
    const through = [
      ...[tracer, '--log', log, '--watch', root, '--watch', mounted.boot],
      ...['--fault', fault.kind, '--at', String(at), ...(fault.sticky ? ['--sticky'] : []), '--'],
    ];
    const words = sceneCommand(lab, scene.command, mounted, scene.command.args(imagesFor(lab, scene.command)), through);
    const { code, output } = await runToEnd(words);
    if (code !== 0) return { counted: 0, call: 'none', problems: [`the tracer ended with ${String(code)}: ${output}`] };
    const trace = readTrace(log);
    const problems = [...(await thaw(mounted, fault)), ...truth(scene, mounted, fault, trace, output)];
    if (problems.length === 0 && trace.hit !== undefined) problems.push(...(await goOn(lab, scene, mounted, done)));
    return { counted: trace.counted, call: trace.hit, problems };
  } finally {
    await mounted.close();
    rmSync(disks.root, { force: true });
    rmSync(disks.boot, { force: true });
  }
}

interface Trace {
  readonly counted: number;
  /** First call that met the fault. */
  readonly hit: string | undefined;
  /** Exit status; undefined when a signal ended the command. */
  readonly exit: number | undefined;
  readonly signal: number | undefined;
}

function readTrace(log: string): Trace {
  const lines = existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : [];
  const last = /^(exit|signal) (\d+)$/.exec(lines.at(-1) ?? '');
  return {
    counted: lines.length - 1,
    hit: lines.find((line) => line.startsWith('HIT '))?.slice(4),
    exit: last?.[1] === 'exit' ? Number(last[2]) : undefined,
    signal: last?.[1] === 'signal' ? Number(last[2]) : undefined,
  };
}

/** A frozen boot file system would hang the host. Only when nobody is left alive to thaw it may it stay so. */
async function thaw({ boot }: Mounted, fault: Fault): Promise<string[]> {
  // The watchdog needs a moment after its parent died.
  if (fault.kind === 'kill-main') await delay(50);
  const { code } = await runToEnd(['fsfreeze', '--unfreeze', boot]);
  return code === 0 && fault.kind !== 'kill' ? ['the boot file system was left frozen'] : [];
}

/** What the host is, and whether the exit status says so. */
function truth(scene: Scene, mounted: Mounted, fault: Fault, trace: Trace, output: string): string[] {
  const { answer, reason } = judge(scene, hostAt(mounted));
  if (answer === 'BAD') return [`BAD: ${reason ?? ''}`];
  const killed = fault.kind.startsWith('kill');
  if (killed && trace.hit !== undefined) return trace.signal === 9 ? [] : [`ended with ${describe(trace)} when killed`];
  // Node gives its signal handlers back before it ends: one that comes then finds everything done.
  if (fault.kind === 'term' && trace.signal === SIGTERM && answer === 'NEW') return [];
  if (trace.exit === undefined) return [`ended with ${describe(trace)}: ${output}`];
  const { removes, mends, goesOn } = scene.command;
  if (trace.exit === 0) {
    const isDone = answer === 'NEW' || (goesOn === true && trace.hit !== undefined);
    return isDone ? [] : ['exit 0, but nothing has changed'];
  }
  if (trace.hit === undefined) return [`exit ${trace.exit} without a fault: ${output}`];
  if (trace.exit === 1) return [`exit 1, a bug: ${output}`];
  if (fault.kind === 'short') return [`exit ${trace.exit} for a short write: ${output}`];
  if (fault.kind === 'term' && trace.exit !== 143) return [`exit ${trace.exit} for SIGTERM: ${output}`];
  // With every call failing from the commit on, nothing can be taken back; what must hold then is only that it boots.
  const stays = removes === true || mends === true;
  if (answer === 'NEW' && !fault.sticky && !stays) return [`exit ${trace.exit}, but the change is there: ${output}`];
  return [];
}

function describe({ exit, signal }: Trace): string {
  return exit === undefined ? `signal ${String(signal)}` : `exit ${exit}`;
}

/** Looks at what comes of the state, unless that went right from the same one. */
async function goOn(lab: Lab, scene: Scene, mounted: Mounted, done: Set<string>): Promise<string[]> {
  const state = fingerprint(mounted);
  if (done.has(state)) return [];
  const problem = await recover(lab, scene, mounted);
  if (problem !== undefined) return [problem];
  done.add(state);
  return [];
}
