/** What `fsck` found, for people. Pure. */

import type { FsckResult } from '../../ops/fsck.ts';
import { formatBytes } from './bytes.ts';

export function fsckText({ deep, findings, failures, usage }: FsckResult): string {
  const lines = findings.map(({ message, deployments, isCorrupt, repaired }) => {
    const verdict = repaired ? 'Repaired' : isCorrupt ? 'Corrupt' : 'Note';
    const named = deployments.map((id) => id ?? '(no number)').join(', ');
    return `${verdict}: ${message}${named === '' ? '' : ` (deployment ${named})`}`;
  });
  lines.push(...failures);
  for (const { id, uniqueBytes, sharedBytes } of usage) {
    const name = `Deployment ${id ?? '(no number)'}`;
    lines.push(`${name}: ${formatBytes(uniqueBytes)} of its own, ${formatBytes(sharedBytes)} shared`);
  }
  const left = findings.filter(({ isCorrupt, repaired }) => isCorrupt && !repaired).length;
  if (left > 0) lines.push(`${left} thing${left > 1 ? 's are' : ' is'} corrupt`);
  else lines.push(deep ? 'Every byte is what it should be' : 'Nothing is corrupt ("--deep" reads every byte)');
  return `${lines.join('\n')}\n`;
}
