/** Recording of a command's disk writes: made over two loop devices on top of `recorder.c`, and read back. */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '../../../scripts/lib/run.ts';
import { mount } from '../lib/disks.ts';
import { imagesFor, type Lab, rootOf, runToEnd, type Scene, sceneCommand } from '../lib/scene.ts';
import { runAgain } from '../recovery.ts';

/** Order of the disks in a recording. */
export const DEVICES = ['root', 'boot'] as const;

export type Event =
  | { readonly kind: 'write'; readonly device: number; readonly offset: number; readonly data: Buffer }
  | { readonly kind: 'flush'; readonly device: number }
  | { readonly kind: 'mark'; readonly text: string };

/** Everything between the marks "begin" and "end", and what the disks were at "begin". */
export interface Recording {
  /** Writes made while mounting, before the command: part of the disks the command found. */
  readonly before: readonly Event[];
  readonly events: readonly Event[];
  /** Index in `events` from which on the command had ended with exit 0: all before it must be durable. */
  readonly endedAt: number;
}

/** Reads a recording of two disks with the marks "begin" and "end". */
export function parseRecording(log: Buffer): Recording {
  const events = parseEvents(log);
  return cut(events, markAt(events, 'begin'), markAt(events, 'end'), events.length);
}

/**
 * Reads a recording made in a guest: disks 2i and 2i + 1 are those of job i, and the last disk takes the marks
 * "begin i", "end i" and "after i".
 */
export function parseRecordings(log: Buffer, jobs: number): Recording[] {
  const events = parseEvents(log).map((event): Event => {
    if (event.kind !== 'write' || event.device !== 2 * jobs) return event;
    return { kind: 'mark', text: event.data.toString('latin1', 0, 512).trimEnd() };
  });
  return Array.from({ length: jobs }, (_, job) => {
    const at = (text: string): number => markAt(events, `${text} ${job}`);
    const { before, events: own, endedAt } = cut(events, at('begin'), at('end'), at('after'));
    const ofJob = (list: readonly Event[]): Event[] =>
      list.flatMap((event) =>
        event.kind === 'mark' || event.device >> 1 !== job ? [] : [{ ...event, device: event.device & 1 }],
      );
    return { before: ofJob(before), events: ofJob(own), endedAt: ofJob(own.slice(0, endedAt)).length };
  });
}

/**
 * Reads a recording of a whole disk, which becomes those of its partitions; a write to the second disk is where the
 * command begins, and the end of the recording is where it has ended.
 */
export function parseWholeDisk(
  log: Buffer,
  partitions: Readonly<Record<(typeof DEVICES)[number], { readonly start: number; readonly size: number }>>,
): Recording {
  const events = parseEvents(log);
  const begin = events.findIndex((event) => event.kind === 'write' && event.device === 1);
  if (begin < 0) throw new Error('The recording has no beginning');
  const split = (list: readonly Event[]): Event[] =>
    list.flatMap((event) => {
      if (event.kind === 'mark' || event.device !== 0) return [];
      return DEVICES.flatMap((name, device): Event[] => {
        if (event.kind === 'flush') return [{ kind: 'flush', device }];
        const offset = event.offset - partitions[name].start;
        return offset >= 0 && offset < partitions[name].size ? [{ ...event, device, offset }] : [];
      });
    });
  const own = split(events.slice(begin + 1));
  return { before: split(events.slice(0, begin)), events: own, endedAt: own.length };
}

function cut(events: readonly Event[], begin: number, end: number, after: number): Recording {
  const between = events.slice(begin + 1, end);
  return {
    before: events.slice(0, begin),
    events: [...between, ...events.slice(end + 1, after)],
    endedAt: between.length,
  };
}

function markAt(events: readonly Event[], text: string): number {
  const index = events.findIndex((event) => event.kind === 'mark' && event.text === text);
  if (index < 0) throw new Error(`The recording has no mark "${text}"`);
  return index;
}

function parseEvents(log: Buffer): Event[] {
  const events: Event[] = [];
  for (let offset = 0; offset + 16 <= log.length;) {
    const type = log.readUInt8(offset);
    const device = log.readUInt8(offset + 1);
    const length = log.readUInt32LE(offset + 4);
    const at = Number(log.readBigUInt64LE(offset + 8));
    offset += 16;
    if (type === 2) {
      events.push({ kind: 'flush', device });
    } else if (type === 4) {
      events.push({ kind: 'write', device, offset: at, data: Buffer.alloc(length) });
    } else {
      const data = log.subarray(offset, offset + length);
      if (data.length < length) throw new Error('The recording is cut');
      events.push(type === 1 ? { kind: 'write', device, offset: at, data } : { kind: 'mark', text: data.toString() });
      offset += length;
    }
  }
  return events;
}

/** Serves disks through the recorder; `close` ends it and must come after everything on top is gone. */
export async function startRecorder(
  program: string,
  directory: string,
  disks: Readonly<Record<string, string>>,
): Promise<{ at: string; log: string; mark(text: string): void; close(): Promise<void> }> {
  const at = `${directory}/recorder`;
  const log = `${directory}/recording`;
  mkdirSync(at, { recursive: true });
  const devices = Object.entries(disks).map(([name, image]) => `${name}=${image}`);
  const child: ChildProcess = spawn(program, [at, log, ...devices], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve());
    void ended.then((code) => reject(new Error(`The recorder ended with ${String(code)}`)));
  });
  return {
    at,
    log,
    mark: (text) => writeFileSync(`${at}/mark`, text),
    async close() {
      await unmountWhenFree(at);
      const code = await ended;
      if (code !== 0) throw new Error(`The recorder ended with ${String(code)}`);
    },
  };
}

/** A loop device that was detached lets go of its file a moment later when somebody else looked at it. */
async function unmountWhenFree(at: string): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    const { code, output } = await runToEnd(['umount', at]);
    if (code === 0) return;
    if (tries === 100) throw new Error(`Cannot unmount "${at}": ${output}`);
    await delay(100);
  }
}

export interface RecordOptions {
  /** Mount options of the root. */
  readonly rootOptions?: string;
  /** Another program writes and syncs small files on the root all the while, which commits the journal at any time. */
  readonly disturbed?: boolean;
  readonly killedFirst?: KilledFirst;
}

/**
 * ext4 in writeback mode, with another program that makes the journal commit at any time: a file can have its name and
 * size without its data.
 */
export const CARELESS_ROOT: RecordOptions = { rootOptions: 'data=writeback,nodelalloc', disturbed: true };

/** A first run of the command that is killed at a call, without a power cut: what it left is found by the second run. */
export interface KilledFirst {
  readonly tracer: string;
  /** Number of the call. */
  readonly at: number;
}

/**
 * Records a scene's command on loop devices; undefined when it ended before the call that `killedFirst` names. Throws
 * unless the command succeeds.
 */
export async function record(
  lab: Lab,
  scene: Scene,
  recorderProgram: string,
  { rootOptions = '', disturbed = false, killedFirst }: RecordOptions = {},
): Promise<Recording | undefined> {
  const directory = `${lab.directory}/record`;
  const recorder = await startRecorder(recorderProgram, directory, { root: scene.disks.root, boot: scene.disks.boot });
  const undo: (() => Promise<unknown>)[] = [() => recorder.close()];
  try {
    const at = { root: `${directory}/root`, boot: `${directory}/boot` };
    for (const device of DEVICES) {
      // Direct, so that each request of the file system is one write of the recording.
      const loop = (await run('losetup', ['--find', '--show', '--direct-io=on', `${recorder.at}/${device}`])).trim();
      undo.push(() => run('losetup', ['--detach', loop]));
      undo.push(await mount(loop, at[device], device === 'root' ? rootOptions : ''));
    }
    await run('sync', ['--file-system', at.root]);
    await run('sync', ['--file-system', at.boot]);
    recorder.mark('begin');
    const words = (through: readonly string[] = []): string[] =>
      sceneCommand(lab, scene.command, at, scene.command.args(imagesFor(lab, scene.command)), through);
    if (killedFirst) {
      const log = `${directory}/trace`;
      const watched = ['--watch', rootOf(scene.command, at), '--watch', at.boot];
      const fault = ['--fault', 'kill', '--at', String(killedFirst.at)];
      await runToEnd(words([killedFirst.tracer, '--log', log, ...watched, ...fault, '--']));
      await runToEnd(['fsfreeze', '--unfreeze', at.boot]);
      if (!/^HIT /m.test(readFileSync(log, 'utf8'))) return undefined;
    }
    if (disturbed) undo.push(disturb(at.root));
    const problem = killedFirst ? await runAgain(lab, scene, at) : await runFirst(words());
    recorder.mark('end');
    if (problem !== undefined) throw new Error(`${scene.command.name}: ${problem}`);
  } finally {
    for (const step of undo.reverse()) await step();
  }
  return parseRecording(readFileSync(recorder.log));
}

async function runFirst(words: readonly string[]): Promise<string | undefined> {
  const { code, output } = await runToEnd(words);
  return code === 0 ? undefined : `it ended with ${String(code)}: ${output}`;
}

/** Starts the other program; what it returns ends it. */
function disturb(root: string): () => Promise<void> {
  const loop = 'while :; do echo x >"$1"; sync "$1"; done';
  const child = spawn('sh', ['-c', loop, 'sh', `${root}/other-program`], { stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()));
  return async () => {
    child.kill('SIGKILL');
    await ended;
  };
}
