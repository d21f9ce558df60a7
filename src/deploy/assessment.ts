/**
 * Boot assessment: what a boot of a deployment means that has not been good yet. Decided from the loader's counter and
 * from our own, whichever is higher, so that a loader that miscounts does no harm. Pure.
 */

import type { BootCounter } from '../format/bls/name.ts';
import type { BootFailure, Trial } from './trials.ts';

/** What is known when such a boot begins. */
export interface BegunBoot {
  /** The counter of the entry that was booted, as it is since. */
  readonly counter: BootCounter;
  readonly trial: Trial | undefined;
  readonly bootId: string;
  /** Whether there is another deployment that has been good and can boot. */
  readonly hasGood: boolean;
  /** The highest number that any entry has. */
  readonly newestEntry: number;
}

export type BootDecision =
  /** It has this boot; the record says so. */
  | { readonly kind: 'try'; readonly trial: Trial }
  /** It had all its boots: another one is started in its place. */
  | { readonly kind: 'roll-back'; readonly trial: Trial }
  /** The same, but nothing else can be started, or was already and did not stay. */
  | { readonly kind: 'stay'; readonly trial: Trial };

/** At the beginning of a boot. */
export function beginBoot({ counter, trial, bootId, hasGood, newestEntry }: BegunBoot): BootDecision {
  const done = counter.done ?? 0;
  const isAgain = trial?.bootId === bootId;
  const attempts = Math.max((trial?.attempts ?? 0) + (isAgain ? 0 : 1), done);
  const begun: Trial = {
    attempts,
    tries: trial?.tries ?? counter.left + done,
    bootId,
    failure: trial?.failure,
    isFailed: trial?.isFailed ?? false,
    rollback: trial?.rollback,
  };
  if (!begun.isFailed && attempts <= begun.tries) return { kind: 'try', trial: begun };
  const failed = { ...begun, isFailed: true, failure: begun.failure ?? incomplete(begun.tries) };
  // Where it was cut off before its entry had its name, it has not been made.
  const wasRolledBack = begun.rollback !== undefined && begun.rollback <= newestEntry;
  return hasGood && !wasRolledBack ? { kind: 'roll-back', trial: failed } : { kind: 'stay', trial: failed };
}

/** What follows when a check failed or time ran out. */
export type EndedBoot = 'next-try' | 'stay';

/** @param trial - undefined when the deployment has been good, or this boot is none of its tries */
export function endBoot(trial: Trial | undefined): EndedBoot {
  // Its last try is left to the loader too; should that start it once more, `beginBoot` ends it.
  return trial === undefined || trial.isFailed ? 'stay' : 'next-try';
}

/** A boot that left no reason. */
export function incomplete(attempts: number): BootFailure {
  const boots = attempts === 1 ? 'Its only boot' : `None of its ${attempts} boots`;
  const message = attempts === 1 ? `${boots} did not come to an end` : `${boots} came to an end`;
  return { code: 'incomplete', message: `${message}: the kernel, the initramfs or a service failed or hung` };
}
