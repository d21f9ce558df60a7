/**
 * `fsck`: reads what it claims to and lists what is not as it should be. With `repair` it puts right what can be put
 * right without inventing anything, then looks again: what is no longer found was repaired.
 */

import { readDeployments, type Deployment } from '../deploy/deployments.ts';
import { deploymentImage } from '../deploy/find-deployment.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { checkRepository } from '../store/check.ts';
import { openRepository, withRepositoryLock, withSharedLockIfFree, type Repository } from '../store/repository.ts';
import { usageOfImages, type ImageBytes, type ImageUse } from '../store/usage.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { checkHost, checkLayerRecords, type Finding, type Look } from './fsck-host.ts';
import { repairAll } from './fsck-repair.ts';
import { requireRoot } from './require-root.ts';

export interface FsckOptions extends SysrootOptions {
  /** Reads every byte. */
  readonly deep: boolean;
  readonly repair: boolean;
}

export interface FsckResult {
  readonly deep: boolean;
  readonly findings: readonly (Finding & { readonly repaired: boolean })[];
  /** Why something could not be repaired. */
  readonly failures: readonly string[];
  readonly usage: readonly DeploymentUse[];
}

/** What the files of a deployment's image take. */
export interface DeploymentUse extends ImageBytes {
  readonly id: number | null;
}

export async function fsck(host: Host, options: FsckOptions): Promise<FsckResult> {
  const { deep } = options;
  const sysroot = openSysroot(host, options);
  const repository = openIfReadable(host, sysroot.repo);
  if (options.repair) {
    requireRoot(host, 'repair');
    return withSysrootLock(host, sysroot, () =>
      repository === undefined
        ? repairAndLook(host, sysroot, repository, deep)
        : withRepositoryLock(host, repository.path, 'exclusive', () => repairAndLook(host, sysroot, repository, deep)),
    );
  }
  const look = async (): Promise<Look> => lookAt(host, sysroot, repository, deep);
  const seen =
    repository === undefined
      ? await look()
      : await withSharedLockIfFree(host, repository.path, (isLocked) => {
          if (!isLocked) host.log.warn('Another command changes the repository: what it does may show as damage');
          return look();
        });
  return resultOf(
    deep,
    seen,
    seen.findings.map((finding) => ({ ...finding, repaired: false })),
  );
}

/** A description that is damaged is something found; one of a newer version is not. */
function openIfReadable(host: Host, path: string): Repository | undefined {
  try {
    return openRepository(host, path);
  } catch (error) {
    if (isHostctlError(error, 'format-invalid')) return undefined;
    throw error;
  }
}

/** Whether something is corrupt and stays so. */
export function isDamaged({ findings }: FsckResult): boolean {
  return findings.some(({ isCorrupt, repaired }) => isCorrupt && !repaired);
}

async function repairAndLook(
  host: Host,
  sysroot: Sysroot,
  repository: Repository | undefined,
  deep: boolean,
): Promise<FsckResult> {
  const before = await lookAt(host, sysroot, repository, deep);
  if (before.findings.length === 0) return resultOf(deep, before, []);
  const { failures, after } = await keepingRepairs(host, async () => ({
    failures: await repairAll(host, sysroot, repository, before),
    after: await lookAt(host, sysroot, repository, deep),
  }));
  const left = new Set(after.findings.map(keyOf));
  const known = new Set(before.findings.map(keyOf));
  return resultOf(
    deep,
    after,
    [
      ...before.findings.map((finding) => ({ ...finding, repaired: !left.has(keyOf(finding)) })),
      ...after.findings.filter((item) => !known.has(keyOf(item))).map((item) => ({ ...item, repaired: false })),
    ],
    failures,
  );
}

/** Says, where it fails, that nothing is taken back. */
async function keepingRepairs<T>(host: Host, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    const kept = 'what was repaired so far stays so, and the next run goes on';
    if (isHostctlError(error, 'interrupted')) {
      throw new HostctlError('interrupted', `Stopped; ${kept}`, { cause: error });
    }
    host.log.warn(`Could not finish; ${kept}`);
    throw error;
  }
}

function keyOf({ code, object }: Finding): string {
  return `${code}\0${object}`;
}

async function lookAt(host: Host, sysroot: Sysroot, repository: Repository | undefined, deep: boolean): Promise<Look> {
  const deployments = readDeployments(host, sysroot);
  const { findings: objects, images } =
    repository === undefined ? { findings: [], images: [] } : await checkRepository(host, repository, deep);
  const users = (digests: readonly string[]): (number | null)[] =>
    deployments.list
      .filter((item) => imagesOf(item).some((digest) => digests.includes(digest)))
      .map(({ id }) => id ?? null);
  return {
    deployments,
    objects,
    images,
    findings: [
      ...checkHost(sysroot, repository, deployments),
      ...(deep && repository !== undefined ? checkLayerRecords(repository) : []),
      ...objects.map((finding) => ({
        code: finding.code,
        object: finding.digest,
        message: finding.message,
        deployments: users(finding.images),
        isCorrupt: true,
      })),
    ],
  };
}

/** The image that it boots, and those it is bound to. */
function imagesOf(item: Deployment): VerityDigest[] {
  return [deploymentImage(item) ?? [], ...(item.origin?.bound ?? []).map(({ digest }) => digest)].flat();
}

function resultOf(
  deep: boolean,
  { deployments, images }: Look,
  findings: FsckResult['findings'],
  failures: readonly string[] = [],
): FsckResult {
  return { deep, findings, failures, usage: usageOf(deployments.list, images) };
}

/** An image is shared with its objects when two deployments boot it: they free nothing one by one. */
function usageOf(list: readonly Deployment[], images: readonly ImageUse[]): DeploymentUse[] {
  const usage = usageOfImages(images, (base) => images.find(({ digest }) => digest === base));
  return list.flatMap((item) => {
    const digest = deploymentImage(item);
    const bytes = digest === undefined ? undefined : usage.get(digest);
    if (bytes === undefined) return [];
    const isShared = list.some((other) => other !== item && deploymentImage(other) === digest);
    const all = { uniqueBytes: 0, sharedBytes: bytes.uniqueBytes + bytes.sharedBytes };
    return { id: item.id ?? null, ...(isShared ? all : bytes) };
  });
}
