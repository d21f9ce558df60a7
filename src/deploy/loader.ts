/**
 * The boot loader: what starts by itself, how often an entry is tried, and what this boot is to it. The only place that
 * knows how a loader counts; systemd-boot does it in the names of entries, and says what it did by variables of the Boot
 * Loader Interface.
 */

import { parseEntryName, type BootCounter } from '../format/bls/name.ts';
import type { Host } from '../sys/host.ts';
import { blessEntry, defaultOf, type FoundEntry } from './boot-entries.ts';
import type { Sysroot } from './sysroot.ts';

const FEATURE_BOOT_COUNTING = 1 << 4;

export interface BootLoader {
  /** Whether it counts boots; false where it does not say. */
  countsBoots(): boolean;
  /** The counter of this boot, as the loader left it. Where there is one, another try or another entry follows. */
  thisBoot(): BootCounter | undefined;
  /** The tries of an entry; undefined when it has been good, or is not counted. */
  counterOf(entry: FoundEntry): BootCounter | undefined;
  /** What it starts by itself, out of its menu. */
  defaultOf(menu: readonly FoundEntry[]): FoundEntry | undefined;
  /** Takes the counter off an entry, durably: its boot was good. Idempotent. Returns the name it has since. */
  bless(entry: FoundEntry): Promise<string>;
}

export function bootLoader(host: Host, { boot }: Sysroot): BootLoader {
  return {
    countsBoots() {
      const features = host.loaderVariable('LoaderFeatures');
      return features !== undefined && features.length > 0 && ((features[0] ?? 0) & FEATURE_BOOT_COUNTING) !== 0;
    },
    thisBoot: () => parseEntryName(loaderText(host, 'LoaderBootCountPath')?.replace(/^.*\\/, '') ?? '')?.counter,
    counterOf: ({ name }) => name.counter,
    defaultOf,
    bless: (entry) => blessEntry(host, boot, entry),
  };
}

/** A variable of the loader that is a text; undefined where there is none. */
export function loaderText(
  host: Host,
  name: 'LoaderInfo' | 'LoaderEntrySelected' | 'LoaderBootCountPath',
): string | undefined {
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
  // The variable may hold the name as it was before the loader counted the boot.
  const id = parseEntryName(loaderText(host, 'LoaderEntrySelected') ?? '')?.id;
  return (
    entries.find(({ name }) => name.id === id) ??
    entries.find(({ kargs }) => kargs.every((arg) => cmdline.includes(arg))) ??
    entries[0]
  );
}
