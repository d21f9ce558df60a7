/**
 * `unstage`: the staged deployment is dropped, and nothing else. The record goes first: from then on nothing is
 * staged, and what a crash leaves of the rest is for gc. Every other change of what boots does the same once it is
 * done, since a staged entry that is published later would carry the lower number and never boot.
 */

import { dropStagedEntries } from '../deploy/publish-entry.ts';
import { readDeployments, type Deployments } from '../deploy/deployments.ts';
import { clearFinalizeFailure, clearStaged } from '../deploy/staged.ts';
import { removeState } from '../deploy/state.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { openRepository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { removeDeploymentRefs } from './bound-images.ts';
import { afterCommit } from './publish.ts';
import { requireRoot } from './require-root.ts';

export interface UnstageResult {
  /** False when nothing was staged. */
  readonly changed: boolean;
  readonly id: number | null;
}

export function unstage(host: Host, options: SysrootOptions): Promise<UnstageResult> {
  requireRoot(host, 'unstage');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, () => {
    const dropped = dropStaged(host, sysroot, readDeployments(host, sysroot));
    return Promise.resolve({ changed: dropped !== undefined, id: dropped ?? null });
  });
}

/** After a commit, which stands: what is staged has the lower number and never boots, also where it stays. */
export function dropReplaced(...args: Parameters<typeof dropStaged>): number | undefined {
  return afterCommit(args[0], 'drop what was staged before', () => dropStaged(...args));
}

/**
 * Drops what is staged, also a record that cannot be read, and returns its id; `replacedBy` is the entry that has
 * taken its place in the record. The caller holds the sysroot lock.
 */
export function dropStaged(
  host: Host,
  sysroot: Sysroot,
  { staged, stagedRecord }: Deployments,
  replacedBy?: string,
): number | undefined {
  if (replacedBy === undefined) clearStaged(sysroot);
  clearFinalizeFailure(sysroot);
  dropStagedEntries(sysroot.boot, replacedBy);
  if (staged === undefined || stagedRecord === undefined) return undefined;
  // Where it has another entry, it is more than what was staged.
  if (staged.entries.length === 0) {
    removeState(sysroot, staged.name);
    const repository = openRepository(host, sysroot.repo);
    if (repository !== undefined) removeDeploymentRefs(repository, stagedRecord.id);
  }
  host.log.info(`The staged deployment ${stagedRecord.id} is dropped`);
  return stagedRecord.id;
}
