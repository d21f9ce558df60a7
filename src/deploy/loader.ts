/** What the loader of the running machine can do and did, by the variables it set (Boot Loader Interface). */

import { parseEntryName } from '../format/bls/name.ts';
import type { Host } from '../sys/host.ts';
import type { FoundEntry } from './boot-entries.ts';

const FEATURE_BOOT_COUNTING = 1 << 4;

/** Whether the loader counts boots by the names of entries. False where it does not say. */
export function countsBoots(host: Host): boolean {
  const features = host.loaderVariable('LoaderFeatures');
  return features !== undefined && features.length > 0 && ((features[0] ?? 0) & FEATURE_BOOT_COUNTING) !== 0;
}

/** A variable of the loader that is a text; undefined where there is none. */
export function loaderText(host: Host, name: 'LoaderInfo' | 'LoaderEntrySelected'): string | undefined {
  const bytes = host.loaderVariable(name);
  return bytes === undefined ? undefined : new TextDecoder('utf-16le').decode(bytes).replace(/\0.*$/s, '');
}

/**
 * Which of `entries`, all of one deployment, the machine was booted by: the one the loader names, else the first whose
 * arguments the kernel has, else the first.
 */
export function bootedEntry(
  host: Host,
  entries: readonly FoundEntry[],
  cmdline: readonly string[],
): FoundEntry | undefined {
  const file = loaderText(host, 'LoaderEntrySelected') ?? '';
  // The variable may hold the name as it was before the loader counted the boot.
  const id = parseEntryName(file)?.id;
  return (
    entries.find(({ name }) => name.id === id) ??
    entries.find(({ kargs }) => kargs.every((arg) => cmdline.includes(arg))) ??
    entries[0]
  );
}
