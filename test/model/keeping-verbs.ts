/**
 * The verbs that decide what stays: pins, `delete`, `gc`; and `kargs`, which makes a deployment out of another one.
 * After `gc` the disks hold what the deployments need and nothing else, as told by the model alone.
 */

import * as fs from 'node:fs';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { deleteDeployment } from '../../src/ops/delete-deployment.ts';
import { gc } from '../../src/ops/gc.ts';
import { changeDeploymentKargs } from '../../src/ops/kargs.ts';
import { setPinned } from '../../src/ops/pin.ts';
import { differences, idOf, readEntries, readFacts, stateNameOf } from './disk.ts';
import { heldStates } from './held.ts';
import { choose, type Verb } from './verbs.ts';
import { demand, same } from './violation.ts';
import type { World } from './world.ts';

function pinVerb(pinned: boolean): Verb {
  return {
    isOurs: true,
    refusals: [],
    async run(world, a) {
      const { deployments } = world.status();
      if (deployments.length === 0) return 'pin: nothing';
      const { id } = choose(deployments, a);
      if (id === null) return 'pin: no number';
      const result = await setPinned(world.host, { ...world.options, id: String(id), pinned });
      demand(result.id === id && result.changed === (world.pinned.has(id) !== pinned), 'TRUTH', `pin of ${id}`);
      if (pinned) world.pinned.add(id);
      else world.pinned.delete(id);
      return `${pinned ? 'pin' : 'unpin'} ${id}`;
    },
  };
}

const deleteVerb: Verb = {
  isOurs: true,
  refusals: ['deployment-in-use', 'state-invalid'],
  keepsProgress: true,
  drops: true,
  async run(world, a) {
    const { deployments, staged } = world.status();
    if (deployments.length === 0) return 'delete: nothing';
    const { id } = choose(deployments, a);
    if (id === null) return 'delete: no number';
    const name = stateNameOf(world.path, id) ?? '';
    const isHeld = world.running?.stateName === name || world.pinned.has(id) || staged === id;
    const ids = new Set(deployments.map((each) => each.id));
    const orphans = orphansOf(world);
    await deleteDeployment(world.host, { ...world.options, id: String(id) });
    demand(!isHeld, 'GC-SAFE', `delete took ${id}, which runs, is pinned or staged`);
    const after = new Set(world.status().deployments.map((each) => each.id));
    const gone = [...ids].filter((each) => !after.has(each) && (each === null || !orphans.has(each)));
    const others = gone.filter((each) => each !== id);
    demand(others.length === 0, 'GC-SAFE', `delete ${id} took ${others.join()}`);
    demand(!after.has(id), 'TRUTH', `${id} is still there after its delete`);
    return `delete ${id}`;
  },
};

/** Numbers of deployments that no entry starts: any collection takes them. */
function orphansOf(world: World): Set<number | null> {
  const started = new Set(readEntries(world.path).map(({ stateName }) => stateName));
  const found = names(`${world.path}/state/deploy`).filter((name) => !started.has(name));
  return new Set(found.map((name) => idOf(world.path, { digest: name.slice(0, 64), stateName: name })));
}

const gcVerb: Verb = {
  isOurs: true,
  refusals: ['state-invalid'],
  keepsProgress: true,
  drops: true,
  async run(world, a) {
    const { staged } = world.status();
    const options = { ...world.options, keep: choose([100, 3, 2, 1], a) };
    const before = readFacts(world.path);
    const plan = await gc(world.host, { ...options, dryRun: true });
    // The lock needs its directory.
    const written = differences(before, readFacts(world.path)).filter(
      (change) => !/^state(\/hostctl)?: absent -> directory/.test(change),
    );
    demand(written.length === 0, 'GC-SAFE', `gc --dry-run changed ${written.join('; ')}`);
    const result = await gc(world.host, { ...options, dryRun: false });
    demand(
      same(pathsOf(plan.items), pathsOf(result.items)),
      'TRUTH',
      'gc removed something else than its dry run said',
    );
    demand(world.status().staged === staged, 'GC-SAFE', `gc took ${staged}, which is staged`);
    checkNothingLeft(world, staged);
    return `gc keep ${options.keep}: ${result.deployments.join() || 'nothing'} went`;
  },
};

function pathsOf(items: readonly { readonly path: string }[]): string[] {
  return items.map(({ path }) => path);
}

/** LEAK-FREE: every image, object, kernel and state directory is some deployment's. */
function checkNothingLeft(world: World, staged: number | null): void {
  const entries = readEntries(world.path);
  const started = entries.flatMap(({ stateName }) => stateName ?? []);
  const stagedName = staged === null ? undefined : stateNameOf(world.path, staged);
  const states = new Set([...started, ...heldStates(world), ...(stagedName === undefined ? [] : [stagedName])]);
  const found = fs.existsSync(`${world.path}/state/deploy`) ? names(`${world.path}/state/deploy`) : [];
  demand(same(sorted(found), sorted(states)), 'LEAK-FREE', `state directories are ${found.join()}`);
  const images = new Set([...states].map((name) => name.slice(0, 64)));
  const repository = `${world.path}/composefs`;
  if (!fs.existsSync(repository)) return;
  const linked = names(`${repository}/images`).filter((name) => name !== 'refs');
  demand(same(sorted(linked), sorted(images)), 'LEAK-FREE', `images are ${linked.join()}`);
  const contents = [...images].flatMap((digest) => world.imageOf(digest)?.objects ?? []);
  const needed = new Set([...images, ...contents.map((content) => fsverityDigest('sha256', content))]);
  const objects = names(`${repository}/objects`).flatMap((directory) =>
    names(`${repository}/objects/${directory}`).map((name) => `${directory}${name}`),
  );
  demand(same(sorted(objects), sorted(needed)), 'LEAK-FREE', `${objects.length} objects, ${needed.size} are needed`);
  const kernels = new Set(
    entries.flatMap(({ keys }) => /^\/boot\/hostctl\/([^/]+)\//.exec(keys.get('linux') ?? '')?.[1] ?? []),
  );
  const isExact = [...states].every((name) => started.includes(name));
  const left = fs.existsSync(`${world.path}/boot/hostctl`) ? names(`${world.path}/boot/hostctl`) : [];
  const unused = left.filter((name) => !kernels.has(name));
  demand(!isExact || unused.length === 0, 'LEAK-FREE', `kernels ${unused.join()} are left`);
}

function names(directory: string): string[] {
  return fs.readdirSync(directory);
}

function sorted(list: Iterable<string>): string[] {
  return [...list].sort();
}

const ARGUMENTS = ['audit=0', 'debug', 'x=3'] as const;

const kargsVerb: Verb = {
  isOurs: true,
  refusals: ['usage', 'etc-conflict', 'deployment-not-found'],
  async run(world, a, b) {
    const arg = choose(ARGUMENTS, a);
    const isAppended = b % 2 === 0;
    const before = world.status();
    const from = before.staged ?? before.next ?? before.booted;
    const old = kargsOf(before.deployments, from);
    const result = await changeDeploymentKargs(world.host, {
      ...world.options,
      changes: { append: isAppended ? [arg] : [], delete: isAppended ? [] : [arg], replace: [] },
      plan: false,
      tries: 3,
      etcPolicy: {},
    });
    const after = world.status();
    demand(after.next === before.next, 'BOOT-ATOMIC', 'what boots changed before the shutdown');
    if (result.id === undefined) {
      demand(old.includes(arg) === isAppended, 'TRUTH', `nothing to change in ${old.join(' ')}`);
      return 'kargs: unchanged';
    }
    demand(after.staged === result.id, 'TRUTH', `${after.staged} is staged, not ${result.id}`);
    const wanted = isAppended ? [...old, arg] : old.filter((each) => each !== arg);
    const now = kargsOf(after.deployments, result.id);
    demand(same(sorted(new Set(now)), sorted(new Set(wanted))), 'TRUTH', `${now.join(' ')} after ${old.join(' ')}`);
    return `kargs ${isAppended ? '+' : '-'}${arg}: ${result.id}`;
  },
};

/** Without what differs between any two deployments, or between a counted entry and another. */
function kargsOf(deployments: ReturnType<World['status']>['deployments'], wanted: number | null): readonly string[] {
  const kargs = deployments.find(({ id }) => id === wanted)?.entry?.kargs ?? [];
  return kargs.filter((arg) => !/^(composefs|hostctl\.state=|panic=|rd\.)/.test(arg));
}

export const KEEPING_VERBS = {
  pin: pinVerb(true),
  unpin: pinVerb(false),
  delete: deleteVerb,
  gc: gcVerb,
  kargs: kargsVerb,
};
