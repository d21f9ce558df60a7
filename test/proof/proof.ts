/**
 * The whole proof, or a slice of it, as a list of parts: sweeps, power cuts, FAT in a guest, mutants, as a plan says.
 * Used by `npm run proof` and by the tests.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { projectPath } from '../../scripts/lib/project.ts';
import { run } from '../../scripts/lib/run.ts';
import { BOOTED_ROOT, type Command, commandNamed } from './commands.ts';
import { runTogether } from './concurrency.ts';
import { damageAll } from './damage.ts';
import { fillDisks, type FullDisksOptions } from './full-disks.ts';
import { fatParts, isForGuest, mutantOutcome } from './fat.ts';
import type { FileSystem } from './lib/disks.ts';
import { makeImages } from './lib/oci-image.ts';
import { type ProofRegistry, serveImages } from './lib/registry.ts';
import { type Lab, makeScene, type Scene } from './lib/scene.ts';
import { bundleHostctl, compile, programName } from './lib/tools.ts';
import { BOOT_IS_ESP, type Mutant, mutantNamed } from './mutants.ts';
import type { KilledFirst, Plan } from './plan.ts';
import { CARELESS_ROOT, record, type RecordOptions } from './power/recording.ts';
import { replay, type ReplayOptions, type ReplayResult } from './power/replay.ts';
import { realBootParts } from './real-boots.ts';
import { type Outcome, type Part, type Row, runKept, treeOf } from './results.ts';
import { countCalls, ERRORS, type Fault, KILLS, sweep, type Violation } from './sweep.ts';

type Say = (line: string) => void;

export interface ProveOptions {
  readonly say: Say;
  /** File that the outcome of each part is kept in, and found again by a later run on the same tree. */
  readonly keep?: string | undefined;
  /** The proof itself, bundled: what is kept is bound to it and to what hostctl is on a machine. */
  readonly script?: string | undefined;
}

/** What a machine boots with beside the program. */
const SHIPPED_BESIDE = ['dracut', 'systemd', 'scripts/deb'].map((folder) => projectPath(folder));

/** Runs a plan on this machine. Needs root; the FAT part needs QEMU. Nothing is left behind. */
export async function prove(plan: Plan, { say, keep, script }: ProveOptions): Promise<Outcome[]> {
  if (process.getuid?.() !== 0) throw new Error('The proof needs root: it mounts file systems');
  const directory = mkdtempSync('/dev/shm/hostctl-proof-');
  let registry: ProofRegistry | undefined;
  // What is unmounted below it goes from the mount namespaces of others too, which else hold on to a file system.
  await run('mount', ['--bind', directory, directory]);
  await run('mount', ['--make-private', directory]);
  await run('mount', ['--make-shared', directory]);
  try {
    mkdirSync(`${directory}/images`);
    mkdirSync(BOOTED_ROOT, { recursive: true });
    const images = `${directory}/images`;
    const program = await bundleHostctl(directory, 'whole', [BOOT_IS_ESP]);
    await makeImages(images, (reference) => digestOfImage(program, reference));
    registry = await serveImages(images, `${directory}/containers`);
    const lab: Lab = { directory, program, images, registry };
    const tools = { tracer: await compile('tracer/trace.c'), recorder: await compile('power/recorder.c') };
    const tree = treeOf([
      dirname(program),
      ...SHIPPED_BESIDE,
      ...Object.values(tools),
      ...(script === undefined ? [] : [script]),
    ]);
    const boots = plan.realBoots === undefined ? [] : realBootParts(tools.recorder, plan.realBoots, say);
    const outcomes: Outcome[] = [];
    for (const part of [...new Proof(lab, plan, tools).parts(), ...fatParts(lab, plan, tools, say), ...boots]) {
      const { outcomes: found, kept } = await runKept(part, keep, tree);
      outcomes.push(...found);
      for (const { name, row, points, violations } of found) {
        const wrong = row === 'mutants' ? `${violations.length} missed` : `${violations.length} violations`;
        say(`${name}: ${points}, ${wrong}${kept ? ' (kept)' : ''}`);
        for (const one of violations.slice(0, 5)) say(`  ${one.fault}: ${one.call}: ${one.problem}`);
      }
    }
    return outcomes;
  } finally {
    registry?.close();
    // A loop device lets go of its file a moment after its mount.
    await run('umount', ['--recursive', '--lazy', directory]);
    rmSync(directory, { recursive: true, force: true });
  }
}

/** By the program itself; that it is the right one is for others to say. */
async function digestOfImage(program: string, reference: string): Promise<string> {
  return (await run(process.execPath, [program, 'image', 'digest', '--bootable', reference])).trim();
}

function withoutFat(options: FullDisksOptions): FullDisksOptions {
  return { ...options, pairs: options.pairs.filter(({ boot }) => boot !== 'vfat') };
}

/** Of one mutant, until it is caught. */
const MAX_RECORDINGS = 8;

/** The parts that need no guest. */
class Proof {
  readonly #lab: Lab;
  readonly #plan: Plan;
  readonly #scenes = new Map<string, Scene>();
  readonly #tracer: string;
  readonly #recorder: string;

  constructor(lab: Lab, plan: Plan, { tracer, recorder }: { readonly tracer: string; readonly recorder: string }) {
    this.#lab = lab;
    this.#plan = plan;
    this.#tracer = tracer;
    this.#recorder = recorder;
  }

  parts(): Part[] {
    const { commands, cut, killStride, errorStride, killedFirst, mutants } = this.#plan;
    return [
      ...commands
        .map(commandNamed)
        .flatMap((command) => [
          ...this.#sweeps(command, 'killPoints', KILLS, killStride),
          ...this.#sweeps(command, 'injectedErrors', ERRORS, errorStride),
          ...(cut.includes(command.name) ? this.#powerCuts(command, killedFirst) : []),
        ]),
      ...this.#wholeHosts(),
      ...mutants
        .map(mutantNamed)
        .filter((mutant) => !isForGuest(mutant))
        .map((mutant): Part => ({
          name: `mutant: ${mutant.name}`,
          run: async () => [mutantOutcome(mutant.name, await this.#hunt(mutant))],
        })),
    ];
  }

  /** Those that are no faults at calls and no power cuts. */
  #wholeHosts(): Part[] {
    const { damageStride, fullDisks, concurrency, jobs } = this.#plan;
    const part = (name: string, row: Row, found: () => Promise<Omit<Outcome, 'name' | 'row'>>): Part => ({
      name,
      run: async () => [{ name, row, ...(await found()) }],
    });
    return [
      ...(fullDisks ? [part('full disks', 'fullDisks', () => fillDisks(this.#lab, withoutFat(fullDisks)))] : []),
      ...(damageStride === undefined
        ? []
        : [part('damaged files', 'corruption', () => damageAll(this.#lab, { jobs, stride: damageStride }))]),
      ...(concurrency ? [part('many at a time', 'concurrency', () => runTogether(this.#lab, concurrency))] : []),
    ];
  }

  #sweeps(
    command: Command,
    row: 'killPoints' | 'injectedErrors',
    faults: readonly Fault[],
    stride: number | undefined,
  ): Part[] {
    if (stride === undefined) return [];
    const done = new Set<string>();
    return faults.map((fault) => {
      const name = `${command.name}: ${fault.kind}${fault.sticky ? ' from each call on' : ' at each call'}`;
      const run = async (): Promise<Outcome[]> => {
        const scene = await this.#scene(command, 'ext4', 'ext4');
        const options = { tracer: this.#tracer, jobs: this.#plan.jobs, stride, done };
        return [{ name, row, ...(await sweep(this.#lab, scene, fault, options)) }];
      };
      return { name, run };
    });
  }

  #powerCuts(command: Command, killedFirst: KilledFirst | undefined): Part[] {
    const { power } = this.#plan;
    const afterKills = killedFirst === undefined ? [] : [this.#killedFirst(command, killedFirst)];
    if (!power) return afterKills;
    const part = (what: string, root: FileSystem, boot: FileSystem, options: RecordOptions): Part => {
      const name = `${command.name}: power cuts (${what}, ${boot})`;
      const run = async (): Promise<Outcome[]> => {
        const scene = await this.#scene(command, root, boot);
        const { states, violations } = await this.#recordAndReplay(this.#lab, scene, options, power.options);
        return [{ name, row: 'powerCutStates', points: states, violations }];
      };
      return { name, run };
    };
    const pairs = power.roots.flatMap((root) => power.boots.map((boot) => part(root, root, boot, {})));
    return [...pairs, part('ext4 in writeback mode', 'ext4', 'ext4', CARELESS_ROOT), ...afterKills];
  }

  #killedFirst(command: Command, { stride, last }: KilledFirst): Part {
    const name = `${command.name}: killed, run again, power cut (ext4, ext4)`;
    const run = async (): Promise<Outcome[]> => {
      const scene = await this.#scene(command, 'ext4', 'ext4');
      const calls = await countCalls(this.#lab, scene, { kind: 'kill', sticky: false }, this.#tracer);
      const violations: Violation[] = [];
      let points = 0;
      for (let at = 1; at <= calls; at += 1) {
        if (at <= calls - last && (stride === undefined || at % stride !== 0)) continue;
        const recording = await record(this.#lab, scene, this.#recorder, {
          killedFirst: { tracer: this.#tracer, at },
        });
        if (!recording) break;
        const options: ReplayOptions = { subsets: { all: 0, boot: 0 }, endOnly: true };
        const found = await replay(this.#lab, scene, recording, options);
        points += found.states;
        const when = `killed at ${at}, run again`;
        violations.push(...found.violations.map((one) => ({ ...one, fault: `${when}, ${one.fault}` })));
      }
      return [{ name, row: 'powerCutStates', points, violations }];
    };
    return { name, run };
  }

  async #scene(command: Command, root: FileSystem, boot: FileSystem): Promise<Scene> {
    const key = `${command.name} ${root} ${boot}`;
    const scene = this.#scenes.get(key) ?? (await makeScene(this.#lab, command, { root, boot }));
    this.#scenes.set(key, scene);
    return scene;
  }

  async #recordAndReplay(
    lab: Lab,
    scene: Scene,
    recordOptions: RecordOptions,
    options: ReplayOptions,
  ): Promise<ReplayResult> {
    const recording = await record(lab, scene, this.#recorder, recordOptions);
    if (!recording) throw new Error('Nothing was recorded');
    return replay(lab, scene, recording, options);
  }

  async #hunt({ name, patches, hunt }: Mutant): Promise<boolean> {
    const program = await bundleHostctl(this.#lab.directory, programName(name), [BOOT_IS_ESP, ...patches]);
    const lab = { ...this.#lab, program };
    const scene = (command: string, boot: FileSystem = 'ext4'): Promise<Scene> =>
      this.#scene(commandNamed(command), 'ext4', boot);
    switch (hunt.kind) {
      case 'power': {
        const options: ReplayOptions = { subsets: { all: 4, boot: 0 }, stopAtFirst: true };
        const { violations } = await this.#recordAndReplay(lab, await scene(hunt.command, hunt.boot), {}, options);
        return violations.length > 0;
      }
      case 'power, then again': {
        const options: ReplayOptions = { subsets: { all: 2, boot: 0 }, stopAtFirst: true };
        const prepared = await scene(hunt.command);
        // What the kernel happens to write before it is asked to differs from one recording to the next.
        for (let recordings = 0; recordings < MAX_RECORDINGS; recordings += 1) {
          if ((await this.#recordAndReplay(lab, prepared, CARELESS_ROOT, options)).violations.length > 0) return true;
        }
        return false;
      }
      case 'fault': {
        const fault: Fault = { kind: hunt.fault, sticky: hunt.sticky === true };
        const options = { tracer: this.#tracer, jobs: this.#plan.jobs, stopAtFirst: true, done: new Set<string>() };
        return (await sweep(lab, await scene(hunt.command), fault, options)).violations.length > 0;
      }
      case 'damage':
        return (
          (await damageAll(lab, { ...hunt, jobs: this.#plan.jobs, stride: 1, stopAtFirst: true })).violations.length > 0
        );
      case 'together':
        return (await runTogether(lab, hunt.options)).violations.length > 0;
    }
  }
}
