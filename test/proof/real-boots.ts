/**
 * Real boots after a cut: a machine with firmware, boot loader and fs-verity stages an update and shuts down, all its
 * writes are recorded, and disks as a power cut at some moment would have left them are booted. What comes up must be
 * what `status` says there, whole, and after the shutdown nothing but the update.
 */

import { mkdir, mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildPackage } from '../../scripts/lib/deb.ts';
import type { Loader } from '../vm/lib/debian.ts';
import { hostPartitions, type HostPartitions } from '../vm/lib/disk.ts';
import { type Answers, runGuest, statusOf } from '../vm/lib/guest.ts';
import { copyDisk, installedDisk, LAYOUT_SERIAL, MOUNT_LAYOUT } from '../vm/lib/installed-disk.ts';
import { testImage } from '../vm/lib/test-image.ts';
import { DEVICES, parseWholeDisk, type Recording, startRecorder } from './power/recording.ts';
import { crashStates, type CrashState } from './power/states.ts';
import type { Part } from './results.ts';
import type { Violation } from './sweep.ts';

export interface RealBootsOptions {
  /** Each is recorded anew, since no two shutdowns write the same. */
  readonly recordings: number;
  /** Boots of each. */
  readonly boots: number;
}

type Say = (line: string) => void;

const LOADERS: readonly Loader[] = ['systemd-boot', 'grub'];
const FIRMWARE = { 'systemd-boot': 'uefi', grub: 'bios' } as const;
const DEADLINE_MS = 1_200_000;
const MARK_SERIAL = 'mark';
/** Half of the boots are of states in which writes to the boot partition are open: there is the commit. */
const SUBSETS = { all: 2, boot: 8 };

/** One part for each recording. */
export function realBootParts(recorder: string, { recordings, boots }: RealBootsOptions, say: Say): Part[] {
  return LOADERS.flatMap((loader) =>
    Array.from({ length: recordings }, (_, index): Part => {
      const name = `real boots (${loader}, recording ${index + 1})`;
      return {
        name,
        async run() {
          const folder = await mkdtemp(join(tmpdir(), 'hostctl-boots-'));
          try {
            const violations = await bootAfterCuts(folder, { loader, recorder, boots, seed: index + 1, say });
            return [{ name, row: 'realBoots', points: boots, violations }];
          } finally {
            await rm(folder, { recursive: true });
          }
        },
      };
    }),
  );
}

interface Machine {
  readonly loader: Loader;
  readonly recorder: string;
  readonly boots: number;
  readonly seed: number;
  readonly say: Say;
}

async function bootAfterCuts(folder: string, machine: Machine): Promise<Violation[]> {
  const { loader, boots, seed, say } = machine;
  const image = await testImage(await buildPackage(folder), say, { loader });
  const installed = await installedDisk(image, say, loader);
  const partitions = await hostPartitions(installed.path);
  const recording = await recordUpdate(folder, installed.path, image.disk, partitions, machine);
  const states = sample([...crashStates(recording, ['ext4', 'vfat'], SUBSETS, seed)], boots);
  const violations: Violation[] = [];
  for (const [index, state] of states.entries()) {
    const own = `${folder}/${index}`;
    await mkdir(own);
    const disk = await copyDisk(installed.path, `${own}/disk.img`);
    await writeState(disk, partitions, recording, state);
    const problem = await bootOne(own, disk, loader, state);
    const fault = `power cut at event ${state.at} of ${recording.events.length}, ${state.choice} of the open writes`;
    say(`${loader}, ${fault}: ${problem ?? 'boots'}`);
    if (problem !== undefined) violations.push({ command: 'upgrade', fault, call: loader, problem });
    await rm(own, { recursive: true });
  }
  return violations;
}

/** The writes of a machine that stages version 2 and shuts down, on its root and its boot partition. */
async function recordUpdate(
  folder: string,
  base: string,
  layout: string,
  partitions: HostPartitions,
  { loader, recorder: program, say }: Machine,
): Promise<Recording> {
  const mark = `${folder}/mark.img`;
  await writeFile(mark, Buffer.alloc(65_536));
  const recorder = await startRecorder(program, folder, { disk: base, mark });
  try {
    const { seconds } = await runGuest({
      folder,
      name: 'recorded',
      firmware: FIRMWARE[loader],
      disks: [
        { path: `${recorder.at}/disk`, direct: true },
        { path: layout, serial: LAYOUT_SERIAL },
        { path: `${recorder.at}/mark`, serial: MARK_SERIAL, direct: true },
      ],
      deadlineMs: DEADLINE_MS,
      shutDown: true,
      steps: [
        { name: 'layout', run: MOUNT_LAYOUT },
        { name: 'begin', run: `dd if=/dev/zero of=/dev/disk/by-id/virtio-${MARK_SERIAL} bs=512 count=1 oflag=direct` },
        { name: 'upgrade', run: 'hostctl upgrade --tag v2' },
      ],
    });
    say(`${loader}: an update was recorded in ${seconds} s`);
  } finally {
    await recorder.close();
  }
  return parseWholeDisk(await readFile(recorder.log), partitions);
}

/** `count` states: one half evenly from all, the other from those with open writes on the boot partition and the end. */
function sample(states: readonly CrashState[], count: number): CrashState[] {
  const telling = states.filter(({ open: [, boot], ended }) => ended || (boot?.length ?? 0) > 0);
  const half = Math.floor(count / 2);
  return [...spread(states, count - half), ...spread(telling, half)];
}

/** Evenly, the last one among them. */
function spread<T>(list: readonly T[], count: number): T[] {
  return Array.from({ length: count }, (_, index) => list[Math.floor(((index + 1) * list.length) / count) - 1]).filter(
    (one) => one !== undefined,
  );
}

async function writeState(
  disk: string,
  partitions: HostPartitions,
  { before, events }: Recording,
  { flushed, open: patches }: CrashState,
): Promise<void> {
  const file = await open(disk, 'r+');
  try {
    for (const [device, name] of DEVICES.entries()) {
      const done = [...before, ...events.slice(0, flushed[device])];
      const writes = done.flatMap((event) => (event.kind === 'write' && event.device === device ? event : []));
      for (const { offset, data } of [...writes, ...(patches[device] ?? [])]) {
        await file.write(data, 0, data.length, partitions[name].start + offset);
      }
    }
  } finally {
    await file.close();
  }
}

/** What is wrong with what comes up; undefined when nothing is. */
async function bootOne(
  folder: string,
  disk: string,
  loader: Loader,
  { ended }: CrashState,
): Promise<string | undefined> {
  try {
    const { answers } = await runGuest({
      folder,
      name: 'cut',
      firmware: FIRMWARE[loader],
      disks: [{ path: disk }],
      deadlineMs: DEADLINE_MS,
      steps: [
        { name: 'cmdline', run: 'cat /proc/cmdline' },
        { name: 'status', run: 'hostctl status --json' },
        { name: 'fsck', run: 'hostctl fsck' },
      ],
    });
    return judgeBoot(answers, ended);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function judgeBoot(answers: Answers, ended: boolean): string | undefined {
  const { booted, next, deployments } = statusOf(answers);
  const digest = deployments.find(({ id }) => id === booted)?.composefs.digest ?? null;
  if (digest === null) return `status does not know what booted: ${answers.ok('status')}`;
  if (!answers.ok('cmdline').includes(digest)) return `status says ${digest} booted, not: ${answers.ok('cmdline')}`;
  if (booted !== next) return `status says ${String(next)} boots, and ${String(booted)} did`;
  if (ended && booted !== 2) return 'the update is lost after the shutdown';
  return undefined;
}
