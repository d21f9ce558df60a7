/** Carries local changes of `/etc` from the deployment that is replaced into the fresh `/etc` of the new one. */

import type { Deployment } from '../deploy/deployments.ts';
import { applyEtcMerge } from '../deploy/etc-apply.ts';
import { planEtcMerge } from '../deploy/etc-merge.ts';
import { scanDirectory } from '../deploy/etc-scan.ts';
import { directoryIn } from '../deploy/state.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { readImage } from '../store/images.ts';
import type { Repository } from '../store/repository.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { displayRaw } from '../tree/name.ts';
import type { DirectoryNode } from '../tree/node.ts';

export interface CarryEtcOptions {
  readonly sysroot: Sysroot;
  readonly repository: Repository;
  /** The deployment whose `/etc` is live, or would be at the next boot; undefined at the first deployment. */
  readonly base: Deployment | undefined;
  /** The new image's tree. */
  readonly next: DirectoryNode;
  /** The new `/etc`, with the new image's defaults in it. */
  readonly etc: string;
}

/** Throws 'etc-conflict' naming every path where both sides changed in ways that exclude each other. */
export function carryEtc(host: Host, { sysroot, repository, base, next, etc }: CarryEtcOptions): void {
  if (base === undefined) return;
  const live = `${sysroot.deployments}/${base.name}/etc`;
  const defaults = defaultEtc(host, repository, base);
  if (defaults === undefined || !isDirectory(live)) return;
  const plan = planEtcMerge({
    base: defaults,
    local: scanDirectory(host, live, repository.algorithm),
    next: directoryIn(next, 'etc'),
  });
  if (plan.conflicts.length > 0) {
    const listed = plan.conflicts.map(({ path, reason }) => `"/etc/${displayRaw(path)}" ${reason}`).join('; ');
    throw new HostctlError('etc-conflict', `Local changes in /etc cannot be carried over: ${listed}`, {
      hint: 'Move these files out of the way, then deploy again; nothing was changed',
    });
  }
  applyEtcMerge(host, plan, live, etc);
}

/** The `/etc` that the replaced deployment's image ships; without it nobody can tell what was changed locally. */
function defaultEtc(host: Host, repository: Repository, base: Deployment): DirectoryNode | undefined {
  const digest = base.origin?.digest;
  try {
    if (digest !== undefined) return directoryIn(readComposefsImage(readImage(repository, digest)), 'etc');
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
