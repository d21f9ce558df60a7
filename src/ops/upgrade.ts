/**
 * `upgrade` and `switch`: what the tracked reference resolves to now, or another one from now on, becomes the next
 * deployment. On the running host it is staged, so that changes of `/etc` up to the shutdown are kept; on another
 * sysroot it is published at once. An image that failed here, or was left by hand, is not taken again by itself.
 */

import { checkUserKarg } from '../deploy/change-kargs.ts';
import { baseDeployment, entryOf, readDeployments, type Deployment, type Deployments } from '../deploy/deployments.ts';
import type { EtcMergePolicy } from '../deploy/etc-merge.ts';
import { readLeft } from '../deploy/left.ts';
import { ifSound } from '../deploy/records.ts';
import { bootLoader } from '../deploy/loader.ts';
import { planRetention } from '../deploy/retention.ts';
import { readFinalizeFailure } from '../deploy/staged.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { compareVersions } from '../format/bls/version.ts';
import { formatImageReference, parseImageReference } from '../format/oci/reference.ts';
import type { ImageSource } from '../image/source.ts';
import { withTrialStore } from '../store/sweep.ts';
import type { Host } from '../sys/host.ts';
import type { VerityAlgorithm } from '../tree/node.ts';
import { makeBootRoom, planBootRoom, type BootRoomOptions } from './boot-room.ts';
import { lastFailure } from './boot-report.ts';
import {
  checkHost,
  deployLocked,
  describeDeployment,
  fetchAhead,
  isRenamed,
  isSame,
  keepStaged,
  type DeployRequest,
  type DeployResult,
} from './deploy.ts';
import { finalizeLocked } from './finalize-staged.ts';
import { pruneDeployments } from './gc.ts';
import { prepareDeployment, wantedDeployment } from './prepare-deployment.ts';
import { requireRoot } from './require-root.ts';
import { leftoverState } from './unified-kernel.ts';
import { withImage } from './with-image.ts';
import { describeChange, type Candidate, type UpgradePlan } from './upgrade-plan.ts';

export interface UpgradeOptions extends SysrootOptions {
  readonly kargs: readonly string[];
  readonly algorithm: VerityAlgorithm | undefined;
  readonly tries: number;
  readonly allowMissingVerity: boolean;
  readonly allowDowngrade: boolean;
  readonly allowWeakerPolicy?: boolean | undefined;
  readonly etcPolicy: EtcMergePolicy;
  /** How many deployments stay when there is a new one. */
  readonly keep: number;
  /** Reference to track from now on (`switch`). */
  readonly image?: string | undefined;
  /** Another tag of the tracked reference. */
  readonly tag?: string | undefined;
  /** Staged, but not finalized until it is asked for. */
  readonly downloadOnly: boolean;
}

export interface CheckResult {
  readonly isNew: boolean;
  readonly candidate: Candidate;
  /** Why it is not taken, although it is not what runs: it failed here, or was left by hand. */
  readonly avoided: string | null;
}

export type UpgradeResult = DeployResult & { readonly avoided: string | null };

/** `upgrade --check`: nothing is written. */
export function checkUpgrade(
  host: Host,
  options: Pick<UpgradeOptions, 'image' | 'tag' | keyof SysrootOptions>,
): Promise<CheckResult> {
  const sysroot = openSysroot(host, options);
  const deployments = readDeployments(host, sysroot);
  const target = targetReference(deployments, options);
  // Nothing is written, so of a cache only what can be read in it is of use.
  const cache = parseImageReference(target).transport === 'docker' ? sysroot.repo : undefined;
  return withImage(host, target, cache, (source) =>
    Promise.resolve(judgeCandidate(host, sysroot, deployments, source, options)),
  );
}

function judgeCandidate(
  host: Host,
  sysroot: Sysroot,
  deployments: Deployments,
  source: ImageSource,
  options: Pick<UpgradeOptions, 'image' | 'tag'>,
): CheckResult {
  const candidate = describeCandidate(source);
  const current = newest(deployments);
  const isSame =
    current?.origin?.manifestDigest === source.manifestDigest && current.origin.reference === candidate.reference;
  if (isSame) return { isNew: false, candidate, avoided: null };
  const isExplicit = options.tag !== undefined || options.image !== undefined;
  const avoided = !isExplicit ? avoidanceOf(host, sysroot, deployments, source.manifestDigest) : undefined;
  return { isNew: avoided === undefined, candidate, avoided: avoided ?? null };
}

export function upgrade(host: Host, options: UpgradeOptions): Promise<UpgradeResult> {
  return withUpgrade(host, options, async ({ sysroot, source, request }) => {
    const { current, avoided, isStaged } = judge(host, sysroot, source, options);
    if (avoided !== undefined && current?.origin !== undefined && current.id !== undefined) {
      host.log.warn(`${avoided}; "hostctl switch ${formatImageReference(source.reference)}" takes it nevertheless`);
      const file = entryOf(current)?.file ?? '';
      return { ...describeDeployment(current, current.id, file), isStaged, avoided };
    }
    const result = await deployLocked(host, sysroot, source, {
      ...request,
      makeRoom: (kernel) => makeBootRoom(host, sysroot, kernel, roomOptions(options)),
    });
    source.blobs.release();
    if (result.changed) await pruneDeployments(host, sysroot, { ...options, keep: options.keep });
    return { ...result, avoided: null };
  });
}

/** `upgrade --plan`: what `upgrade` would do, out of the same steps; what they stored is taken back. */
export function planUpgrade(host: Host, options: UpgradeOptions): Promise<UpgradePlan> {
  return withUpgrade(host, options, async ({ sysroot, source, request }) => {
    const { avoided } = judge(host, sysroot, source, options);
    const candidate = describeCandidate(source);
    const wanted = await wantedDeployment(host, sysroot, source, request);
    const { deployments } = wanted;
    const { staged, next } = deployments;
    const target = request.mode !== 'publish' && staged !== undefined ? staged : next;
    if (avoided !== undefined || (target !== undefined && isSame(target, wanted))) {
      return { candidate, avoided: avoided ?? null, change: null };
    }
    const change = await withTrialStore(host, wanted.repository, async (store) => {
      const prepared = await prepareDeployment(host, sysroot, wanted, store);
      if (target !== undefined && isRenamed(host, sysroot, target, prepared, request)) return undefined;
      if (prepared.facts.kernel.kind === 'unified') leftoverState(host, sysroot, prepared.image.digest);
      const room = await planBootRoom(host, sysroot, prepared.facts.kernel, roomOptions(options));
      return describeChange(host, sysroot, wanted, prepared, request, room);
    });
    if (change === undefined) return { candidate, avoided: null, change: null };
    const drops = planRetention(deployments, { keep: options.keep - 1 }).flatMap(({ id }) => id ?? []);
    return { candidate, avoided: null, change: { ...change, drops, unstages: staged?.id ?? null } };
  });
}

interface OpenedUpgrade {
  readonly sysroot: Sysroot;
  readonly source: ImageSource;
  readonly request: DeployRequest;
}

/**
 * What both begin with: the tag is resolved once and not looked up a second time, and the layers are fetched, if any
 * will be needed. `body` runs under the lock.
 */
async function withUpgrade<T>(
  host: Host,
  options: UpgradeOptions,
  body: (opened: OpenedUpgrade) => Promise<T>,
): Promise<T> {
  requireRoot(host, options.image === undefined ? 'upgrade' : 'switch');
  options.kargs.forEach(checkUserKarg);
  const sysroot = openSysroot(host, options);
  const before = readDeployments(host, sysroot);
  // A host that is not verified now was accepted as that.
  const allowMissingVerity = options.allowMissingVerity || newest(before)?.origin?.verityRequired === false;
  checkHost(host, sysroot, allowMissingVerity);
  const request = requestOf(options, sysroot, allowMissingVerity);
  return withImage(host, targetReference(before, options), sysroot.repo, async (source) => {
    if (judge(host, sysroot, source, options).avoided === undefined) {
      await fetchAhead(host, sysroot, source, request);
    }
    return withSysrootLock(host, sysroot, () => body({ sysroot, source, request }));
  });
}

/** Whether this image may be taken. Throws 'downgrade-refused' where it is an older release. */
function judge(
  host: Host,
  sysroot: Sysroot,
  source: ImageSource,
  { image, tag, kargs, allowDowngrade }: UpgradeOptions,
): { readonly current: Deployment | undefined; readonly avoided: string | undefined; readonly isStaged: boolean } {
  const deployments = readDeployments(host, sysroot);
  const current = newest(deployments);
  const isExplicit = image !== undefined || tag !== undefined || kargs.length > 0;
  const avoided = isExplicit ? undefined : avoidanceOf(host, sysroot, deployments, source.manifestDigest);
  if (avoided === undefined && !allowDowngrade && image === undefined) refuseDowngrade(current, source);
  return { current, avoided, isStaged: current !== undefined && current === deployments.staged };
}

/** `upgrade --from-downloaded`: what is staged is finalized at shutdown after all, or at once on another sysroot. */
export function takeDownloaded(
  host: Host,
  options: SysrootOptions & Pick<UpgradeOptions, 'etcPolicy'>,
): Promise<UpgradeResult> {
  requireRoot(host, 'upgrade');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, async () => {
    const deployments = readDeployments(host, sysroot);
    const { staged, stagedRecord } = deployments;
    if (staged?.origin === undefined || stagedRecord === undefined) {
      throw new HostctlError('deployment-not-found', 'Nothing is downloaded', {
        hint: 'Run "hostctl upgrade --download-only" first',
      });
    }
    if (sysroot.isRunning) return { ...keepStaged(sysroot, staged, stagedRecord, 'stage'), avoided: null };
    await finalizeLocked(host, sysroot, deployments, staged, stagedRecord, options.etcPolicy);
    const { id, entryFile } = stagedRecord;
    return { ...describeDeployment(staged, id, entryFile), changed: true, avoided: null };
  });
}

function roomOptions({ keep, boot }: UpgradeOptions): BootRoomOptions {
  return { keep, isBootNamed: boot !== undefined };
}

function requestOf(options: UpgradeOptions, sysroot: Sysroot, allowMissingVerity: boolean): DeployRequest {
  const { kargs, algorithm, tries, image, etcPolicy, allowDowngrade, allowWeakerPolicy } = options;
  const mode = options.downloadOnly ? 'stage-locked' : sysroot.isRunning ? 'stage' : 'publish';
  return {
    kargs,
    algorithm,
    tries,
    allowMissingVerity,
    allowDowngrade,
    allowWeakerPolicy,
    etcPolicy,
    action: image === undefined ? 'upgrade' : 'switch',
    mode,
  };
}

/** What an upgrade goes on from: what was chosen last, whether it runs already or not. */
function newest(deployments: Deployments): Deployment | undefined {
  return deployments.staged ?? deployments.next ?? baseDeployment(deployments);
}

function targetReference(
  deployments: Deployments,
  { image, tag }: { readonly image?: string | undefined; readonly tag?: string | undefined },
): string {
  if (image !== undefined) return image;
  const tracked = newest(deployments)?.origin?.reference;
  if (tracked === undefined) {
    throw new HostctlError('deployment-not-found', 'There is no deployment whose image could be upgraded', {
      hint: 'Say which image: "hostctl switch IMAGE"',
    });
  }
  if (tag === undefined) return tracked;
  const reference = parseImageReference(tracked);
  switch (reference.transport) {
    case 'docker':
      return formatImageReference({ transport: 'docker', name: reference.name, tag });
    case 'oci':
    case 'oci-archive':
    case 'docker-archive':
      return formatImageReference({ ...reference, tag });
    case 'dir':
    case 'containers-storage':
      throw new HostctlError('usage', `The tracked image "${tracked}" has no tags`, { hint: 'Use "hostctl switch"' });
  }
}

/** Why this image is not taken unless it is asked for; undefined when it may be. */
function avoidanceOf(
  host: Host,
  sysroot: Sysroot,
  deployments: Deployments,
  manifestDigest: string,
): string | undefined {
  const { staged } = deployments;
  const of = (deployment: Deployment | undefined): boolean => deployment?.origin?.manifestDigest === manifestDigest;
  const failed = lastFailure(sysroot, bootLoader(host, sysroot), deployments);
  if (failed?.manifestDigest === manifestDigest) {
    return `The image ${manifestDigest} failed to boot as deployment ${failed.id}: ${failed.message}`;
  }
  const left = ifSound(() => readLeft(sysroot));
  if (left?.manifestDigest === manifestDigest && !of(deployments.next)) {
    return `The image ${manifestDigest} was left by hand (deployment ${left.id})`;
  }
  const failure = ifSound(() => readFinalizeFailure(sysroot));
  if (of(staged) && failure?.id === staged?.id) {
    return `Deployment ${failure?.id} could not be finalized at shutdown: ${failure?.message}`;
  }
  return undefined;
}

/** An older release of what is tracked: the registry was set back, or somebody wants us to go back. */
function refuseDowngrade(current: Deployment | undefined, source: ImageSource): void {
  const from = current?.origin?.version;
  const to = versionOf(source);
  if (from === undefined || to === null || compareVersions(to, from) >= 0) return;
  throw new HostctlError('downgrade-refused', `The tracked image is version "${to}" now, older than "${from}" here`, {
    hint: 'Pass --allow-downgrade to deploy it nevertheless',
  });
}

function versionOf(source: ImageSource): string | null {
  return source.config.labels.get('org.opencontainers.image.version') ?? null;
}

function describeCandidate(source: ImageSource): Candidate {
  return {
    reference: formatImageReference(source.reference),
    manifestDigest: source.manifestDigest,
    version: versionOf(source),
    created: source.config.created ?? null,
  };
}
