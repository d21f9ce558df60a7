/**
 * Which deployments a retention policy drops. What runs, what boots next, what is staged, what a rollback would go to,
 * the newest good one and pinned ones are never dropped, whatever the count; what is left is dropped worst and oldest
 * first. Pure.
 */

import type { Deployment, Deployments } from './deployments.ts';

export interface RetentionPolicy {
  /** How many deployments stay, those that are never dropped among them. */
  readonly keep: number;
}

/** The deployments to drop, in the order in which they go. */
export function planRetention(deployments: Deployments, { keep }: RetentionPolicy): Deployment[] {
  const heldBack = protectedDeployments(deployments);
  const present = deployments.list.filter((item) => isOurs(item) && (item.entries.length > 0 || heldBack.has(item)));
  const candidates = present
    .filter((item) => !heldBack.has(item))
    .sort((a, b) => worth(a) - worth(b) || rank(a) - rank(b));
  return candidates.slice(0, Math.max(0, present.length - keep));
}

/** What may never be dropped by itself. */
export function protectedDeployments(deployments: Deployments): ReadonlySet<Deployment> {
  const { list, booted, next, staged, rollback } = deployments;
  const byRank = list.filter(({ entries }) => entries.length > 0).sort(newestFirst);
  const held = new Set<Deployment>();
  const hold = (item: Deployment | undefined): void => {
    if (item !== undefined) held.add(item);
  };
  hold(booted);
  hold(next);
  hold(staged);
  hold(rollback);
  // Where a foreign entry is the default, this is what the loader takes among ours.
  hold(byRank.find(({ state }) => state !== 'failed'));
  hold(byRank.find(isSound));
  for (const item of list) {
    // An entry that is not ours may name it: what others boot is not ours to drop.
    const isForeign = item.entries.some(({ sequence }) => sequence === undefined);
    if (item.pinned || isForeign) hold(item);
  }
  return held;
}

/** What only a foreign entry starts is another tool's, and counts for nothing. */
function isOurs({ origin, entries }: Deployment): boolean {
  return origin !== undefined || entries.some(({ sequence }) => sequence !== undefined);
}

/** Good, and nothing wrong with it. */
export function isSound({ state, problems }: Deployment): boolean {
  return state === 'good' && problems.length === 0;
}

/** By which of them stands higher in the menu. */
export function newestFirst(a: Deployment, b: Deployment): number {
  return rank(b) - rank(a);
}

/** Sequence number of the entry that stands highest in the menu. */
function rank({ entries }: Deployment): number {
  return entries[0]?.sequence ?? 0;
}

function worth({ state, problems }: Deployment): number {
  if (problems.length > 0) return 0;
  return state === 'failed' ? 1 : 2;
}
