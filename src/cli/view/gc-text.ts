/** What `gc` and `delete` removed, or would remove, for people. Pure. */

import type { GcItem } from '../../ops/gc-plan.ts';
import type { GcResult } from '../../ops/gc.ts';
import { formatBytes } from './bytes.ts';

/** Many of a kind are one line: their names say nothing to a person. */
const COUNTED = new Map<GcItem['kind'], string>([
  ['object', 'objects'],
  ['object-directory', 'emptied directories of objects'],
]);

export function gcText(result: GcResult): string {
  const { dryRun, items, waiting, deployments, freed, notes } = result;
  const lines: string[] = [];
  if (deployments.length > 0) {
    const named = deployments.map((id) => id ?? '(no number)').join(', ');
    lines.push(`${dryRun ? 'Would drop' : 'Dropped'} deployment${deployments.length > 1 ? 's' : ''} ${named}`);
  }
  lines.push(...itemLines(dryRun ? 'Would remove' : 'Removed', items));
  lines.push(...itemLines('Waits for the next boot:', waiting));
  for (const { message } of notes) lines.push(`Kept: ${message}`);
  for (const { fileSystem, bytes } of freed) {
    lines.push(`${dryRun ? 'Would free' : 'Freed'} ${formatBytes(bytes)} on "${fileSystem}"`);
  }
  if (items.length === 0 && waiting.length === 0) lines.push('Nothing to remove');
  return `${lines.join('\n')}\n`;
}

function itemLines(verb: string, items: readonly GcItem[]): string[] {
  const single = items.filter(({ kind }) => !COUNTED.has(kind));
  const lines = single.map(({ kind, path, bytes }) => `${verb} ${kind} "${path}" (${formatBytes(bytes)})`);
  for (const [kind, words] of COUNTED) {
    const many = items.filter((item) => item.kind === kind);
    if (many.length === 0) continue;
    const bytes = many.reduce((sum, item) => sum + item.bytes, 0);
    lines.push(`${verb} ${many.length} ${words}${bytes > 0 ? ` (${formatBytes(bytes)})` : ''}`);
  }
  return lines;
}
