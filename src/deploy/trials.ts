/**
 * How the boots of a deployment went that has not been good yet: `state/hostctl/trial-<state name>`, written anew by each
 * of them. This count is our own, so that a boot loader that counts wrongly, or not at all, cannot boot a bad deployment
 * for ever. A deployment that is good has no such record.
 */

import { readRecord, removeRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

export interface BootFailure {
  /** One word for programs. */
  readonly code: string;
  readonly message: string;
}

export interface Trial {
  /** Boots begun so far. */
  readonly attempts: number;
  /** How many it gets. */
  readonly tries: number;
  /** Id of the boot that was counted last. */
  readonly bootId: string;
  /** Why the last boot that said so failed. */
  readonly failure: BootFailure | undefined;
  /** Given up: it is not started again by itself. */
  readonly isFailed: boolean;
  /** Number of the entry that started another deployment in its place; there is one such rollback at most. */
  readonly rollback: number | undefined;
}

/** Undefined when there is none: it is good, or was never tried. Throws for a broken record. */
export function readTrial(sysroot: Sysroot, stateName: string): Trial | undefined {
  const fields = readRecord(sysroot, trialFile(stateName), 'trial');
  if (fields === undefined) return undefined;
  const [code, rollback] = [fields.find('reason'), fields.find('rollback')];
  return {
    attempts: Number(fields.get('attempts')),
    tries: Number(fields.get('tries')),
    bootId: fields.get('boot'),
    failure: code === undefined ? undefined : { code, message: fields.get('message') },
    isFailed: fields.get('failed') === 'yes',
    rollback: rollback === undefined ? undefined : Number(rollback),
  };
}

/** Durable when this returns. */
export function writeTrial(sysroot: Sysroot, stateName: string, trial: Trial): void {
  writeRecord(sysroot, trialFile(stateName), 'trial', {
    attempts: String(trial.attempts),
    tries: String(trial.tries),
    boot: trial.bootId,
    reason: trial.failure?.code,
    message: trial.failure?.message,
    failed: trial.isFailed ? 'yes' : 'no',
    rollback: trial.rollback === undefined ? undefined : String(trial.rollback),
  });
}

/** Forgets it: the deployment is good, or is to be tried from the beginning. Idempotent. */
export function clearTrial(sysroot: Sysroot, stateName: string): void {
  removeRecord(sysroot, trialFile(stateName));
}

function trialFile(stateName: string): string {
  return `trial-${stateName}`;
}
