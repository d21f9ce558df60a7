/**
 * What can happen to the machine, one small object each. `a` and `b` choose among what is possible at the moment, so
 * that every sequence of numbers is a sequence of sensible acts.
 */

import type { StatusDocument } from '../../src/cli/view/status-json.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { isHostctlError } from '../../src/errors.ts';
import { countBoot } from '../../src/ops/count-boot.ts';
import { deploy, type DeployResult } from '../../src/ops/deploy.ts';
import { finalizeStaged } from '../../src/ops/finalize-staged.ts';
import { markFailed } from '../../src/ops/mark-failed.ts';
import { markGood } from '../../src/ops/mark-good.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { unstage } from '../../src/ops/unstage.ts';
import { upgrade } from '../../src/ops/upgrade.ts';
import { modelMerge } from '../helpers/etc-model.ts';
import { differences, readFacts, readPlain, stateNameOf } from './disk.ts';
import type { ModelImage } from './images.ts';
import { demand, same } from './violation.ts';
import type { World } from './world.ts';

export interface Verb {
  /** Whether hostctl does it, so that its promises hold for it. */
  readonly isOurs: boolean;
  /** Codes it may refuse with. */
  readonly refusals: readonly ErrorCode[];
  /** A fact that it records stays recorded when a later flush fails: then the next run completes it. */
  readonly keepsProgress?: boolean;
  /** Deployments may go that nothing holds. */
  readonly drops?: boolean;
  /** Does it and says so in a few words. */
  run(world: World, a: number, b: number): Promise<string> | string;
}

export function choose<T>(list: readonly T[], number: number): T {
  if (list.length === 0) throw new Error('Nothing to choose from');
  return list[number % list.length] as T;
}

const KARGS = [[], [], [], ['debug'], ['console=tty1', 'debug']] as const;

/** An image by its own reference or, where it leads there, by the one that moves. */
function chooseImage(world: World, a: number): { readonly image: ModelImage; readonly reference: string } {
  const { moving, movingReference, images } = world;
  if (a % 2 === 1 && moving !== undefined) return { image: moving, reference: movingReference };
  const image = choose(images, a >> 1);
  return { image, reference: image.reference };
}

function deployVerb(stage: boolean): Verb {
  return {
    isOurs: true,
    refusals: ['etc-conflict'],
    async run(world, a, b) {
      const { image, reference } = chooseImage(world, a);
      const options = {
        ...world.options,
        image: reference,
        kargs: choose(KARGS, b),
        algorithm: 'sha256' as const,
        tries: choose([3, 3, 1, 0], b >> 3),
        allowMissingVerity: true,
        stage,
      };
      const expected = expectedEtc(world, image);
      const before = world.status();
      let result: DeployResult;
      try {
        result = await deploy(world.host, options);
      } catch (error) {
        if (isHostctlError(error, 'etc-conflict')) demand(expected.conflicts.length > 0, 'ETC-MERGE', error.message);
        throw error;
      }
      const known = world.digests.get(image) ?? result.digest;
      demand(known === result.digest, 'STABLE-DIGEST', `${image.name} has another`);
      world.digests.set(image, result.digest);
      const isNew = !before.deployments.some(({ id }) => id === result.id) || before.staged === result.id;
      // What is staged gets the local changes when it is finalized.
      const isFresh = isNew && result.changed && before.staged !== result.id;
      if (isFresh && !result.isStaged) checkEtc(world, result.id, expected);
      if (isFresh && result.isStaged) demand(expected.conflicts.length === 0, 'ETC-MERGE', 'conflicts overlooked');
      const after = world.status();
      if (result.isStaged) {
        demand(after.staged === result.id && after.next === before.next, 'TRUTH', `staged is ${after.staged}`);
      } else demand(after.staged === null, 'TRUTH', `${after.staged} is staged after a deploy`);
      if (b % 4 === 0 && (result.isStaged || after.next === result.id)) await deployAgain(world, options, result);
      return `deploy${stage ? ' --stage' : ''} ${image.name}: ${result.changed ? 'new' : 'unchanged'} ${result.id}`;
    },
  };
}

function checkEtc(world: World, id: number, expected: ReturnType<typeof modelMerge>): void {
  demand(expected.conflicts.length === 0, 'ETC-MERGE', `conflicts overlooked: ${expected.conflicts.join()}`);
  const etc = readPlain(`${world.path}/state/deploy/${stateNameOf(world.path, id)}/etc`);
  demand(same(etc, expected.result), 'ETC-MERGE', `${JSON.stringify(etc)} is not ${JSON.stringify(expected.result)}`);
}

/** RERUN: the same command again finds nothing to do. */
async function deployAgain(world: World, options: Parameters<typeof deploy>[1], first: DeployResult): Promise<void> {
  // An error in this one would look like one of the first.
  world.failAfter = Infinity;
  const before = readFacts(world.path);
  const again = await deploy(world.host, options);
  demand(!again.changed && again.id === first.id, 'RERUN', `deploy made ${again.id} after ${first.id}`);
  const changes = differences(before, readFacts(world.path));
  demand(changes.length === 0, 'RERUN', changes.join('; '));
}

function expectedEtc(world: World, image: ModelImage): ReturnType<typeof modelMerge> {
  const running = world.running?.stateName;
  const base = running ?? world.defaultEntry('systemd-boot')?.stateName;
  const shipped = base === undefined ? undefined : world.imageOf(base.slice(0, 64));
  if (base === undefined || shipped === undefined) return { result: image.etc, conflicts: [] };
  const local = readPlain(`${world.path}/state/deploy/${base}/etc`);
  // One in which nothing is left is taken for lost, not for an administrator who removed every file.
  if ('dir' in local && Object.keys(local.dir).length === 0) return { result: image.etc, conflicts: [] };
  return modelMerge(shipped.etc, local, image.etc, undefined);
}

const rollbackVerb: Verb = {
  isOurs: true,
  refusals: ['deployment-not-found', 'state-invalid', 'usage'],
  async run(world, a, b) {
    const { deployments, rollback: target } = world.status();
    const known = a % 3 > 0 && deployments.length > 0 ? choose(deployments, b) : undefined;
    const to = known === undefined ? undefined : a % 3 === 1 ? String(known.id) : known.composefs.digest?.slice(0, 16);
    const result = await rollback(world.host, { ...world.options, to });
    // By hand, its tries begin anew.
    world.rolledBack.clear();
    if (to === undefined) demand(result.to === target, 'TRUTH', `went to ${result.to}, status said ${target}`);
    if (a % 3 === 1) demand(result.to === known?.id, 'TRUTH', `went to ${result.to} instead of ${to}`);
    return `rollback to ${to ?? 'the previous'}: ${result.to} by ${result.entryFile}`;
  },
};

const markGoodVerb: Verb = {
  isOurs: true,
  refusals: ['host-unsupported', 'state-invalid'],
  async run(world) {
    const first = await markGood(world.host, world.options);
    // An error in the second one would look like one of the first.
    world.failAfter = Infinity;
    const before = readFacts(world.path);
    const second = await markGood(world.host, world.options);
    demand(same(first, second), 'RERUN', `mark-good gave ${second.entryFile} after ${first.entryFile}`);
    const changes = differences(before, readFacts(world.path));
    demand(changes.length === 0, 'RERUN', changes.join('; '));
    const { booted, deployments } = world.status();
    const state = deployments.find(({ id }) => id === booted)?.state;
    demand(state === 'good', 'TRUTH', `what was marked good is ${state}`);
    return `mark-good: ${first.entryFile}`;
  },
};

/** Early in each boot. */
const countBootVerb: Verb = {
  isOurs: true,
  refusals: ['host-unsupported'],
  async run(world) {
    const name = world.running?.stateName ?? '';
    const { booted, deployments } = world.status();
    const wasGood = deployments.find(({ id }) => id === booted)?.state === 'good';
    const { decision, rollback } = await countBoot(world.host, world.options);
    demand(!wasGood || decision === 'none', 'ROLLBACK-ONCE', `what has been good was judged: ${decision}`);
    if (decision !== 'roll-back') return `count-boot: ${decision}`;
    demand(!world.rolledBack.has(name), 'ROLLBACK-ONCE', `${name} was rolled back twice`);
    world.rolledBack.add(name);
    const after = world.status();
    const target = after.deployments.find(({ id }) => id === rollback);
    demand(target?.state === 'good', 'ROLLBACK-ONCE', `it goes to ${rollback}, which is ${target?.state}`);
    demand(after.deployments.find(({ id }) => id === booted)?.state === 'failed', 'TRUTH', 'it is not shown as failed');
    return `count-boot: rolled back to ${rollback}`;
  },
};

const markFailedVerb: Verb = {
  isOurs: true,
  refusals: ['host-unsupported'],
  async run(world) {
    const { decision, id } = await markFailed(world.host, { ...world.options, requiredUnits: [] });
    const state = world.status().deployments.find((each) => each.id === id)?.state;
    demand(state !== 'good' || decision === 'stay', 'ROLLBACK-ONCE', 'what has been good is rebooted');
    return `mark-failed: ${decision}`;
  },
};

const unstageVerb: Verb = {
  isOurs: true,
  refusals: [],
  async run(world) {
    const before = world.status();
    const result = await unstage(world.host, world.options);
    demand(result.id === before.staged, 'TRUTH', `unstaged ${result.id}, status said ${before.staged}`);
    const after = world.status();
    demand(after.staged === null && after.next === before.next, 'BOOT-ATOMIC', 'unstage changed what boots');
    return `unstage: ${result.id}`;
  },
};

/** At shutdown: the `/etc` of this last moment, and then the name. */
const finalizeVerb: Verb = {
  isOurs: true,
  refusals: ['etc-conflict'],
  keepsProgress: true,
  async run(world) {
    const { staged, deployments } = world.status();
    const digest = deployments.find(({ id }) => id === staged)?.composefs.digest;
    const image = digest === null || digest === undefined ? undefined : world.imageOf(digest);
    const expected = image === undefined ? undefined : expectedEtc(world, image);
    const { changed, id, reason } = await finalizeStaged(world.host, { ...world.options, etcPolicy: {} });
    if (changed && id !== null && expected !== undefined) checkEtc(world, id, expected);
    const after = world.status();
    if (changed) demand(after.staged === null && id === staged, 'TRUTH', `${after.staged} is staged after ${id}`);
    return `finalize-staged: ${reason} ${id}`;
  },
};

/** An upgrade goes where the tracked reference leads now; only the moving one leads elsewhere than before. */
function upgradeVerb(isSwitch: boolean): Verb {
  return {
    isOurs: true,
    refusals: isSwitch ? ['etc-conflict'] : ['etc-conflict', 'deployment-not-found', 'downgrade-refused'],
    drops: true,
    async run(world, a, b) {
      const before = world.status();
      const chosen = isSwitch ? chooseImage(world, a) : trackedImage(world, before);
      const result = await upgrade(world.host, {
        ...world.options,
        image: isSwitch ? chosen?.reference : undefined,
        kargs: [],
        algorithm: 'sha256',
        tries: 3,
        allowMissingVerity: true,
        allowDowngrade: a % 4 < 2,
        etcPolicy: {},
        keep: choose([100, 100, 3, 2, 1], b),
        downloadOnly: false,
      });
      if (chosen !== undefined && result.avoided === null) {
        const known = world.digests.get(chosen.image) ?? result.digest;
        demand(known === result.digest, 'STABLE-DIGEST', `${chosen.image.name} has another, or is not what was taken`);
        world.digests.set(chosen.image, result.digest);
      }
      const after = world.status();
      demand(after.next === before.next, 'BOOT-ATOMIC', 'what boots changed before the shutdown');
      // What boots next already drops what was staged instead of being staged itself.
      const staged = result.isStaged ? result.id : null;
      if (result.changed) demand(after.staged === staged, 'TRUTH', `${after.staged} is staged, not ${staged}`);
      if (result.changed && !result.isStaged) demand(after.next === result.id, 'TRUTH', `${after.next} boots next`);
      const what = isSwitch ? `switch ${chosen?.image.name}` : 'upgrade';
      return `${what}: ${result.changed ? 'new' : 'unchanged'} ${result.id}`;
    },
  };
}

function trackedImage(
  world: World,
  { deployments, staged, next, booted }: StatusDocument,
): ReturnType<typeof chooseImage> | undefined {
  const newest = staged ?? next ?? booted;
  const reference = deployments.find(({ id }) => id === newest)?.image.reference;
  const image =
    reference === world.movingReference ? world.moving : world.images.find((each) => each.reference === reference);
  return image === undefined || typeof reference !== 'string' ? undefined : { image, reference };
}

export const OUR_VERBS = {
  deploy: deployVerb(false),
  'deploy --stage': deployVerb(true),
  rollback: rollbackVerb,
  'count-boot': countBootVerb,
  'mark-good': markGoodVerb,
  'mark-failed': markFailedVerb,
  unstage: unstageVerb,
  'finalize-staged': finalizeVerb,
  upgrade: upgradeVerb(false),
  switch: upgradeVerb(true),
};
