/**
 * The boot loader: what starts by itself, how often an entry is tried, and what this boot is to it. The only place that
 * knows how a loader counts: systemd-boot does it in the names of entries, and says what it did by variables of the Boot
 * Loader Interface; GRUB does it in its environment block, and says so on the command line.
 */

import { splitCmdline } from '../format/cmdline.ts';
import { parseEntryName, type BootCounter } from '../format/bls/name.ts';
import type { Host } from '../sys/host.ts';
import { defaultOf, type FoundEntry } from './boot-entries.ts';
import { blessEntry } from './publish-entry.ts';
import { countedByGrub, grubCounterOf, grubDefaultOf, readGrubState } from './grub.ts';
import { loaderText } from './loader-variables.ts';
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
  const bless = (entry: FoundEntry): Promise<string> => blessEntry(host, boot, entry);
  if (boot.isGrub) {
    const state = readGrubState(boot.path);
    return {
      countsBoots: () => state.canCount,
      thisBoot: () => countedByGrub(splitCmdline(host.kernelCmdline())),
      counterOf: (entry) => grubCounterOf(entry, state),
      defaultOf: (menu) => grubDefaultOf(menu, state),
      bless,
    };
  }
  return {
    countsBoots() {
      const features = host.loaderVariable('LoaderFeatures');
      return features !== undefined && features.length > 0 && ((features[0] ?? 0) & FEATURE_BOOT_COUNTING) !== 0;
    },
    thisBoot: () => parseEntryName((loaderText(host, 'LoaderBootCountPath') ?? '').replace(/^.*\\/, ''))?.counter,
    counterOf: ({ name }) => name.counter,
    defaultOf,
    bless,
  };
}

/**
 * How often a new deployment is tried. Where GRUB cannot write its environment block nothing is: an entry with tries
 * that are never used up would be started for ever.
 */
export function triesFor({ boot }: Sysroot, wanted: number): number {
  return boot.isGrub && !readGrubState(boot.path).canCount ? 0 : wanted;
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
  const plain = (arg: string): string => arg.replaceAll('"', '');
  const given = new Set(cmdline.map(plain));
  return (
    entries.find(({ name }) => name.id === id) ??
    // GRUB puts quotes around the whole of an argument, wherever they were.
    entries.find(({ kargs }) => kargs.every((arg) => given.has(plain(arg)))) ??
    entries[0]
  );
}
