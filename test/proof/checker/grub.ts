/**
 * What GRUB would start, by hostctl's script for it: from the environment block and the files beside the boot entries,
 * as docs/boot.md has them. Shares nothing with the script or with `src/`.
 */

import type { LoaderEntry } from './entries.ts';
import { Damage, type Files, join } from './files.ts';

const BLOCK_BYTES = 1024;

export function isGrubHost(boot: Files, bootDir: string): boolean {
  return boot.kind(join(bootDir, 'grub/hostctl.cfg')) === 'file';
}

/** The variables; none where GRUB could not read the block. */
export function grubVariables(boot: Files, bootDir: string): Map<string, string> {
  const block = boot.read(join(bootDir, 'grub/grubenv'));
  const variables = new Map<string, string>();
  if (block?.length !== BLOCK_BYTES || block.toString('latin1', 0, 25) !== '# GRUB Environment Block\n')
    return variables;
  for (const line of block.toString('latin1').split('\n')) {
    const [, name, value] = /^(hostctl_\w+)=(\d*)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) variables.set(name, value);
  }
  return variables;
}

/** The entry that is started by itself. Throws where a menu entry of GRUB says something else than its boot entry. */
export function grubDefault(boot: Files, bootDir: string, entries: readonly LoaderEntry[]): LoaderEntry | undefined {
  const usable = entries
    .filter((entry) => menuEntryOf(boot, bootDir, entry) !== undefined)
    .sort((a, b) => numberOf(b) - numberOf(a));
  for (const entry of usable) checkMenuEntry(boot, bootDir, entry);
  const variables = grubVariables(boot, bootDir);
  const find = (name: string): LoaderEntry | undefined =>
    usable.find((entry) => numberOf(entry) === Number(variables.get(name) || NaN));
  const tried = find('hostctl_try');
  const mayTry = variables.get('hostctl_check') === '1' && Number(variables.get('hostctl_left') || 0) > 0;
  if (tried !== undefined && mayTry) return tried;
  return find('hostctl_good') ?? usable.find((entry) => entry !== tried) ?? tried;
}

function numberOf({ fileName }: LoaderEntry): number {
  return Number(/^hostctl-(\d{8})/.exec(fileName)?.[1] ?? NaN);
}

function menuEntryOf(boot: Files, bootDir: string, { fileName }: LoaderEntry): string | undefined {
  const id = /^(hostctl-\d{8})(\+\d-\d)?\.conf$/.exec(fileName)?.[1];
  return id === undefined ? undefined : boot.read(join(bootDir, 'loader/entries', `${id}.cfg`))?.toString('latin1');
}

/** The same kernel, initrd and arguments. What the proof's arguments are made of means the same in quotes. */
function checkMenuEntry(boot: Files, bootDir: string, entry: LoaderEntry): void {
  const text = menuEntryOf(boot, bootDir, entry) ?? '';
  const words = (line: string): string[] => [...line.matchAll(/'([^']*)'/g)].map(([, word]) => word ?? '');
  const linux = words(/^ *linux .*$/m.exec(text)?.[0] ?? '');
  const initrd = words(/^ *initrd .*$/m.exec(text)?.[0] ?? '');
  const options = (entry.keys.get('options') ?? []).join(' ').split(' ');
  const expected = [entry.keys.get('linux')?.at(-1), ...options, ...(entry.keys.get('initrd') ?? [])];
  if (`${[...linux, ...initrd].join(' ')}` === expected.join(' ') && text.trimEnd().endsWith('fi')) return;
  throw new Damage(`the menu entry of ${entry.fileName} is not what the entry says: ${text}`);
}
