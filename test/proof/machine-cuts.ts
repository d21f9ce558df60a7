/**
 * Power cuts of a machine that the tests boot anyway: its disk is recorded while steps run, every state of its boot
 * partition is checked, and the disk can be had as a cut at the end of the last step would have left it.
 */

import { open, readFile, writeFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { run } from '../../scripts/lib/run.ts';
import { hostPartitions, type HostPartitions } from '../vm/lib/disk.ts';
import type { Step } from '../vm/lib/guest.ts';
import type { MachineDisk } from '../vm/lib/qemu.ts';
import { defaultEntry, programOf, readEntries } from './checker/entries.ts';
import { identityOf } from './checker/check.ts';
import { fatFiles } from './checker/fat.ts';
import { Damage, join } from './checker/files.ts';
import { compile } from './lib/tools.ts';
import { DiskImage } from './power/disk-image.ts';
import { DEVICES, parseWholeDisk, type Recording, startRecorder } from './power/recording.ts';
import { crashStates } from './power/states.ts';

const MARK_SERIAL = 'mark';
const BOOT = DEVICES.indexOf('boot');
const END = 'end of the recorded steps'.padEnd(512);
/** Choices of the open writes at every point. */
const SUBSETS = { all: 0, boot: 20 };

/** The steps as they are to be recorded: up to the moment at which the last one has ended. */
export function markedSteps(steps: readonly Step[]): Step[] {
  const mark = (name: string, text: string): Step => ({
    name,
    run: `printf %-512s '${text}' | dd of=/dev/disk/by-id/virtio-${MARK_SERIAL} bs=512 iflag=fullblock oflag=direct`,
  });
  return [mark('mark-begin', 'begin'), ...steps, mark('mark-end', END.trimEnd())];
}

export interface CutMachine {
  readonly disk: string;
  readonly partitions: HostPartitions;
  readonly recording: Recording;
}

/**
 * Records a machine; its disk stays as it was, for `cutPower`.
 *
 * @param boot boots the machine with these disks, the system disk first, and runs `markedSteps` in it
 */
export async function recordMachine<T>(
  folder: string,
  disk: string,
  boot: (disks: readonly MachineDisk[]) => Promise<T>,
): Promise<CutMachine & { readonly result: T }> {
  const mark = `${folder}/mark.img`;
  await writeFile(mark, Buffer.alloc(65_536));
  const recorder = await startRecorder(await compile('power/recorder.c'), folder, { disk, mark });
  let result: T;
  try {
    result = await boot([
      { path: `${recorder.at}/disk`, direct: true },
      { path: `${recorder.at}/mark`, serial: MARK_SERIAL, direct: true },
    ]);
  } finally {
    await recorder.close();
  }
  const log = await readFile(recorder.log);
  const end = log.indexOf(END);
  if (end < 0) throw new Error('The recording has no end');
  const partitions = await hostPartitions(disk);
  return { result, disk, partitions, recording: parseWholeDisk(log.subarray(0, end - RECORD_HEADER), partitions) };
}

/** Bytes before the data of a record, see `power/recorder.c`. */
const RECORD_HEADER = 16;

/** What a boot loader starts by itself: a deployment, and the content of its kernel and initramfs. */
interface Started {
  readonly deployment: string;
  readonly programs: readonly Buffer[];
}

/** Throws `Damage` where something of it is missing. */
function startedFrom(disk: Buffer): Started {
  const boot = fatFiles(disk);
  const entry = defaultEntry(readEntries(boot, ''));
  if (entry === undefined) throw new Damage('nothing is started');
  const programs = [programOf(entry), ...(entry.keys.get('initrd') ?? [])].map((path) => {
    const content = boot.read(join(path));
    if (content === undefined) throw new Damage(`${entry.fileName}: ${path} is missing`);
    return content;
  });
  return { deployment: identityOf(entry), programs };
}

/**
 * Every state of the FAT boot partition that a power cut during the steps, or right after them, can leave.
 *
 * @returns how many there are, and of each that starts neither what was started before nor what is at the end, or not
 * the latter after the steps, which one it is
 */
export async function checkBootPartition(
  folder: string,
  { disk, partitions, recording }: CutMachine,
): Promise<{ states: number; problems: string[] }> {
  const events = recording.events.filter((event) => event.kind !== 'mark' && event.device === BOOT);
  const cuts: Recording = { before: recording.before, events, endedAt: events.length };
  const path = `${folder}/boot.img`;
  const { start, size } = partitions.boot;
  await run('dd', [
    `if=${disk}`,
    `of=${path}`,
    'bs=1M',
    'iflag=skip_bytes,count_bytes',
    `skip=${start}`,
    `count=${size}`,
  ]);
  const image = new DiskImage(path, cuts, BOOT);
  const before = image.with([], startedFrom);
  const atEnd = new DiskImage(path, cuts, BOOT);
  atEnd.advance(events.length);
  const after = atEnd.with([], startedFrom);
  if (before.deployment === after.deployment) throw new Error('The steps changed nothing');

  const problems: string[] = [];
  let states = 0;
  for (const state of crashStates(cuts, ['ext4', 'vfat'], SUBSETS)) {
    states += 1;
    image.advance(state.flushed[BOOT] ?? 0);
    const problem = image.with(state.open[BOOT] ?? [], (bytes) => {
      try {
        const found = startedFrom(bytes);
        if (isDeepStrictEqual(found, after)) return undefined;
        if (!isDeepStrictEqual(found, before)) return `starts something else, or not whole: ${found.deployment}`;
        return state.ended ? 'the change is lost' : undefined;
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    });
    if (problem !== undefined) problems.push(`event ${state.at}, ${state.choice} of the open writes: ${problem}`);
  }
  return { states, problems };
}

/** Makes the disk what a power cut right after the steps leaves of it, with none of the writes that were still open. */
export async function cutPower({ disk, partitions, recording }: CutMachine): Promise<void> {
  const { before, events } = recording;
  const file = await open(disk, 'r+');
  try {
    for (const [device, name] of DEVICES.entries()) {
      const flushed = events.findLastIndex((event) => event.kind === 'flush' && event.device === device);
      for (const event of [...before, ...events.slice(0, flushed + 1)]) {
        if (event.kind !== 'write' || event.device !== device) continue;
        await file.write(event.data, 0, event.data.length, partitions[name].start + event.offset);
      }
    }
  } finally {
    await file.close();
  }
}
