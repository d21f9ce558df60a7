/**
 * The parts of the proof with a FAT boot partition. Commands are recorded in a guest, some in one boot; the states are
 * built and checked here, where the checker has its own FAT reader.
 */

import { type Command, commandNamed } from './commands.ts';
import { FOUND } from './full-disks.ts';
import type { FileSystem } from './lib/disks.ts';
import { type Lab, makeScene, type Scene } from './lib/scene.ts';
import { bundleHostctl, bundleScript, programName } from './lib/tools.ts';
import { BOOT_IS_ESP, type Mutant, mutantNamed, WITHOUT_VERITY } from './mutants.ts';
import type { Plan } from './plan.ts';
import { type GuestJob, type GuestRecording, recordInGuest, runInGuest } from './power/guest.ts';
import { sceneOfGuest } from './power/guest-scene.ts';
import { replay, type ReplayOptions } from './power/replay.ts';
import type { Outcome, Part } from './results.ts';
import { countCalls, type SweepResult } from './sweep.ts';

interface Tools {
  readonly tracer: string;
  readonly recorder: string;
}

type Say = (line: string) => void;

const GUEST_PATCHES = [WITHOUT_VERITY, BOOT_IS_ESP];

/** Mutants that show only on FAT. */
export function isForGuest(mutant: Mutant): mutant is Mutant & { readonly hunt: { readonly kind: 'power' } } {
  const { hunt } = mutant;
  return hunt.kind === 'power' && hunt.boot === 'vfat';
}

/** One part for each root, one for runs that were killed first, and one for all mutants together. */
export function fatParts(lab: Lab, plan: Plan, tools: Tools, say: Say): Part[] {
  const parts: Part[] = [];
  const { fat } = plan;
  const recordJobs = (jobs: readonly GuestJob[]): Promise<GuestRecording[]> => recordInGuest(lab, jobs, tools, say);
  const wholeJobs = async (root: FileSystem, names: readonly string[]): Promise<GuestJob[]> => {
    const program = await bundleHostctl(lab.directory, 'without-verity', GUEST_PATCHES);
    return names.map((name) => ({ command: commandNamed(name), types: { root, boot: 'vfat' }, program }));
  };
  for (const root of fat?.roots ?? []) {
    for (const name of plan.commands.filter((one) => fat?.cut.includes(one))) {
      parts.push({
        name: `${name}: power cuts (${root}, vfat)`,
        async run() {
          const [recording] = await recordJobs(await wholeJobs(root, [name]));
          if (!recording) throw new Error('Nothing was recorded');
          const scene = await sceneOfGuest(lab, recording);
          const { states, violations } = await replay(lab, scene, recording.recording, fat?.options ?? NOTHING);
          return [{ name: this.name, row: 'fatStates', points: states, violations }];
        },
      });
    }
  }
  if (fat && fat.killedFirst > 0 && plan.commands.includes('deploy')) {
    parts.push({
      name: 'deploy: killed, run again, power cut (ext4, vfat)',
      async run() {
        const [whole] = await wholeJobs('ext4', ['deploy']);
        if (!whole) throw new Error('There is nothing to record');
        const killed = await killedJobs(lab, tools, whole, fat.killedFirst);
        const [first, ...rest] = await recordJobs([whole, ...killed]);
        if (!first) throw new Error('Nothing was recorded');
        const scene = await sceneOfGuest(lab, first);
        return [await afterKills(this.name, lab, scene, rest)];
      },
    });
  }
  const { fullDisks } = plan;
  const pairs = fullDisks?.pairs.filter(({ boot }) => boot === 'vfat') ?? [];
  if (fullDisks && pairs.length > 0) {
    parts.push({
      name: 'full disks (vfat)',
      async run() {
        const script = await bundleScript(lab.directory, 'full-fat.ts');
        const options = JSON.stringify({ ...fullDisks, pairs });
        const args = ['/run/work/hostctl/main.js', '/run/work/images', options];
        const console = await runInGuest(lab, script, args, say);
        const found = console.split(FOUND)[1]?.split('\n')[0];
        if (found === undefined) throw new Error(`The guest did not fill its disks:\n${console.slice(-4000)}`);
        return [{ name: this.name, row: 'fullDisks', ...(JSON.parse(found) as SweepResult) }];
      },
    });
  }
  const mutants = plan.mutants.map(mutantNamed).filter(isForGuest);
  if (mutants.length > 0) {
    parts.push({
      name: `mutants on FAT: ${mutants.map(({ name }) => name).join(', ')}`,
      async run() {
        const whole = await wholeJobs('ext4', [...new Set(mutants.map(({ hunt }) => hunt.command))]);
        const broken: GuestJob[] = [];
        for (const { name, patches, hunt } of mutants) {
          const program = await bundleHostctl(lab.directory, programName(name), [...GUEST_PATCHES, ...patches]);
          broken.push({ command: commandNamed(hunt.command), types: { root: 'ext4', boot: 'vfat' }, program });
        }
        const recordings = await recordJobs([...whole, ...broken]);
        const scenes = new Map<Command, Scene>();
        for (const one of recordings.slice(0, whole.length)) {
          scenes.set(one.job.command, await sceneOfGuest(lab, one));
        }
        const outcomes: Outcome[] = [];
        for (const [index, one] of recordings.slice(whole.length).entries()) {
          const name = mutants[index]?.name ?? '';
          const scene = scenes.get(one.job.command);
          if (!scene) throw new Error(`"${one.job.command.name}" was not recorded whole`);
          const options: ReplayOptions = { subsets: { all: 4, boot: 100 }, stopAtFirst: true };
          const { violations } = await replay(lab, { ...scene, disks: one.disks }, one.recording, options);
          outcomes.push(mutantOutcome(name, violations.length > 0));
        }
        return outcomes;
      },
    });
  }
  return parts;
}

const NOTHING: ReplayOptions = { subsets: { all: 0, boot: 0 } };

/** Caught, or a violation of the proof itself. */
export function mutantOutcome(name: string, isCaught: boolean): Outcome {
  const missed = { command: 'mutant', fault: name, call: '', problem: 'not caught' };
  return { name: `mutant: ${name}`, row: 'mutants', points: 1, violations: isCaught ? [] : [missed] };
}

/** The calls are counted here, where there are a few more of them; what is not reached in the guest does no harm. */
async function killedJobs(lab: Lab, { tracer }: Tools, whole: GuestJob, last: number): Promise<GuestJob[]> {
  const scene = await makeScene(lab, whole.command, { root: 'ext4', boot: 'ext4' });
  const calls = await countCalls(lab, scene, { kind: 'kill', sticky: false }, tracer);
  return Array.from({ length: last }, (_, index) => ({ ...whole, killedFirstAt: calls - index }));
}

async function afterKills(
  name: string,
  lab: Lab,
  scene: Scene,
  recordings: readonly GuestRecording[],
): Promise<Outcome> {
  const found: Outcome[] = [];
  for (const { job, disks, recording } of recordings) {
    const { states, violations } = await replay(lab, { ...scene, disks }, recording, { ...NOTHING, endOnly: true });
    const when = `killed at ${String(job.killedFirstAt)}, run again`;
    const named = violations.map((violation) => ({ ...violation, fault: `${when}, ${violation.fault}` }));
    found.push({ name, row: 'fatStates', points: states, violations: named });
  }
  return {
    name,
    row: 'fatStates',
    points: found.reduce((sum, { points }) => sum + points, 0),
    violations: found.flatMap(({ violations }) => violations),
  };
}
