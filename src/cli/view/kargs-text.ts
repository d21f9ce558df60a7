/** Kernel arguments for people. Pure. */

import type { KargsOnceResult } from '../../ops/kargs-once.ts';
import type { ChangeKargsResult, ShownKarg, ShownKargs } from '../../ops/kargs.ts';

/** One argument a line, with where it comes from behind it. */
export function shownKargsText({ kargs }: ShownKargs): string {
  return lines(kargs, '');
}

export function changedKargsText({ changed, from, id, entryFile, added, removed, etc }: ChangeKargsResult): string {
  if (!changed) return `Nothing to do: deployment ${from ?? '?'} has these arguments\n`;
  const changes = lines(removed, '- ') + lines(added, '+ ');
  if (id === undefined) {
    const conflicts = etc.conflicts.map(({ path, reason }) => `Conflict: "${path}" ${reason}\n`).join('');
    return `Deployment ${from ?? '?'} would be followed by one with\n${changes}${conflicts}`;
  }
  return `${changes}Deployment ${id} boots next ("${entryFile ?? ''}")\n`;
}

export function onceKargsText({ id, entryFile, added, removed }: KargsOnceResult): string {
  const changes = lines(removed, '- ') + lines(added, '+ ');
  const when = entryFile === undefined ? 'would boot once with them' : `boots once with them ("${entryFile}")`;
  return `${changes}Deployment ${id ?? '?'} ${when}, then as before\n`;
}

function lines(kargs: readonly ShownKarg[], sign: string): string {
  const width = Math.max(0, ...kargs.map(({ arg }) => Math.min(arg.length, MAX_WIDTH)));
  return kargs
    .map(({ arg, origin, file }) => `${sign}${arg.padEnd(width)}  (${origin}${file === undefined ? '' : ` ${file}`})\n`)
    .join('');
}

/** A digest would push everything else off the screen. */
const MAX_WIDTH = 48;
