/**
 * Power-cut replay: builds the disks of each crash state, mounts them as the kernel and reads them as a boot loader
 * would, and asks the checker. After a command has reported success only NEW is right.
 */

import { mkdirSync } from 'node:fs';
import type { Files } from '../checker/files.ts';
import { fatFiles } from '../checker/fat.ts';
import { mountedFiles } from '../checker/mounted.ts';
import { type FileSystem, mount } from '../lib/disks.ts';
import { hostctlCommand, imageReference, judge, type Lab, runToEnd, type Scene, type Verdict } from '../lib/scene.ts';
import type { Violation } from '../sweep.ts';
import { DiskImage } from './disk-image.ts';
import type { Recording } from './recording.ts';
import { crashStates, type CrashState } from './states.ts';

export interface ReplayOptions {
  /** Chosen subsets of open writes at each point. */
  readonly subsets: number;
  /** Take every Nth state only. */
  readonly stride?: number;
  /** Run the command again on every Nth state; never when absent. */
  readonly againEvery?: number;
  /** Stop at the first violation: enough for a mutant. */
  readonly stopAtFirst?: boolean;
}

export interface ReplayResult {
  readonly states: number;
  readonly violations: readonly Violation[];
}

/** How a boot loader's driver, which replays no journal, is stood in for. */
const WITHOUT_REPLAY: Readonly<Record<Exclude<FileSystem, 'vfat'>, string>> = {
  ext4: 'ro,noload',
  xfs: 'ro,norecovery,nouuid',
  btrfs: 'ro,rescue=nologreplay',
};

export async function replay(
  lab: Lab,
  scene: Scene,
  recording: Recording,
  options: ReplayOptions,
): Promise<ReplayResult> {
  const directory = `${lab.directory}/replay`;
  mkdirSync(directory, { recursive: true });
  const root = new DiskImage(scene.disks.root, recording, 0);
  const boot = new DiskImage(scene.disks.boot, recording, 1);
  const violations: Violation[] = [];
  let index = 0;
  let states = 0;
  for (const state of crashStates(recording, [scene.types.root, scene.types.boot], options.subsets)) {
    root.advance(state.flushed[0] ?? 0);
    boot.advance(state.flushed[1] ?? 0);
    index += 1;
    if (options.stride !== undefined && index % options.stride !== 0) continue;
    states += 1;
    const again = options.againEvery !== undefined && states % options.againEvery === 0;
    const problem = await tryState(lab, scene, directory, { root, boot }, state, again);
    if (problem === undefined) continue;
    violations.push({
      command: scene.command.name,
      fault: `power cut at event ${state.at}, ${state.choice} of the open writes`,
      call: state.ended ? 'after exit 0' : 'while running',
      problem,
    });
    if (options.stopAtFirst) break;
  }
  return { states, violations };
}

async function tryState(
  lab: Lab,
  scene: Scene,
  directory: string,
  disks: { root: DiskImage; boot: DiskImage },
  state: CrashState,
  again: boolean,
): Promise<string | undefined> {
  const images = { root: `${directory}/root.img`, boot: `${directory}/boot.img` };
  disks.root.with(state.open[0] ?? [], () => disks.root.save(images.root));
  const fat = disks.boot.with(state.open[1] ?? [], (bytes) => {
    if (scene.types.boot === 'vfat') return Buffer.from(bytes);
    disks.boot.save(images.boot);
    return undefined;
  });
  const wrong = (view: string, { answer, reason }: Verdict): string | undefined => {
    if (answer === 'BAD') return `${view}: BAD: ${reason ?? ''}`;
    return state.ended && answer === 'OLD' ? `${view}: the change is lost after exit 0` : undefined;
  };
  try {
    return await withMount(images.root, `${directory}/root`, '', async (root) => {
      if (fat) return wrong('as firmware reads', judge(scene, { boot: fatFiles(fat), bootDir: '', root }));
      const options = WITHOUT_REPLAY[scene.types.boot as Exclude<FileSystem, 'vfat'>];
      const unreplayed = state.tearsBlocks
        ? undefined
        : await withMount(images.boot, `${directory}/boot`, options, (boot) =>
            wrong('as a boot loader reads', judge(scene, { boot, bootDir: '', root })),
          );
      if (unreplayed !== undefined) return unreplayed;
      return withMount(images.boot, `${directory}/boot`, '', async (boot) => {
        const replayed = wrong('journal replayed', judge(scene, { boot, bootDir: '', root }));
        if (replayed !== undefined || !again) return replayed;
        const at = { root: `${directory}/root`, boot: `${directory}/boot` };
        const { code, output } = await runToEnd(hostctlCommand(lab, at, scene.command.args(imageReference(lab))));
        if (code !== 0) return `run again it ended with ${String(code)}: ${output}`;
        const { answer, reason } = judge(scene, { boot, bootDir: '', root });
        return answer === 'NEW' ? undefined : `run again it is ${answer}: ${reason ?? ''}`;
      });
    });
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

async function withMount<T>(
  image: string,
  at: string,
  options: string,
  use: (files: Files) => T | Promise<T>,
): Promise<T> {
  const unmount = await mount(image, at, options);
  try {
    return await use(mountedFiles(at));
  } finally {
    await unmount();
  }
}
