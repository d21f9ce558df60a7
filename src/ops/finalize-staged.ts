/**
 * `finalize-staged`: at shutdown the staged deployment gets the `/etc` of this last moment and then its name in the
 * boot menu. Nothing big is copied; until the one rename the host boots what it booted before. Why it did not succeed
 * stands on disk before it begins, and it is not tried again until somebody asks.
 */

import { commitEntry, readStagedEntry, retractEntry } from '../deploy/publish-entry.ts';
import { readDeployments, type Deployment, type Deployments } from '../deploy/deployments.ts';
import type { EtcMergePolicy } from '../deploy/etc-merge.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import {
  clearFinalizeFailure,
  clearStaged,
  readFinalizeFailure,
  writeFinalizeFailure,
  type StagedRecord,
} from '../deploy/staged.ts';
import { mergeStagedEtc } from '../deploy/state.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError, isShortage } from '../errors.ts';
import { requireRepository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { carryEtc, imageEtc, planCarryEtc, refuseEtcConflicts } from './carry-etc.ts';
import { recordTransition } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { dropStaged } from './unstage.ts';
import { withUndo } from './undo.ts';

export interface FinalizeResult {
  /** False when there was nothing to do; `reason` says why. */
  readonly changed: boolean;
  readonly id: number | null;
  readonly reason: 'finalized' | 'nothing-staged' | 'downloaded-only' | 'failed-before';
}

export interface FinalizeOptions extends SysrootOptions {
  /** What counts where local changes in `/etc` and the new image exclude each other. */
  readonly etcPolicy: EtcMergePolicy;
}

export function finalizeStaged(host: Host, options: FinalizeOptions): Promise<FinalizeResult> {
  requireRoot(host, 'finalize a staged deployment');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, async () => {
    const deployments = readDeployments(host, sysroot);
    const { staged, stagedRecord } = deployments;
    if (staged === undefined || stagedRecord === undefined) {
      // What a command that was cut off left has no effect any more.
      dropStaged(host, sysroot, deployments);
      return { changed: false, id: null, reason: 'nothing-staged' };
    }
    const { id } = stagedRecord;
    if (stagedRecord.isLocked) return { changed: false, id, reason: 'downloaded-only' };
    if (failedBefore(sysroot, id)) return { changed: false, id, reason: 'failed-before' };
    await finalizeLocked(host, sysroot, deployments, staged, stagedRecord, options.etcPolicy);
    return { changed: true, id, reason: 'finalized' };
  });
}

/** A failure that cannot be read is one all the same. */
function failedBefore(sysroot: Sysroot, id: number): boolean {
  try {
    return readFinalizeFailure(sysroot)?.id === id;
  } catch (error) {
    if (isShortage(error)) throw error;
    return true;
  }
}

/** Publishes what is staged. The caller holds the sysroot lock. What goes wrong is on record, and thrown. */
export async function finalizeLocked(
  host: Host,
  sysroot: Sysroot,
  deployments: Deployments,
  staged: Deployment,
  record: StagedRecord,
  policy: EtcMergePolicy,
): Promise<void> {
  const { id } = record;
  // Should this be killed, that is what happened.
  writeFinalizeFailure(sysroot, { id, code: 'interrupted', message: 'It was cut off before it was done' });
  try {
    await withUndo(host.log, async (undo) => {
      const { inert, origin } = requireWhole(sysroot, staged, record);
      mergeEtc(host, sysroot, deployments, staged, origin.digest, policy);
      undo.add('take the name from the boot entry again', () => retractEntry(sysroot.boot, inert));
      await commitEntry(host, sysroot.boot, inert);
      clearStaged(sysroot);
      clearFinalizeFailure(sysroot);
      recordTransition(host, sysroot, { sequence: id, action: record.action }, origin);
    });
  } catch (error) {
    const code = isHostctlError(error) ? error.code : 'io';
    const message = error instanceof Error ? error.message : String(error);
    writeFinalizeFailure(sysroot, { id, code, message });
    throw error;
  }
}

function requireWhole(
  sysroot: Sysroot,
  { problems, origin }: Deployment,
  { id, entryFile }: StagedRecord,
): { inert: NonNullable<ReturnType<typeof readStagedEntry>>['inert']; origin: NonNullable<Deployment['origin']> } {
  const found = readStagedEntry(sysroot.boot, entryFile);
  if (found !== undefined && origin !== undefined && problems.length === 0) return { inert: found.inert, origin };
  const why = problems.map(({ message }) => message).join('; ');
  throw new HostctlError('state-invalid', `The staged deployment ${id} is damaged: ${why}`, {
    hint: 'Run "hostctl unstage", then upgrade again',
  });
}

/** Carries the changes of the deployment that runs into the `/etc` of the staged one. */
function mergeEtc(
  host: Host,
  sysroot: Sysroot,
  { booted, next }: Deployments,
  staged: Deployment,
  digest: VerityDigest,
  policy: EtcMergePolicy,
): void {
  const repository = requireRepository(host, sysroot.repo);
  const defaults = imageEtc(repository, digest);
  const plan = planCarryEtc(host, { sysroot, repository, base: booted ?? next, next: defaults, policy });
  refuseEtcConflicts(plan);
  mergeStagedEtc(host, sysroot, {
    name: staged.name,
    defaults,
    contentOf: repositoryContent(repository),
    adjustEtc: (etc) => carryEtc(host, plan, etc),
  });
}
