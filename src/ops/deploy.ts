/**
 * `deploy`: an image reference becomes the deployment that boots next, or the staged one. Everything that can be
 * refused is refused before the first write that anyone could see. `upgrade`, `switch` and `install` do the same with
 * their own idea of which image.
 */

import { isUnified } from '../deploy/boot-entries.ts';
import { settleEntry } from '../deploy/publish-entry.ts';
import { baseDeployment, entryOf, readDeployments, type Deployment } from '../deploy/deployments.ts';
import { checkUserKarg } from '../deploy/change-kargs.ts';
import { chosenKargs, sameHostKargs } from '../deploy/kargs.ts';
import type { KernelFiles } from '../deploy/kernels.ts';
import { clearLeft } from '../deploy/left.ts';
import { clearFinalizeFailure, writeStaged, type StagedRecord } from '../deploy/staged.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { formatImageParameters } from '../format/cmdline.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { LAYERS_IN_PLACE } from '../image/layer-blobs.ts';
import type { ImageSource } from '../image/source.ts';
import type { ObjectCounts } from '../store/objects.ts';
import { openOrCreateRepository, type Repository } from '../store/repository.ts';
import { writeSigned } from '../store/seals.ts';
import { withObjectStore } from '../store/sweep.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { probeVerity } from '../sys/syscalls.ts';
import type { DirectoryNode, VerityDigest } from '../tree/node.ts';
import { carryEtc, refuseEtcConflicts, warnOfCarriedEtc, type CarryEtcPlan } from './carry-etc.ts';
import { afterCommit, checkBoot, publishDeployment, type PublishMode } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { judgeImage, type JudgeOptions } from './judge-image.ts';
import type { JudgedDigest } from './stated-digests.ts';
import { fetchUnknown } from './stored-layers.ts';
import { dropReplaced, dropStaged } from './unstage.ts';
import { checkDeployedVar } from './var-mount.ts';
import { isBy, leftoverState } from './unified-kernel.ts';
import { withImage } from './with-image.ts';
import {
  prepareDeployment,
  wantedDeployment,
  type Prepared,
  type Wanted,
  type WantedRequest,
} from './prepare-deployment.ts';

export interface DeployRequest extends WantedRequest {
  readonly tries: number;
  /** The verb, for the history. */
  readonly action: string;
  readonly mode: PublishMode;
  /** Makes room for a kernel that does not fit; without it the deployment is refused then. */
  readonly makeRoom?: (kernel: KernelFiles) => Promise<void>;
}

export interface DeployOptions
  extends SysrootOptions, Omit<DeployRequest, 'action' | 'mode' | 'kargsFor' | 'makeRoom'> {
  readonly image: string;
  readonly stage: boolean;
}

export interface DeployResult {
  /** False when the image boots next already, or is staged: then nothing was written. */
  readonly changed: boolean;
  readonly id: number;
  readonly digest: VerityDigest;
  /** `v1-sha512-12` */
  readonly parameters: string;
  readonly manifestDigest: string;
  readonly entryFile: string;
  readonly isStaged: boolean;
  /** The deployment that was staged before and is not any more. */
  readonly unstaged: number | null;
  readonly objects: ObjectCounts;
  /** The digests that the image states of itself; not looked at where nothing was done. */
  readonly stated: readonly JudgedDigest[];
}

const NO_OBJECTS: ObjectCounts = { writtenObjects: 0, writtenBytes: 0, reusedObjects: 0 };

export async function deploy(host: Host, options: DeployOptions): Promise<DeployResult> {
  requireRoot(host, 'deploy');
  options.kargs.forEach(checkUserKarg);
  const sysroot = openSysroot(host, options);
  return withImage(host, options.image, sysroot.repo, async (source) => {
    checkHost(host, sysroot, options.allowMissingVerity);
    const request = { ...options, action: 'deploy', mode: options.stage ? ('stage' as const) : ('publish' as const) };
    await fetchAhead(host, sysroot, source, request);
    return withSysrootLock(host, sysroot, () => deployLocked(host, sysroot, source, request));
  });
}

/**
 * Brings the layers here before the sysroot is locked, unless the image is there already as far as can be told without
 * the lock. What is told wrongly costs time only: under the lock whatever is missing is fetched.
 */
export async function fetchAhead(
  host: Host,
  sysroot: Sysroot,
  source: ImageSource,
  request: Pick<DeployRequest, 'mode' | 'algorithm' | keyof JudgeOptions>,
): Promise<void> {
  const { mode, algorithm } = request;
  const deployments = readDeployments(host, sysroot);
  const { staged, next } = deployments;
  const current = mode === 'publish' ? next : (staged ?? next);
  if (current?.origin?.manifestDigest === source.manifestDigest || source.blobs === LAYERS_IN_PLACE) return;
  // No layer comes of an image that the policy does not let in.
  await judgeImage(host, sysroot, { deployments, base: baseDeployment(deployments) }, source, request);
  // What is fetched is cache of a repository, which must be one for gc to know it.
  await fetchUnknown(openOrCreateRepository(host, sysroot.repo, { algorithm }), source);
}

/** Before anything is written: what would make it fail half way. */
export function checkHost(host: Host, sysroot: Sysroot, allowMissingVerity: boolean): void {
  checkBoot(sysroot);
  checkVerity(host, sysroot, allowMissingVerity);
}

/** Everything after the lock. `inspect` lets an installer look at what it deploys. */
export async function deployLocked(
  host: Host,
  sysroot: Sysroot,
  source: ImageSource,
  request: DeployRequest,
  inspect: (tree: DirectoryNode, repository: Repository, etc: string) => void = () => undefined,
): Promise<DeployResult> {
  const wanted = await wantedDeployment(host, sysroot, source, request);
  const { deployments, repository } = wanted;
  const kept = await keepDeployed(host, sysroot, wanted, request, (each) => isSame(each, wanted));
  if (kept !== undefined) return kept;
  return withObjectStore(host, repository, async (store) => {
    const prepared = await prepareDeployment(host, sysroot, wanted, store);
    const { image, facts, contentOf, kargs, carried, origin, seal, stated } = prepared;
    const again = await keepDeployed(host, sysroot, wanted, request, (each) =>
      isRenamed(host, sysroot, each, prepared, request),
    );
    if (again !== undefined) return again;
    if (facts.kernel.kind === 'unified') leftoverState(host, sysroot, image.digest);
    refuseEtcConflicts(carried);
    warnOfCarriedEtc(host, carried);
    await request.makeRoom?.(facts.kernel);
    const published = await publishDeployment(host, sysroot, repository, {
      origin,
      seal: seal.files,
      tree: image.tree,
      contentOf,
      kernel: facts.kernel,
      adjustEtc: (etc) => {
        // What is staged keeps the image's default until it is finalized.
        if (request.mode === 'publish') carryEtc(host, carried, etc);
        inspect(image.tree, repository, etc);
        const { kernel } = facts;
        const args = kernel.kind === 'unified' ? kernel.kargs : chosenKargs(kargs).map(({ arg }) => arg);
        checkDeployedVar(facts, args, carriedFrom(carried, 'fstab') ?? etc, image.tree, contentOf);
      },
      tries: request.tries,
      action: request.action,
      mode: request.mode,
    });
    const isStaged = request.mode !== 'publish';
    const unstaged = dropReplaced(host, sysroot, deployments, isStaged ? published.entryFile : undefined);
    afterCommit(host, 'forget which image was left by hand', () => clearLeft(sysroot));
    if (!published.settled) {
      host.log.warn('The boot partition cannot be flushed for the boot loader; older kernels stay until the next boot');
    }
    return {
      changed: true,
      id: published.id,
      digest: image.digest,
      parameters: formatImageParameters(image.parameters),
      manifestDigest: source.manifestDigest,
      entryFile: published.entryFile,
      isStaged,
      unstaged: unstaged ?? null,
      objects: image.objects,
      stated,
    };
  });
}

/** What is staged or boots next, where that is what is wanted: nothing is made then. */
async function keepDeployed(
  host: Host,
  sysroot: Sysroot,
  wanted: Wanted,
  { mode }: DeployRequest,
  isWanted: (deployment: Deployment) => boolean,
): Promise<DeployResult | undefined> {
  const { staged, stagedRecord, next, defaultEntry } = wanted.deployments;
  if (mode !== 'publish' && staged !== undefined && stagedRecord !== undefined && isWanted(staged)) {
    return keepStaged(sysroot, staged, stagedRecord, mode);
  }
  if (next?.id === undefined || defaultEntry === undefined || !isWanted(next)) return undefined;
  // Should a command have died after its commit, the change is made durable now.
  await settleEntry(host, sysroot.boot, defaultEntry.file);
  const unchanged = describeDeployment(next, next.id, defaultEntry.file);
  refreshSeal(wanted, unchanged.digest);
  // It would take the place of what is kept: unlike after a commit, it must go.
  const unstaged = dropStaged(host, sysroot, wanted.deployments);
  return { ...unchanged, changed: unstaged !== undefined, unstaged: unstaged ?? null };
}

/**
 * Whether an upgrade leads to the root and the unified kernel image that a deployment has already: the publisher made
 * another manifest of them, and there can be only one deployment. Says so.
 */
export function isRenamed(
  host: Host,
  sysroot: Sysroot,
  deployment: Deployment,
  { image, facts, origin }: Prepared,
  { action }: DeployRequest,
): boolean {
  // Another reference would have to be tracked from now on, and nothing that is deployed is changed.
  const isTracked = action === 'upgrade' && deployment.origin?.reference === origin.reference;
  if (!isTracked || !isBy(sysroot, deployment, image.digest, facts.kernel)) return false;
  host.log.warn(
    `"${origin.reference}" is ${origin.manifestDigest} now, with the root and the kernel of deployment ${deployment.id}: nothing is new`,
  );
  return true;
}

/** The live `/etc` where a file of it is carried over. */
function carriedFrom({ live, merge }: CarryEtcPlan, name: string): string | undefined {
  return merge.changes.some(({ path }) => path === name) ? live : undefined;
}

/** Whether a deployment is what would be made: this very image, tracked alike, made the same way, and whole. */
export function isSame(deployment: Deployment, { source, sameImageKargs, repository }: Wanted): boolean {
  const { origin, problems, state } = deployment;
  const entry = entryOf(deployment);
  // Its command line is the same with the same image, whatever the host has.
  const isByUnified = entry !== undefined && isUnified(entry);
  const isVerifiedAlike = origin?.verityRequired === repository.hasVerity || (isByUnified && repository.hasVerity);
  return (
    origin !== undefined &&
    origin.manifestDigest === source.manifestDigest &&
    origin.reference === formatImageReference(source.reference) &&
    origin.parameters.algorithm === repository.algorithm &&
    isVerifiedAlike &&
    sameHostKargs(origin.kargs, isByUnified ? { ...sameImageKargs, host: origin.kargs.host } : sameImageKargs) &&
    problems.length === 0 &&
    state !== 'failed'
  );
}

/** Asked for again: neither downloaded only, unless that is what was asked for, nor given up after a failure. */
export function keepStaged(
  sysroot: Sysroot,
  staged: Deployment,
  record: StagedRecord,
  mode: PublishMode,
): DeployResult {
  const isLocked = mode === 'stage-locked';
  const changed = record.isLocked !== isLocked;
  if (changed) writeStaged(sysroot, { ...record, isLocked });
  clearFinalizeFailure(sysroot);
  return { ...describeDeployment(staged, record.id, record.entryFile), changed, isStaged: true };
}

/** The same image may have been signed once more, by a key that hosts are to trust from now on. */
function refreshSeal({ judgement, repository }: Wanted, digest: VerityDigest): void {
  const found = judgement.accepted.find(({ seal }) => seal.digests.some((each) => each.digest === digest));
  if (found !== undefined) writeSigned(repository, digest, found.files);
}

/** A deployment that is there already, as the result of a command that changed nothing. */
export function describeDeployment({ origin }: Deployment, id: number, entryFile: string): DeployResult {
  return {
    changed: false,
    id,
    digest: origin!.digest,
    parameters: formatImageParameters(origin!.parameters),
    manifestDigest: origin!.manifestDigest,
    entryFile,
    isStaged: false,
    unstaged: null,
    objects: NO_OBJECTS,
    stated: [],
  };
}

/** Before anything is written: a host that cannot verify is refused unless the user accepts it. */
function checkVerity(host: Host, { path, repo }: Sysroot, allowMissing: boolean): void {
  if (probeVerity(host.syscalls, isDirectory(repo) ? repo : path)) return;
  if (!allowMissing) {
    throw new HostctlError('verity-unsupported', `The file system of "${repo}" has no fs-verity`, {
      hint: 'Use ext4 made with "-O verity" or btrfs; --allow-missing-verity deploys without any verification',
    });
  }
  host.log.warn(`The file system of "${repo}" has no fs-verity: nothing will be verified at boot`);
}
