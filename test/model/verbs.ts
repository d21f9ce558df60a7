/**
 * What can happen to the machine, one small object each. `a` and `b` choose among what is possible at the moment, so
 * that every sequence of numbers is a sequence of sensible acts.
 */

import type { ErrorCode } from '../../src/errors.ts';
import { isHostctlError } from '../../src/errors.ts';
import { deploy, type DeployResult } from '../../src/ops/deploy.ts';
import { markGood } from '../../src/ops/mark-good.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { modelMerge } from '../helpers/etc-model.ts';
import { differences, readFacts, readPlain } from './disk.ts';
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
  /** Does it and says so in a few words. */
  run(world: World, a: number, b: number): Promise<string> | string;
}

export function choose<T>(list: readonly T[], number: number): T {
  if (list.length === 0) throw new Error('Nothing to choose from');
  return list[number % list.length] as T;
}

const KARGS = [[], [], [], ['debug'], ['console=tty1', 'debug']] as const;

const deployVerb: Verb = {
  isOurs: true,
  refusals: ['etc-conflict'],
  async run(world, a, b) {
    const image = choose(world.images, a);
    const options = {
      ...world.options,
      image: image.reference,
      kargs: choose(KARGS, b),
      algorithm: 'sha256' as const,
      tries: choose([3, 3, 1, 0], b >> 3),
      allowMissingVerity: true,
    };
    const expected = expectedEtc(world, image);
    let result: DeployResult;
    try {
      result = await deploy(world.host, options);
    } catch (error) {
      if (isHostctlError(error, 'etc-conflict')) demand(expected.conflicts.length > 0, 'ETC-MERGE', error.message);
      throw error;
    }
    demand(
      same(world.digests.get(image) ?? result.digest, result.digest),
      'STABLE-DIGEST',
      `${image.name} has another`,
    );
    world.digests.set(image, result.digest);
    if (result.changed) {
      demand(expected.conflicts.length === 0, 'ETC-MERGE', `conflicts overlooked: ${expected.conflicts.join()}`);
      const made = world.status().deployments.find(({ id }) => id === result.id);
      const name = /hostctl\.state=(\S+)/.exec(made?.entry?.kargs.join(' ') ?? '')?.[1] ?? result.digest;
      const etc = readPlain(`${world.path}/state/deploy/${name}/etc`);
      demand(
        same(etc, expected.result),
        'ETC-MERGE',
        `${JSON.stringify(etc)} is not ${JSON.stringify(expected.result)}`,
      );
    }
    if (b % 4 === 0 && world.status().next === result.id) await deployAgain(world, options, result);
    return `deploy ${image.name}: ${result.changed ? 'new' : 'unchanged'} ${result.id}`;
  },
};

/** RERUN: the same command again finds nothing to do. */
async function deployAgain(world: World, options: Parameters<typeof deploy>[1], first: DeployResult): Promise<void> {
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
  return modelMerge(shipped.etc, readPlain(`${world.path}/state/deploy/${base}/etc`), image.etc, undefined);
}

const rollbackVerb: Verb = {
  isOurs: true,
  refusals: ['deployment-not-found', 'state-invalid', 'usage'],
  async run(world, a, b) {
    const { deployments, rollback: target } = world.status();
    const known = a % 3 > 0 && deployments.length > 0 ? choose(deployments, b) : undefined;
    const to = known === undefined ? undefined : a % 3 === 1 ? String(known.id) : known.composefs.digest?.slice(0, 16);
    const result = await rollback(world.host, { ...world.options, to });
    if (to === undefined) demand(result.to === target, 'TRUTH', `went to ${result.to}, status said ${target}`);
    if (a % 3 === 1) demand(result.to === known?.id, 'TRUTH', `went to ${result.to} instead of ${to}`);
    return `rollback to ${to ?? 'the previous'}: ${result.to} by ${result.entryFile}`;
  },
};

const markGoodVerb: Verb = {
  isOurs: true,
  refusals: ['host-unsupported', 'state-invalid'],
  keepsProgress: true,
  async run(world) {
    const first = await markGood(world.host, world.options);
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

export const OUR_VERBS = { deploy: deployVerb, rollback: rollbackVerb, 'mark-good': markGoodVerb };
