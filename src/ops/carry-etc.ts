/**
 * Carries local changes of `/etc` from the deployment that is replaced into the fresh `/etc` of the new one: planned
 * without writing, so that a conflict is known before anything is staged, and carried out by the same plan.
 */

import type { Deployment } from '../deploy/deployments.ts';
import { applyEtcMerge } from '../deploy/etc-apply.ts';
import { planEtcMerge, type EtcMergePlan, type EtcMergePolicy } from '../deploy/etc-merge.ts';
import { scanDirectory } from '../deploy/etc-scan.ts';
import { readShadowed, writeShadowed } from '../deploy/etc-shadowed.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { readComposefsDirectory } from '../format/erofs/reader.ts';
import { readImage } from '../store/images.ts';
import type { Repository } from '../store/repository.ts';
import { isDirectory, listNames } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import type { DirectoryNode, VerityDigest } from '../tree/node.ts';
import { accountDrift, type AccountDrift } from './account-drift.ts';

export interface CarryEtcOptions {
  readonly sysroot: Sysroot;
  readonly repository: Repository;
  /** The deployment whose `/etc` is live, or would be at the next boot; undefined at the first deployment. */
  readonly base: Deployment | undefined;
  /** The new image's default `/etc`. */
  readonly next: DirectoryNode;
  readonly policy: EtcMergePolicy;
}

export interface CarryEtcPlan {
  /** The `/etc` that is carried over; undefined where there is none, or where nobody can tell what is local in it. */
  readonly live: string | undefined;
  readonly merge: EtcMergePlan;
  /** Users and groups with other numbers in the new image than here. */
  readonly drift: readonly AccountDrift[];
}

const NOTHING: CarryEtcPlan = {
  live: undefined,
  merge: { changes: [], conflicts: [], settled: [], shadowed: [] },
  drift: [],
};

/** Plans the merge from what is on disk now. Writes nothing; conflicts are in the plan, not thrown. */
export function planCarryEtc(host: Host, options: CarryEtcOptions): CarryEtcPlan {
  const { sysroot, repository, base, next, policy } = options;
  if (base === undefined) return NOTHING;
  const live = `${sysroot.deployments}/${base.name}/etc`;
  const defaults = defaultEtc(host, repository, base);
  if (defaults === undefined) return NOTHING;
  if (isLost(live, defaults)) {
    host.log.warn(
      `"state/deploy/${base.name}/etc" is lost: the new deployment gets the image's /etc, without any local change`,
    );
    return NOTHING;
  }
  const local = scanDirectory(host, live, repository.algorithm);
  const merge = planEtcMerge({ base: defaults, local, next }, policy);
  const shadowed = [...merge.shadowed, ...stillShadowed(host, live, merge)];
  return { live, merge: { ...merge, shadowed }, drift: accountDrift(host, repository, { live, next, merge }) };
}

/**
 * Carries the plan out in `etc`, which holds the new image's defaults and nothing else. Throws 'etc-conflict' naming
 * every path where both sides changed in ways that exclude each other and the policy does not say whose counts.
 */
export function carryEtc(host: Host, plan: CarryEtcPlan, etc: string): void {
  refuseEtcConflicts(plan);
  writeShadowed(etc, plan.merge.shadowed);
  if (plan.live !== undefined) applyEtcMerge(host, plan.merge, plan.live, etc);
}

/** Throws 'etc-conflict' when the plan has conflicts. */
export function refuseEtcConflicts({ merge: { conflicts } }: CarryEtcPlan): void {
  if (conflicts.length === 0) return;
  const listed = conflicts.map(({ path, reason }) => `"/etc/${displayRaw(path)}" ${reason}`).join('; ');
  throw new HostctlError('etc-conflict', `Local changes in /etc cannot be carried over: ${listed}`, {
    hint:
      'Move these files out of the way, or say in [etc.paths] of hostctl.conf "keep-local" or "take-image" for each, ' +
      'then run the command again; nothing was changed',
  });
}

/** Tells the administrator what a plan does that he may not expect. */
export function warnOfCarriedEtc(host: Host, plan: CarryEtcPlan): void {
  for (const { path, reason, rule } of plan.merge.settled) {
    const whose = rule === 'keep-local' ? 'the local version is kept' : "the image's version is taken";
    host.log.warn(`"/etc/${displayRaw(path)}" ${reason}: ${whose}, as configured`);
  }
  for (const { message } of plan.drift) host.log.warn(message);
}

/** What a plan carries over, as it is shown. */
export interface CarriedEtc {
  readonly changed: readonly { readonly path: string; readonly change: 'add' | 'replace' | 'remove' | 'metadata' }[];
  readonly conflicts: readonly { readonly path: string; readonly reason: string }[];
  readonly settled: readonly { readonly path: string; readonly reason: string; readonly rule: string }[];
  /** Paths whose new default is not used because a local version stands before it. */
  readonly shadowed: readonly string[];
  readonly drift: readonly AccountDrift[];
}

export function describeCarriedEtc({ merge, drift }: CarryEtcPlan): CarriedEtc {
  const shown = (path: RawName): string => (path === '' ? '/etc' : `/etc/${displayRaw(path)}`);
  return {
    changed: merge.changes.map(({ path, kind }) => ({ path: shown(path), change: kind })),
    conflicts: merge.conflicts.map(({ path, reason }) => ({ path: shown(path), reason })),
    settled: merge.settled.map(({ path, reason, rule }) => ({ path: shown(path), reason, rule })),
    shadowed: merge.shadowed.map(shown),
    drift,
  };
}

/** The default `/etc` of an image in the repository. Throws 'image-not-bootable' where it has none. */
export function imageEtc(repository: Repository, digest: VerityDigest): DirectoryNode {
  const etc = readComposefsDirectory(readImage(repository, digest), 'etc');
  if (etc !== undefined) return etc;
  throw new HostctlError('image-not-bootable', 'The image has no directory "/etc"');
}

/** The `/etc` that the replaced deployment's image ships; without it nobody can tell what was changed locally. */
function defaultEtc(host: Host, repository: Repository, base: Deployment): DirectoryNode | undefined {
  const digest = base.origin?.digest ?? base.bootc?.digest;
  try {
    if (digest !== undefined) return imageEtc(repository, digest);
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    host.log.debug(error.message);
  }
  host.log.warn(
    `The image of deployment ${base.id ?? base.name} cannot be read: its local changes in /etc are not carried over ` +
      `and stay in "state/deploy/${base.name}/etc"`,
  );
  return undefined;
}

/** Nobody deletes every file of `/etc` on purpose: that must not be carried over as a local change. */
function isLost(live: string, defaults: DirectoryNode): boolean {
  return !isDirectory(live) || (listNames(live).length === 0 && defaults.entries.size > 0);
}

/** What was shadowed before stays so as long as the local version stands before something. */
function stillShadowed(host: Host, live: string, { changes, shadowed }: EtcMergePlan): RawName[] {
  const meeting = new Set(changes.filter(({ kind }) => kind !== 'add').map(({ path }) => path));
  try {
    return readShadowed(live).filter((path) => meeting.has(path) && !shadowed.includes(path));
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    host.log.warn(error.message);
    return [];
  }
}
