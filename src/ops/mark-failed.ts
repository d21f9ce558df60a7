/**
 * `mark-failed`: this boot is not a good one. Why goes on record; where it was one of the tries of a deployment that has
 * not been good yet, the machine boots again. One that has been good stays up: what fails in it later is for the
 * administrator.
 */

import { endBoot, type EndedBoot } from '../deploy/assessment.ts';
import { bootLoader } from '../deploy/loader.ts';
import { openSysroot, withSysrootLock, type SysrootOptions } from '../deploy/sysroot.ts';
import { writeTrial, type BootFailure, type Trial } from '../deploy/trials.ts';
import type { Host } from '../sys/host.ts';
import { findBootFailure, type BootChecks } from './check-boot.ts';
import { afterCommit } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { readThisBoot } from './this-boot.ts';
import { failedUnits, startingUnits } from './units.ts';

export type MarkFailedOptions = SysrootOptions & BootChecks;

export interface MarkFailedResult extends BootFailure {
  readonly id: number | undefined;
  /** `next-try`: the caller reboots. */
  readonly decision: EndedBoot;
}

export async function markFailed(host: Host, options: MarkFailedOptions): Promise<MarkFailedResult> {
  requireRoot(host, 'mark a boot as failed');
  const sysroot = openSysroot(host, options);
  const failure = await findReason(host, options);
  return withSysrootLock(host, sysroot, () => {
    const { booted, entry } = readThisBoot(host, sysroot, 'mark-failed');
    const counted = bootLoader(host, sysroot).thisBoot();
    const isTried = booted.state !== 'good' && entry?.isOnce !== true;
    const bootId = host.bootId();
    const fresh: Trial | undefined = counted && {
      attempts: counted.done ?? 1,
      tries: counted.left + (counted.done ?? 1),
      bootId,
      failure,
      isFailed: false,
      rollback: undefined,
    };
    const trial = isTried ? (booted.trial ?? fresh) : undefined;
    if (trial !== undefined) {
      // A root that is full must not keep the machine here.
      afterCommit(host, 'record why this boot failed', () => writeTrial(sysroot, booted.name, { ...trial, failure }));
    }
    return Promise.resolve({ id: booted.id, decision: endBoot(trial), ...failure });
  });
}

/** A check that fails, else units that have failed, else what has not come to its end. */
async function findReason(host: Host, checks: BootChecks): Promise<BootFailure> {
  // Units that are required and still starting are told of below; nothing is waited for any more.
  const failure = await findBootFailure(host, { ...checks, requiredUnits: [] });
  if (failure !== undefined) return failure;
  const failed = await failedUnits(host);
  if (failed.length > 0) return { code: 'unit-failed', message: `Units failed: ${some(failed)}` };
  const starting = await startingUnits(host);
  const still = starting.length === 0 ? '' : `; still starting: ${some(starting)}`;
  return { code: 'timeout', message: `boot-complete.target was not reached in time${still}` };
}

const SHOWN = 5;

function some(names: readonly string[]): string {
  const more = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : '';
  return `${names.slice(0, SHOWN).join(', ')}${more}`;
}
