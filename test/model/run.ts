/**
 * Runs one sequence of acts and judges the machine after each. A sequence is a list of numbers, so that a failing one
 * can be made shorter by dropping acts.
 */

import fc from 'fast-check';
import { existsSync, rmSync } from 'node:fs';
import { isHostctlError } from '../../src/errors.ts';
import { memoryDir } from '../helpers/memory-dir.ts';
import { differences, goodStates, readEntries, readFacts, stateNameOf } from './disk.ts';
import { modelImages, type ModelImage } from './images.ts';
import { checkWorld } from './invariants.ts';
import { OUTSIDE_VERBS } from './outside.ts';
import { heldStates } from './held.ts';
import { KEEPING_VERBS } from './keeping-verbs.ts';
import { OUR_VERBS, type Verb } from './verbs.ts';
import { demand, Violation } from './violation.ts';
import { LOADERS, World, type Loader } from './world.ts';

const VERBS: Readonly<Record<string, Verb>> = { ...OUR_VERBS, ...KEEPING_VERBS, ...OUTSIDE_VERBS };
/** Some acts come more often than others. */
const NAMES = ['deploy', 'deploy --stage', 'finalize-staged', 'mark-good', 'boot', 'boot', ...Object.keys(VERBS)];

/** The `b` of a deploy that adds no kernel arguments, tries nothing out and is not repeated. */
const WITHOUT_TRIES = 25;

export interface Step {
  readonly verb: string;
  readonly a: number;
  readonly b: number;
  /** At which flush of a file system an error comes; 0 for never. */
  readonly fault: number;
}

export interface Sequence {
  readonly loader: Loader;
  /** Good deployments that are there at the start; with any, the newest runs. */
  readonly good: number;
  readonly steps: readonly Step[];
}

const number = fc.nat({ max: 999 });
const step = fc.record({
  verb: fc.constantFrom(...NAMES),
  a: number,
  b: number,
  fault: fc.oneof({ weight: 7, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: 1, max: 6 }) }),
});

export const sequences: fc.Arbitrary<Sequence> = fc.record({
  loader: fc.constantFrom(...(Object.keys(LOADERS) as Loader[])),
  good: fc.nat({ max: 3 }),
  steps: fc.array(step, { minLength: 3, maxLength: 13, size: 'max' }),
});

/** Checks that every sequence keeps every promise. */
export async function checkSequences(numRuns: number): Promise<void> {
  const directory = memoryDir();
  const digests = new Map<ModelImage, string>();
  try {
    const images = modelImages(directory);
    await fc.assert(
      fc.asyncProperty(sequences, (sequence) => runSequence(sequence, images, digests)),
      { numRuns },
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function runSequence(
  { loader, good, steps }: Sequence,
  images: readonly ModelImage[],
  digests: Map<ModelImage, string>,
): Promise<void> {
  const world = new World(loader, images, digests);
  const told: string[] = [];
  try {
    for (const next of [...firstSteps(good), ...steps]) {
      told.push(await runStep(world, next));
      await checkWorld(world);
    }
  } catch (error) {
    const story = told.map((line) => `  ${line}`).join('\n');
    throw new Error(`${error instanceof Error ? error.message : String(error)}\nafter\n${story}`, { cause: error });
  } finally {
    world.remove();
  }
}

/** By entries without a counter, which are good from the start. */
function firstSteps(good: number): Step[] {
  if (good === 0) return [];
  const deployed = Array.from({ length: good }, (_, index) => ({
    verb: 'deploy',
    a: 2 * index,
    b: WITHOUT_TRIES,
    fault: 0,
  }));
  return [...deployed, { verb: 'boot', a: 0, b: 0, fault: 0 }];
}

async function runStep(world: World, { verb: name, a, b, fault }: Step): Promise<string> {
  const verb = VERBS[name];
  if (verb === undefined) throw new Error(`No verb "${name}"`);
  const before = readFacts(world.path);
  const good = goodStates(readEntries(world.path));
  const held = heldStates(world, name === 'delete');
  world.failAfter = fault === 0 || !verb.isOurs ? Infinity : fault;
  try {
    return await verb.run(world, a, b);
  } catch (error) {
    if (error instanceof Violation || !verb.isOurs) throw new Error(`${name}: ${String(error)}`, { cause: error });
    const wasInjected = world.failAfter <= 0;
    const refused = isHostctlError(error, ...verb.refusals);
    if (!wasInjected && !refused) throw new Error(`${name} failed: ${String(error)}`, { cause: error });
    if (wasInjected && verb.keepsProgress === true) return `${name} failed`;
    const changes = differences(before, readFacts(world.path)).filter(
      (change) => !CACHE.some((form) => form.test(change)),
    );
    demand(changes.length === 0, 'ALL-OR-NOTHING', `${name} failed (${String(error)}) and left ${changes.join('; ')}`);
    return `${name} failed: ${error instanceof Error ? error.message : String(error)}`;
  } finally {
    world.failAfter = Infinity;
    for (const id of world.pinned) if (stateNameOf(world.path, id) === undefined) world.pinned.delete(id);
    const after = goodStates(readEntries(world.path));
    if (verb.isOurs) {
      const lost = [...good].filter((state) => !after.has(state) && (verb.drops !== true || held.has(state)));
      demand(lost.length === 0, 'FALLBACK', `${name} took the good ${lost.join()} away`);
      const gone = [...held].filter((state) => !existsSync(`${world.path}/state/deploy/${state}`));
      demand(gone.length === 0, 'GC-SAFE', `${name} removed ${gone.join()}, which must stay`);
    }
  }
}

/** What a failed command may leave: why finalization failed, places to put things in, the shared `/var`, and objects that the next one uses. */
const CACHE = [
  /^(boot|composefs)\/[^:]*: absent -> directory/,
  /^state(\/(deploy|hostctl|os[^:]*))?: absent ->/,
  /^state\/os\//,
  /^state\/hostctl\/finalize-failure: /,
  /^composefs(: |\/(meta\.json|objects\/|hostctl\/|\.dirty\.))/,
];
