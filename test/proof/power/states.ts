/**
 * Which disks a power cut can leave: everything flushed is there, and of each write since the last flush of its disk
 * the whole, nothing, or any of its sectors. Every point of the recording is taken with all and with none of the open
 * writes, and with a bounded number of chosen ones.
 */

import { createHash } from 'node:crypto';
import type { FileSystem } from '../lib/disks.ts';
import type { Event, Recording } from './recording.ts';
import { BLOCK, tearUnit } from './tearing.ts';

/** Place of the boot disk in a recording. */
const BOOT = 1;

/** One crash state of all disks. */
export interface CrashState {
  /** Number of events before the cut. */
  readonly at: number;
  /** Whether the command had reported success by then. */
  readonly ended: boolean;
  /** How the open writes were chosen, for the report. */
  readonly choice: string;
  /**
   * Whether blocks are torn inside. Only a journal mends that: without replay a directory block of which half is new is
   * nobody's promise, so such a state is no matter for a boot loader on a journalled file system.
   */
  readonly tearsBlocks: boolean;
  /** For each disk: the writes on top of what was flushed, in order. */
  readonly open: readonly (readonly Patch[])[];
  /** For each disk: how many events of the recording are flushed on it. */
  readonly flushed: readonly number[];
  /** For each disk a name of its exact content. */
  readonly keys: readonly string[];
}

export interface Patch {
  readonly offset: number;
  readonly data: Buffer;
}

type Write = Event & { readonly kind: 'write' };
/** Which parts of an open write are there, as ranges in it. */
type Choose = (write: Write, index: number, count: number) => readonly (readonly [from: number, to: number])[];

interface Choice {
  readonly name: string;
  readonly choose: Choose;
  readonly tearsBlocks: boolean;
}

const ALL: Choose = ({ data }) => [[0, data.length]];
const NONE: Choose = () => [];

/**
 * Every distinct crash state of a recording.
 *
 * @param types file system of each disk
 * @param subsets how many chosen subsets to take at each point that has open writes: on all disks at once, and on the
 *   boot disk with the root whole
 */
export function* crashStates(
  recording: Recording,
  types: readonly FileSystem[],
  subsets: { readonly all: number; readonly boot: number },
  seed = 1,
): Generator<CrashState> {
  const random = randomNumbers(seed);
  const flushed = types.map(() => 0);
  const open: OpenWrite[][] = types.map(() => []);
  const seen = new Set<string>();
  for (let at = 0; at <= recording.events.length; at += 1) {
    const event = at === 0 ? undefined : recording.events[at - 1];
    if (event?.kind === 'write') open[event.device]?.push({ index: at - 1, write: event });
    if (event?.kind === 'flush') {
      flushed[event.device] = at;
      open[event.device] = [];
    }
    const choices: Choice[] = [
      { name: 'all', choose: ALL, tearsBlocks: false },
      { name: 'none', choose: NONE, tearsBlocks: false },
    ];
    if (open.some((writes) => writes.length > 0)) {
      for (let i = 0; i < subsets.all; i += 1) choices.push(chosen(random, types));
    }
    if (open[BOOT]?.length) {
      for (let i = 0; i < subsets.boot; i += 1) choices.push(onBootOnly(chosen(random, types)));
    }
    for (const choice of choices) {
      const state = build(recording, at, choice, flushed, open);
      const key = state.keys.join('/') + String(state.ended);
      if (seen.has(key)) continue;
      seen.add(key);
      yield state;
    }
  }
}

interface OpenWrite {
  /** Place in the recording. */
  readonly index: number;
  readonly write: Write;
}

function build(
  recording: Recording,
  at: number,
  { name, choose, tearsBlocks }: Choice,
  flushed: readonly number[],
  open: readonly (readonly OpenWrite[])[],
): CrashState {
  const patches: Patch[][] = [];
  const keys: string[] = [];
  open.forEach((writes, device) => {
    const hash = createHash('sha1').update(`${flushedWrites(recording, device, flushed[device] ?? 0)}`);
    const list: Patch[] = [];
    writes.forEach(({ index, write }, i) => {
      for (const [from, to] of choose(write, i, writes.length)) {
        list.push({ offset: write.offset + from, data: write.data.subarray(from, to) });
        hash.update(` ${index}:${from}-${to}`);
      }
    });
    patches.push(list);
    keys.push(hash.digest('hex'));
  });
  const ended = at >= recording.endedAt;
  return { at, ended, choice: name, tearsBlocks, open: patches, flushed: [...flushed], keys };
}

/** Number of writes to a disk among the first `count` events: flushes without writes between make no new state. */
function flushedWrites({ events }: Recording, device: number, count: number): number {
  let writes = 0;
  for (let i = 0; i < count; i += 1) {
    const event = events[i];
    if (event?.kind === 'write' && event.device === device) writes += 1;
  }
  return writes;
}

function onBootOnly({ name, choose, tearsBlocks }: Choice): Choice {
  return {
    name: `${name} on the boot disk`,
    tearsBlocks,
    choose: (write, i, count) => (write.device === BOOT ? choose : ALL)(write, i, count),
  };
}

/** One way to lose writes: most of them there, few of them there, one missing, one alone, or all torn. */
function chosen(random: () => number, types: readonly FileSystem[]): Choice {
  const pick = random();
  const some = (name: string, choose: Choose): Choice => ({ name, choose, tearsBlocks: false });
  switch (Math.floor(random() * 6)) {
    case 0:
      return some('all but one', (write, i, count) => (i === Math.floor(pick * count) ? [] : ALL(write, i, count)));
    case 1:
      return some('one alone', (write, i, count) => (i === Math.floor(pick * count) ? ALL(write, i, count) : []));
    case 2:
      return some('some', (write, i, count) => (random() < pick ? ALL(write, i, count) : []));
    case 3:
      return some('the last first', (write, i, count) => (i >= Math.floor(pick * count) ? ALL(write, i, count) : []));
    case 4:
      return some('torn between blocks', (write) => torn(write, () => BLOCK, pick, random));
    default:
      return {
        name: 'torn',
        tearsBlocks: true,
        choose: (write) => torn(write, (at, data) => tearUnit(types[write.device] ?? 'vfat', at, data), pick, random),
      };
  }
}

/** Pieces of a write, cut where the disk has borders of its unit, each there with probability `keep`. */
function torn(
  { offset, data }: Write,
  unitAt: (offset: number, data: Buffer) => number,
  keep: number,
  random: () => number,
): [number, number][] {
  const kept: [number, number][] = [];
  for (let from = 0; from < data.length;) {
    const unit = unitAt(offset + from, data.subarray(from));
    const to = Math.min(data.length, from + unit - ((offset + from) % unit));
    if (random() < keep) kept.push([from, to]);
    from = to;
  }
  return kept;
}

/** mulberry32: the same states for the same seed. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4_294_967_296;
  };
}
