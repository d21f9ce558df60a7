/**
 * Power-cut replay: builds the disks of each crash state, mounts them as the kernel and reads them as a boot loader
 * would, and asks the checker. After a command has reported success only NEW is right.
 */

import { mkdirSync, rmSync } from 'node:fs';
import { damagedObjects, type Host } from '../checker/check.ts';
import { fatFiles } from '../checker/fat.ts';
import { type Files, rememberedFiles } from '../checker/files.ts';
import { mountedFiles } from '../checker/mounted.ts';
import { type FileSystem, mount } from '../lib/disks.ts';
import { ALGORITHM } from '../commands.ts';
import { judge, type Lab, type Scene } from '../lib/scene.ts';
import { recover } from '../recovery.ts';
import type { Violation } from '../sweep.ts';
import { DiskImage } from './disk-image.ts';
import type { Recording } from './recording.ts';
import { crashStates, type CrashState } from './states.ts';

export interface ReplayOptions {
  /** Chosen subsets of open writes at each point, see `crashStates`. */
  readonly subsets: { readonly all: number; readonly boot: number };
  /** Take every Nth state only. */
  readonly stride?: number;
  /** Only the moment at which the command has reported success: the shortest way to see what was not durable. */
  readonly endOnly?: boolean;
  /** Run the command again on every Nth state, besides those with a damaged object. */
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
  const stage = new Stage(lab, scene, recording);
  const violations: Violation[] = [];
  let index = 0;
  let states = 0;
  try {
    for (const state of crashStates(recording, [scene.types.root, scene.types.boot], options.subsets)) {
      stage.advance(state);
      if (options.endOnly && state.at !== recording.endedAt) continue;
      index += 1;
      if (options.stride !== undefined && index % options.stride !== 0) continue;
      states += 1;
      const problem = await stage.check(state, options.againEvery !== undefined && states % options.againEvery === 0);
      if (problem === undefined) continue;
      violations.push({
        command: scene.command.name,
        fault: `power cut at event ${state.at}, ${state.choice} of the open writes (${scene.types.root}, ${scene.types.boot})`,
        call: state.ended ? 'after exit 0' : 'while running',
        problem,
      });
      if (options.stopAtFirst) break;
    }
  } finally {
    await stage.close();
  }
  return { states, violations };
}

/** The disks of one recording, and their mounts, which stay as long as the next state has the same content. */
class Stage {
  readonly #lab: Lab;
  readonly #scene: Scene;
  readonly #disks: { readonly root: DiskImage; readonly boot: DiskImage };
  readonly #root: View;
  /** The boot disk as the kernel mounts it, and as a boot loader reads it. */
  readonly #boot: View;
  readonly #loader: View;

  constructor(lab: Lab, scene: Scene, recording: Recording) {
    const directory = `${lab.directory}/replay`;
    mkdirSync(directory, { recursive: true });
    this.#lab = lab;
    this.#scene = scene;
    this.#disks = {
      root: new DiskImage(scene.disks.root, recording, 0),
      boot: new DiskImage(scene.disks.boot, recording, 1),
    };
    const { boot } = scene.types;
    this.#root = new View(`${directory}/root`, '');
    this.#boot = new View(`${directory}/boot`, boot === 'xfs' ? 'nouuid' : '');
    this.#loader = new View(`${directory}/loader`, boot === 'vfat' ? '' : WITHOUT_REPLAY[boot]);
  }

  advance({ flushed }: CrashState): void {
    this.#disks.root.advance(flushed[0] ?? 0);
    this.#disks.boot.advance(flushed[1] ?? 0);
  }

  /** What is wrong in this state; undefined when nothing is. */
  async check(state: CrashState, again: boolean): Promise<string | undefined> {
    const wrong = (view: string, host: Host): string | undefined => {
      const { answer, reason } = judge(this.#scene, host);
      if (answer === 'BAD') return `${view}: BAD: ${reason ?? ''}`;
      const isLost = state.ended && answer === 'OLD' && this.#scene.command.endures?.(host) !== true;
      return isLost ? `${view}: the change is lost after exit 0` : undefined;
    };
    try {
      const root = await this.#view(this.#root, 0, state);
      if (this.#scene.types.boot === 'vfat') {
        return this.#disks.boot.with(state.open[1] ?? [], (disk) =>
          wrong('as firmware reads', { boot: fatFiles(disk), bootDir: '', root }),
        );
      }
      // A host that boots nothing yet has nothing to lose: while the first entries are written in place, a loader may
      // find their directory illegible.
      const isLoaderAsked = !state.tearsBlocks && (state.ended || this.#scene.expected.old !== undefined);
      if (isLoaderAsked) {
        const loader = await this.#view(this.#loader, 1, state);
        const unreplayed = wrong('as a boot loader reads', { boot: loader, bootDir: '', root });
        if (unreplayed !== undefined) return unreplayed;
      }
      const boot = await this.#view(this.#boot, 1, state);
      const replayed = wrong('journal replayed', { boot, bootDir: '', root });
      // Damage that a command could take for sound is where running it again is worth its time.
      const isTelling = again || (!state.ended && damagedObjects(root, ALGORITHM).length > 0);
      return replayed === undefined && isTelling ? await this.#recover() : replayed;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  async #recover(): Promise<string | undefined> {
    const problem = await recover(this.#lab, this.#scene, { root: this.#root.at, boot: this.#boot.at });
    await this.#root.close();
    await this.#boot.close();
    return problem;
  }

  #view(view: View, device: 0 | 1, { keys, open }: CrashState): Promise<Files> {
    const disk = device === 0 ? this.#disks.root : this.#disks.boot;
    return view.show(keys[device] ?? '', (path) => disk.with(open[device] ?? [], () => disk.save(path)));
  }

  async close(): Promise<void> {
    for (const view of [this.#boot, this.#loader, this.#root]) await view.close();
  }
}

/** One way to look at one disk: an image file of its own, mounted while its content is the one that is asked for. */
class View {
  readonly at: string;
  readonly #options: string;
  #count = 0;
  #shown: { readonly key: string; readonly files: Files; readonly unmount: () => Promise<void> } | undefined;

  constructor(at: string, options: string) {
    this.at = at;
    this.#options = options;
  }

  async show(key: string, save: (path: string) => void): Promise<Files> {
    if (this.#shown?.key === key) return this.#shown.files;
    await this.close();
    this.#count += 1;
    // A new file each time: a loop device goes away a moment after its mount, and until then remembers its file's bytes.
    const image = `${this.at}-${this.#count}.img`;
    save(image);
    const unmount = await mount(image, this.at, this.#options).finally(() => rmSync(image));
    const files = rememberedFiles(mountedFiles(this.at));
    this.#shown = { key, files, unmount };
    return files;
  }

  async close(): Promise<void> {
    const shown = this.#shown;
    this.#shown = undefined;
    await shown?.unmount();
  }
}
