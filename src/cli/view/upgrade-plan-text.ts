/** What an upgrade would do, for people. Pure. */

import type { UpgradePlan } from '../../ops/upgrade-plan.ts';
import { formatMebibytes } from '../../format/size.ts';
import { printable } from './status-text.ts';

export function upgradePlanText({ candidate, avoided, change }: UpgradePlan): string {
  if (change === null) return avoided === null ? 'Nothing to do\n' : `Nothing to do: ${avoided}\n`;
  const { etc, kargs } = change;
  const lines = [
    `Image      ${candidate.reference} (version ${candidate.version ?? 'unknown'}, ${candidate.manifestDigest})`,
    `composefs  ${change.digest}`,
    `Fetch      ${formatMebibytes(change.fetchBytes)}`,
    `Write      ${formatMebibytes(change.objectBytes)} in ${change.objects} objects, ${formatMebibytes(change.bootBytes)} on the boot partition`,
    ...change.bound.map((reference) => `Bound      ${reference}`),
    ...kargs.added.map((arg) => `Argument   + ${arg}`),
    ...kargs.removed.map((arg) => `Argument   - ${arg}`),
    `/etc       ${etc.changed.length} local changes are carried over`,
    ...etc.conflicts.map(({ path, reason }) => `Conflict   "${path}" ${reason}`),
    ...etc.drift.map(({ message }) => `Warning    ${message}`),
    ...(change.unstages === null ? [] : [`Unstages   deployment ${change.unstages}`]),
    ...(change.drops.length === 0 ? [] : [`Drops      deployment ${change.drops.join(', ')}`]),
    ...(change.dropsFirst.length === 0 ? [] : ['           before the new kernel, which does not fit beside them']),
    `Reboot     ${change.rebootNeeded ? 'needed' : 'not needed'}`,
  ];
  return `${lines.map(printable).join('\n')}\n`;
}
