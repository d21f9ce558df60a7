/**
 * The whole proof, or a slice of it: sweeps, power cuts, FAT in a guest, mutants, as a plan says. Used by
 * `npm run proof` and by the tests.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { type Command, COMMANDS } from './commands.ts';
import type { FileSystem } from './lib/disks.ts';
import { makeImages } from './lib/oci-image.ts';
import { type Lab, makeScene, type Scene } from './lib/scene.ts';
import { bundleHostctl, compile } from './lib/tools.ts';
import { type Mutant, MUTANTS, WITHOUT_VERITY } from './mutants.ts';
import { type GuestJob, type GuestRecording, recordInGuest } from './power/guest.ts';
import { sceneOfGuest } from './power/guest-scene.ts';
import { CARELESS_ROOT, record, type RecordOptions } from './power/recording.ts';
import { replay, type ReplayOptions } from './power/replay.ts';
import { countCalls, ERRORS, type Fault, KILLS, sweep, type Violation } from './sweep.ts';

export interface Plan {
  /** By name. */
  readonly commands: readonly string[];
  /** Every Nth call; 1 is all of them. Undefined leaves the part out. */
  readonly killStride: number | undefined;
  readonly errorStride: number | undefined;
  readonly power:
    | {
        readonly roots: readonly FileSystem[];
        readonly boots: readonly FileSystem[];
        readonly options: ReplayOptions;
        /** Kill, run again, cut: every Nth call of the first run. */
        readonly killedFirstStride: number | undefined;
      }
    | undefined;
  /** FAT boot partitions, recorded in a guest. */
  readonly fat:
    | {
        readonly roots: readonly FileSystem[];
        readonly options: ReplayOptions;
        /** Kill, run again, cut: so many of the last calls of a first `deploy`, where the boot partition is written. */
        readonly killedFirst: number;
      }
    | undefined;
  /** By name. */
  readonly mutants: readonly string[];
  readonly jobs: number;
}

const ALL_COMMANDS = COMMANDS.map(({ name }) => name);

export const FULL: Plan = {
  commands: ALL_COMMANDS,
  killStride: 1,
  errorStride: 1,
  power: {
    roots: ['ext4', 'xfs', 'btrfs'],
    boots: ['ext4', 'xfs'],
    options: { subsets: { all: 2, boot: 0 }, againEvery: 25 },
    killedFirstStride: 3,
  },
  fat: { roots: ['ext4', 'xfs', 'btrfs'], options: { subsets: { all: 4, boot: 400 } }, killedFirst: 36 },
  mutants: MUTANTS.map(({ name }) => name),
  jobs: 2,
};

/** A few minutes: enough that no broken step goes unseen for long. */
export const SLICE: Plan = {
  commands: ['deploy', 'rollback', 'image pull'],
  killStride: 12,
  errorStride: 40,
  power: {
    roots: ['ext4'],
    boots: ['ext4'],
    options: { subsets: { all: 1, boot: 0 }, stride: 6, againEvery: 20 },
    killedFirstStride: 40,
  },
  fat: undefined,
  // Those that a fault at a call finds, the same every time; power cuts find theirs only with more states than this.
  mutants: ['entry before its kernel', 'short write ignored'],
  jobs: 2,
};

export interface Tally {
  points: number;
  readonly violations: Violation[];
}

export interface ProofResult {
  readonly killPoints: Tally;
  readonly injectedErrors: Tally;
  readonly powerCutStates: Tally;
  readonly fatStates: Tally;
  readonly mutants: { readonly points: number; readonly missed: readonly string[] };
}

type Say = (line: string) => void;

/** Runs a plan on this machine. Needs root; the FAT part needs QEMU. Nothing is left behind. */
export async function prove(plan: Plan, say: Say): Promise<ProofResult> {
  const directory = mkdtempSync('/dev/shm/hostctl-proof-');
  try {
    mkdirSync(`${directory}/images`);
    await makeImages(`${directory}/images`);
    const lab: Lab = { directory, program: await bundleHostctl('whole'), images: `${directory}/images` };
    return await new Proof(lab, plan, say).run();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

class Proof {
  readonly #lab: Lab;
  readonly #plan: Plan;
  readonly #say: Say;
  readonly #scenes = new Map<string, Scene>();
  #tracer = '';
  #recorder = '';

  constructor(lab: Lab, plan: Plan, say: Say) {
    this.#lab = lab;
    this.#plan = plan;
    this.#say = say;
  }

  async run(): Promise<ProofResult> {
    this.#tracer = await compile('tracer/trace.c');
    this.#recorder = await compile('power/recorder.c');
    const result: ProofResult = {
      killPoints: { points: 0, violations: [] },
      injectedErrors: { points: 0, violations: [] },
      powerCutStates: { points: 0, violations: [] },
      fatStates: { points: 0, violations: [] },
      mutants: { points: 0, missed: [] },
    };
    for (const command of this.#plan.commands.map(commandNamed)) {
      await this.#sweepAll(command, KILLS, this.#plan.killStride, result.killPoints);
      await this.#sweepAll(command, ERRORS, this.#plan.errorStride, result.injectedErrors);
      await this.#cutPower(command, result.powerCutStates);
    }
    const mutants = this.#plan.mutants.map(mutantNamed);
    const missed = await this.#inGuest(mutants, result.fatStates);
    for (const mutant of mutants) {
      if (isForGuest(mutant)) continue;
      this.#say(`mutant: ${mutant.name}`);
      if (!(await this.#hunt(mutant))) missed.push(mutant.name);
    }
    return { ...result, mutants: { points: mutants.length, missed } };
  }

  async #scene(command: Command, root: FileSystem, boot: FileSystem): Promise<Scene> {
    const key = `${command.name} ${root} ${boot}`;
    const scene = this.#scenes.get(key) ?? (await makeScene(this.#lab, command, { root, boot }));
    this.#scenes.set(key, scene);
    return scene;
  }

  async #sweepAll(command: Command, faults: readonly Fault[], stride: number | undefined, tally: Tally): Promise<void> {
    if (stride === undefined) return;
    const scene = await this.#scene(command, 'ext4', 'ext4');
    for (const fault of faults) {
      const { points, violations } = await sweep(this.#lab, scene, fault, {
        tracer: this.#tracer,
        jobs: this.#plan.jobs,
        stride,
      });
      this.#count(`${command.name}: ${fault.kind}${fault.sticky ? ' from each call on' : ' at each call'}`, tally, {
        points,
        violations,
      });
    }
  }

  async #cutPower(command: Command, tally: Tally): Promise<void> {
    const { power } = this.#plan;
    if (!power) return;
    for (const root of power.roots) {
      for (const boot of power.boots) {
        const scene = await this.#scene(command, root, boot);
        const { states, violations } = await this.#recordAndReplay(this.#lab, scene, {}, power.options);
        this.#count(`${command.name}: power cuts (${root}, ${boot})`, tally, { points: states, violations });
      }
    }
    const scene = await this.#scene(command, 'ext4', 'ext4');
    const careless = await this.#recordAndReplay(this.#lab, scene, CARELESS_ROOT, power.options);
    this.#count(`${command.name}: power cuts (ext4 in writeback mode, ext4)`, tally, {
      points: careless.states,
      violations: careless.violations,
    });
    if (power.killedFirstStride === undefined) return;
    const found: Tally = { points: 0, violations: [] };
    for (let at = 1; ; at += power.killedFirstStride) {
      const recording = await record(this.#lab, scene, this.#recorder, {
        killedFirst: { tracer: this.#tracer, at },
      });
      if (!recording) break;
      const options: ReplayOptions = { subsets: { all: 0, boot: 0 }, endOnly: true };
      const { states, violations } = await replay(this.#lab, scene, recording, options);
      found.points += states;
      found.violations.push(
        ...violations.map((one) => ({ ...one, fault: `killed at ${at}, run again, ${one.fault}` })),
      );
    }
    this.#count(`${command.name}: killed, run again, power cut`, tally, found);
  }

  async #recordAndReplay(
    lab: Lab,
    scene: Scene,
    recordOptions: RecordOptions,
    options: ReplayOptions,
  ): Promise<{ states: number; violations: readonly Violation[] }> {
    const recording = await record(lab, scene, this.#recorder, recordOptions);
    if (!recording) throw new Error('Nothing was recorded');
    return replay(lab, scene, recording, options);
  }

  /** FAT: everything is recorded in one boot. Returns the names of mutants that were not caught. */
  async #inGuest(mutants: readonly Mutant[], tally: Tally): Promise<string[]> {
    const { fat } = this.#plan;
    if (!fat) return [];
    const program = await bundleHostctl('without-verity', [WITHOUT_VERITY]);
    const whole: GuestJob[] = this.#plan.commands
      .map(commandNamed)
      .flatMap((command) => fat.roots.map((root) => ({ command, types: { root, boot: 'vfat' as const }, program })));
    const killed = await this.#killedJobs(fat.killedFirst, program);
    const hunted = mutants.filter(isForGuest);
    const broken: GuestJob[] = [];
    for (const { name, patches, hunt } of hunted) {
      const mutant = await bundleHostctl(fileName(name), [WITHOUT_VERITY, ...patches]);
      broken.push({ command: commandNamed(hunt.command), types: { root: 'ext4', boot: 'vfat' }, program: mutant });
    }
    const jobs = [...whole, ...killed, ...broken];
    this.#say(`recording ${jobs.length} commands in a guest`);
    const tools = { tracer: this.#tracer, recorder: this.#recorder };
    const recordings = await recordInGuest(this.#lab, jobs, tools, this.#say);
    const taken = (from: readonly GuestJob[]): GuestRecording[] => recordings.filter(({ job }) => from.includes(job));

    const scenes = new Map<string, Scene>();
    for (const one of taken(whole)) {
      const scene = await sceneOfGuest(this.#lab, one);
      const { command, types } = one.job;
      if (types.root === 'ext4') scenes.set(command.name, scene);
      const { states, violations } = await replay(this.#lab, scene, one.recording, fat.options);
      this.#count(`${command.name}: power cuts (${types.root}, ${types.boot})`, tally, { points: states, violations });
    }
    const sceneFor = ({ job, disks }: GuestRecording): Scene => {
      const scene = scenes.get(job.command.name);
      if (!scene) throw new Error(`The plan lacks "${job.command.name}" on ext4 and FAT`);
      return { ...scene, disks };
    };
    const found: Tally = { points: 0, violations: [] };
    for (const one of taken(killed)) {
      const options: ReplayOptions = { subsets: { all: 0, boot: 0 }, endOnly: true };
      const { states, violations } = await replay(this.#lab, sceneFor(one), one.recording, options);
      const when = `killed at ${String(one.job.killedFirstAt)}, run again`;
      found.points += states;
      found.violations.push(...violations.map((violation) => ({ ...violation, fault: `${when}, ${violation.fault}` })));
    }
    if (killed.length > 0) this.#count('deploy: killed, run again, power cut (ext4, vfat)', tally, found);
    const missed: string[] = [];
    for (const [index, one] of taken(broken).entries()) {
      const name = hunted[index]?.name ?? '';
      this.#say(`mutant: ${name}`);
      if (!(await this.#isCaught(one, sceneFor(one)))) missed.push(name);
    }
    return missed;
  }

  /** The calls are counted here, where there are a few more of them; what is not reached in the guest does no harm. */
  async #killedJobs(last: number, program: string): Promise<GuestJob[]> {
    const command = commandNamed('deploy');
    if (last === 0) return [];
    const scene = await this.#scene(command, 'ext4', 'ext4');
    const calls = await countCalls(this.#lab, scene, { kind: 'kill', sticky: false }, this.#tracer);
    return Array.from({ length: last }, (_, index) => ({
      command,
      types: { root: 'ext4' as const, boot: 'vfat' as const },
      program,
      killedFirstAt: calls - index,
    }));
  }

  async #isCaught({ recording }: GuestRecording, scene: Scene): Promise<boolean> {
    const options: ReplayOptions = { subsets: { all: 4, boot: 100 }, stopAtFirst: true };
    const { violations } = await replay(this.#lab, scene, recording, options);
    return violations.length > 0;
  }

  async #hunt({ name, patches, hunt }: Mutant): Promise<boolean> {
    const program = await bundleHostctl(fileName(name), patches);
    const lab = { ...this.#lab, program };
    const scene = await this.#scene(commandNamed(hunt.command), 'ext4', hunt.kind === 'power' ? hunt.boot : 'ext4');
    switch (hunt.kind) {
      case 'power': {
        const options: ReplayOptions = { subsets: { all: 4, boot: 0 }, stopAtFirst: true };
        return (await this.#recordAndReplay(lab, scene, {}, options)).violations.length > 0;
      }
      case 'power, then again': {
        const options: ReplayOptions = { subsets: { all: 2, boot: 0 }, stopAtFirst: true };
        return (await this.#recordAndReplay(lab, scene, CARELESS_ROOT, options)).violations.length > 0;
      }
      case 'fault': {
        const fault: Fault = { kind: hunt.fault, sticky: false };
        const options = { tracer: this.#tracer, jobs: this.#plan.jobs, stopAtFirst: true };
        return (await sweep(lab, scene, fault, options)).violations.length > 0;
      }
    }
  }

  #count(what: string, tally: Tally, found: { points: number; violations: readonly Violation[] }): void {
    tally.points += found.points;
    tally.violations.push(...found.violations);
    this.#say(`${what}: ${found.points}, ${found.violations.length} violations`);
    for (const one of found.violations.slice(0, 5)) this.#say(`  ${one.fault}: ${one.call}: ${one.problem}`);
  }
}

function commandNamed(name: string): Command {
  const command = COMMANDS.find((one) => one.name === name);
  if (!command) throw new Error(`There is no command "${name}" under proof`);
  return command;
}

function mutantNamed(name: string): Mutant {
  const mutant = MUTANTS.find((one) => one.name === name);
  if (!mutant) throw new Error(`There is no mutant "${name}"`);
  return mutant;
}

function isForGuest({ hunt }: Mutant): boolean {
  return hunt.kind === 'power' && hunt.boot === 'vfat';
}

function fileName(name: string): string {
  return name.replaceAll(/[^a-z0-9]+/gi, '-');
}
