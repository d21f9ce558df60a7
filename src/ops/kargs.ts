/**
 * `kargs`: the kernel arguments of what boots next, each with where it comes from, and changes to them. A change makes
 * a new deployment of the same image, with its own `/etc` and entry; the plan that is shown is the one carried out.
 */

import { isUnified } from '../deploy/boot-entries.ts';
import { changeKargs, type KargChanges } from '../deploy/change-kargs.ts';
import { entryOf, readDeployments, type Deployment, type Deployments } from '../deploy/deployments.ts';
import type { EtcMergePolicy } from '../deploy/etc-merge.ts';
import {
  compareKargs,
  isOwnKarg,
  mergeKargs,
  planCmdline,
  sameHostKargs,
  type KargSources,
  type SourcedKarg,
} from '../deploy/kargs.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import type { Origin } from '../deploy/origin.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { findSplitKernel } from '../image/boot-files.ts';
import { readImage } from '../store/images.ts';
import { requireRepository, withRepositoryLock } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { splitFilesOf } from './boot-facts.ts';
import {
  carryEtc,
  describeCarriedEtc,
  imageEtc,
  planCarryEtc,
  refuseEtcConflicts,
  warnOfCarriedEtc,
  type CarriedEtc,
  type CarryEtcPlan,
} from './carry-etc.ts';
import { readHostKargs } from './host-kargs.ts';
import { checkBoot, publishDeployment } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { refuseUnifiedKargs } from './unified-kernel.ts';
import { dropReplaced } from './unstage.ts';

/** An argument of an entry; `unknown` where the deployment's origin does not explain it. */
export type ShownKarg = Omit<SourcedKarg, 'origin'> & {
  readonly origin: SourcedKarg['origin'] | 'unified kernel image' | 'unknown';
};

export interface ShownKargs {
  readonly id: number | undefined;
  /** In the order of the command line. */
  readonly kargs: readonly ShownKarg[];
}

/** The arguments of the entry that boots next. Needs no lock. */
export function showKargs(host: Host, options: SysrootOptions): ShownKargs {
  const { target } = findTarget(host, openSysroot(host, options));
  const known = new Map(target.origin === undefined ? [] : cmdlineOf(target.origin).map((karg) => [karg.arg, karg]));
  const entry = entryOf(target);
  const args = entry?.kargs ?? [];
  if (entry !== undefined && isUnified(entry)) {
    return { id: target.id, kargs: args.map((arg) => ({ arg, origin: 'unified kernel image' as const })) };
  }
  return {
    id: target.id,
    kargs: args.map(
      (arg) => known.get(arg) ?? { arg, origin: isOwnKarg(arg) ? ('hostctl' as const) : ('unknown' as const) },
    ),
  };
}

export interface ChangeKargsOptions extends SysrootOptions {
  readonly changes: KargChanges;
  /** Only says what would be done. */
  readonly plan: boolean;
  /** Boots to try the new deployment. */
  readonly tries: number;
  readonly etcPolicy: EtcMergePolicy;
}

export interface ChangeKargsResult {
  /** False when the arguments are as wanted already, or nothing was to be done. */
  readonly changed: boolean;
  /** What was or would be changed: the deployment that would boot without the change. */
  readonly from: number | undefined;
  /** The new deployment; undefined where none was made. */
  readonly id: number | undefined;
  readonly entryFile: string | undefined;
  readonly added: readonly SourcedKarg[];
  readonly removed: readonly SourcedKarg[];
  /** All of them afterwards, but for those that only hostctl needs. */
  readonly kargs: readonly SourcedKarg[];
  /** What of `/etc` goes along. */
  readonly etc: CarriedEtc;
}

export function changeDeploymentKargs(host: Host, options: ChangeKargsOptions): Promise<ChangeKargsResult> {
  requireRoot(host, 'change kernel arguments');
  const sysroot = openSysroot(host, options);
  if (options.plan) return Promise.resolve(describe(planChange(host, sysroot, options), undefined));
  checkBoot(sysroot);
  return withSysrootLock(host, sysroot, async () => {
    const plan = planChange(host, sysroot, options);
    return describe(plan, plan.changed ? await publish(host, sysroot, plan, options) : undefined);
  });
}

interface Target {
  readonly deployments: Deployments;
  /** What boots next. */
  readonly target: Deployment;
  /** Whose `/etc` goes along. */
  readonly base: Deployment;
}

/** What waits for the next boot was made from what runs; after a rollback it has an `/etc` of its own. */
function findTarget(host: Host, sysroot: Sysroot): Target {
  const deployments = readDeployments(host, sysroot);
  const { staged, next, booted } = deployments;
  const target = staged ?? next ?? booted;
  if (target === undefined) {
    throw new HostctlError('deployment-not-found', `Nothing is deployed in "${sysroot.path}"`, {
      hint: 'Deploy an image first',
    });
  }
  const isNewer = booted !== undefined && (target.id ?? 0) > (booted.id ?? 0);
  return { deployments, target, base: isNewer ? booted : target === staged ? (next ?? target) : target };
}

interface ChangePlan extends Target {
  readonly origin: Origin;
  readonly kargs: KargSources;
  readonly changed: boolean;
  readonly before: readonly SourcedKarg[];
  readonly after: readonly SourcedKarg[];
  readonly carried: CarryEtcPlan;
}

function planChange(host: Host, sysroot: Sysroot, { changes, etcPolicy }: ChangeKargsOptions): ChangePlan {
  const { deployments, target, base } = findTarget(host, sysroot);
  const { origin } = target;
  const entry = entryOf(target);
  if (entry !== undefined) refuseUnifiedKargs(entry);
  if (origin === undefined) {
    throw new HostctlError('state-invalid', `The origin of deployment ${target.id ?? target.name} is lost`, {
      hint: 'Deploy its image again',
    });
  }
  const current = mergeKargs(origin.kargs, {
    image: origin.kargs.image,
    host: readHostKargs(host, sysroot, base),
    added: [],
  });
  const kargs = changeKargs(current, changes);
  const repository = requireRepository(host, sysroot.repo);
  const next = imageEtc(repository, origin.digest);
  return {
    deployments,
    target,
    base,
    origin,
    kargs,
    changed: !sameHostKargs(origin.kargs, kargs),
    before: cmdlineOf(origin),
    after: cmdlineOf({ ...origin, kargs }),
    carried: planCarryEtc(host, { sysroot, repository, base, next, policy: etcPolicy }),
  };
}

async function publish(
  host: Host,
  sysroot: Sysroot,
  { deployments, target, origin, kargs, carried }: ChangePlan,
  { tries }: ChangeKargsOptions,
): Promise<{ readonly id: number; readonly entryFile: string }> {
  const repository = requireRepository(host, sysroot.repo);
  return withRepositoryLock(host, sysroot.repo, 'shared', async () => {
    const tree = readComposefsImage(readImage(repository, origin.digest));
    const contentOf = repositoryContent(repository);
    refuseEtcConflicts(carried);
    warnOfCarriedEtc(host, carried);
    // What is only to be downloaded is not to boot because its arguments change.
    const isLocked = target === deployments.staged && deployments.stagedRecord?.isLocked === true;
    const mode = isLocked ? 'stage-locked' : sysroot.isRunning ? 'stage' : 'publish';
    const published = await publishDeployment(host, sysroot, repository, {
      origin: { ...origin, kargs },
      seal: undefined,
      tree,
      contentOf,
      kernel: splitFilesOf(findSplitKernel(tree), contentOf),
      adjustEtc: (etc) => {
        // What is staged keeps the image's default until it is finalized.
        if (mode === 'publish') carryEtc(host, carried, etc);
      },
      tries,
      action: 'kargs',
      mode,
    });
    dropReplaced(host, sysroot, deployments, mode === 'publish' ? undefined : published.entryFile);
    return published;
  });
}

function describe(
  { target, changed, before, after, carried }: ChangePlan,
  published: { readonly id: number; readonly entryFile: string } | undefined,
): ChangeKargsResult {
  return {
    changed,
    from: target.id,
    id: published?.id,
    entryFile: published?.entryFile,
    ...compareKargs(before, after),
    kargs: after,
    etc: describeCarriedEtc(carried),
  };
}

/** The arguments that do not depend on where a deployment lies. */
function cmdlineOf({ digest, parameters, verityRequired, kargs }: Origin): SourcedKarg[] {
  return planCmdline({
    pinned: { digest, parameters, verityRequired },
    stateName: digest,
    counted: true,
    kargs,
  });
}
