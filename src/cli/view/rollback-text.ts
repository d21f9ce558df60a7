/** What `rollback` did or would do, for people. Pure. */

import type { RollbackPlan } from '../../ops/rollback.ts';

export function rollbackText({ from, to, entryFile, unstaged }: RollbackPlan): string {
  const dropped = unstaged === null ? '' : `Deployment ${unstaged} is not staged any more\n`;
  if (from === to) return `Deployment ${to ?? '?'} is the default already\n${dropped}`;
  return `Deployment ${to ?? '?'} boots next ("${entryFile}")\n${dropped}`;
}

export function rollbackPlanText(plan: RollbackPlan): string {
  const { from, to, entryFile, unstaged, kernelChanges, kargs, rebootNeeded } = plan;
  if (!plan.changed) return `Nothing to do: deployment ${to ?? '?'} is the default already\n`;
  const lines = [
    ...(from === to
      ? []
      : [`Deployment ${to ?? '?'} would boot instead of ${from ?? '?'}, by a new entry "${entryFile}"`]),
    ...(unstaged === null ? [] : [`Deployment ${unstaged} would not be staged any more`]),
    `Kernel: ${kernelChanges ? 'another one' : 'the same'}`,
    ...kargs.added.map((arg) => `Argument added:   ${arg}`),
    ...kargs.removed.map((arg) => `Argument removed: ${arg}`),
    `Reboot: ${rebootNeeded ? 'needed' : 'not needed'}`,
  ];
  return `${lines.join('\n')}\n`;
}
