/** Boot entries as they are found on the boot partition: ours, and those of others. */

import { isHostctlError, isShortage } from '../errors.ts';
import { entryOptions, entryValue, entryValues, parseEntry, type BlsEntry } from '../format/bls/entry.ts';
import { parseEntryName, parseHostctlEntryName, type EntryName } from '../format/bls/name.ts';
import { sortMenu, type MenuEntry } from '../format/bls/order.ts';
import { findDigestArguments, findKargs, splitCmdline, type DigestArgument } from '../format/cmdline.ts';
import { exists, listNames, readSmallFile } from '../sys/files.ts';
import { fileOnBoot, type BootPartition } from './boot-partition.ts';
import type { EntryProgram } from './kernels.ts';
import { menuEntryPath } from './grub.ts';

/** An entry as found, ours or foreign. */
export interface FoundEntry extends MenuEntry {
  readonly file: string;
  readonly name: EntryName;
  /** Sequence number; undefined for a foreign entry. */
  readonly sequence: number | undefined;
  readonly content: BlsEntry;
  readonly linux: string | undefined;
  readonly initrd: readonly string[];
  /** A unified kernel image, by `efi` or `uki`, or another program. */
  readonly efi: string | undefined;
  /** Of a unified kernel image, what it boots by. */
  readonly kargs: readonly string[];
  /** What it pins, first digest argument of the command line; undefined when it pins nothing. */
  readonly pinned: DigestArgument | undefined;
  /** Directory below `state/deploy`; the digest when the command line does not say. */
  readonly stateName: string | undefined;
  /** Why the boot loader leaves it out of its menu; undefined when it does not. */
  readonly skipped: string | undefined;
  /** Made for one boot with other arguments; never the one that stays. */
  readonly isOnce: boolean;
}

export interface EntryProblem {
  readonly file: string;
  readonly message: string;
}

export interface EntryListing {
  /** In the order of the boot menu, best first. */
  readonly entries: readonly FoundEntry[];
  readonly problems: readonly EntryProblem[];
}

export const ENTRIES = 'loader/entries';
/**
 * Says to us, and to no loader, by what a unified kernel image boots. With `options` the loader would hand the stub
 * something, which then takes the place of its own command line where the firmware verifies nothing.
 */
export const UKI_OPTIONS = 'x-hostctl-options';
/** Marks an entry that is for one boot. */
export const ONCE_KARG = 'hostctl.once=1';

/** How often the directory is read again at most. */
const MAX_LISTINGS = 8;

/**
 * Reads every entry; one that cannot be read is a problem, not a failure. systemd-bless-boot renames entries and knows
 * no lock of ours: one that is gone when it is read has another name by now, and must not be taken for none.
 */
export function listEntries(boot: BootPartition): EntryListing {
  let listing = listOnce(boot);
  for (let count = 1; listing.gone.length > 0 && count < MAX_LISTINGS; count += 1) listing = listOnce(boot);
  const { entries, problems, gone } = listing;
  const unopened = gone.map((file) => ({ file, message: 'It is in its directory, and cannot be found there' }));
  return { entries: sortMenu(entries), problems: [...problems, ...unopened] };
}

function listOnce(boot: BootPartition): EntryListing & { readonly gone: readonly string[] } {
  const directory = `${boot.path}/${ENTRIES}`;
  const entries: FoundEntry[] = [];
  const problems: EntryProblem[] = [];
  const gone: string[] = [];
  for (const file of listNames(directory)) {
    const name = parseEntryName(file);
    if (name === undefined || name.suffix !== '.conf') continue;
    try {
      const bytes = readSmallFile(`${directory}/${file}`);
      if (bytes === undefined) gone.push(file);
      else entries.push(describeEntry(boot, file, name, parseEntry(bytes)));
    } catch (error) {
      // Without it another entry would pass for the default.
      if (isShortage(error)) throw error;
      problems.push({ file, message: error instanceof Error ? error.message : String(error) });
    }
  }
  return { entries, problems, gone };
}

/** Where an entry lies. */
export function entryPath(boot: BootPartition, file: string): string {
  return `${boot.path}/${ENTRIES}/${file}`;
}

/** What boots by itself: the first of the menu that the loader does not leave out. */
export function defaultOf(menu: readonly FoundEntry[]): FoundEntry | undefined {
  return menu.find(({ skipped }) => skipped === undefined);
}

/** What an entry's file says, and what the boot loader makes of it. */
export function describeEntry(boot: BootPartition, file: string, name: EntryName, content: BlsEntry): FoundEntry {
  const sequence = parseHostctlEntryName(file)?.sequence;
  const embedded = sequence === undefined ? undefined : entryValue(content, UKI_OPTIONS);
  const kargs = splitCmdline(embedded ?? entryOptions(content));
  const pinned = pinnedBy(kargs);
  return {
    file,
    name,
    sequence,
    sortKey: entryValue(content, 'sort-key'),
    machineId: entryValue(content, 'machine-id'),
    version: entryValue(content, 'version'),
    content,
    linux: entryValue(content, 'linux'),
    initrd: entryValues(content, 'initrd'),
    efi: entryValue(content, 'efi') ?? entryValue(content, 'uki'),
    kargs,
    pinned,
    stateName: pinned === undefined ? undefined : (findKargs(kargs, 'hostctl.state').at(-1) ?? pinned.digest),
    skipped: boot.isGrub ? whySkippedByGrub(boot, file, content) : whySkipped(boot, file, content),
    isOnce: kargs.includes(ONCE_KARG),
  };
}

/** What an entry can start, each key another way. */
const PROGRAM_KEYS = ['linux', 'efi', 'uki', 'uki-url'] as const;

/**
 * The rules of systemd-boot: an entry names one program, in one way, and that program is there. A missing initrd does
 * not matter to it: such an entry is started, and fails.
 */
function whySkipped(boot: BootPartition, file: string, content: BlsEntry): string | undefined {
  if (/^auto-/i.test(file)) return 'its name begins with "auto-"';
  const [key, other] = PROGRAM_KEYS.filter((candidate) => entryValue(content, candidate) !== undefined);
  if (key === undefined) return 'it names nothing to start';
  if (other !== undefined) return `it has both "${key}" and "${other}"`;
  const program = entryValue(content, key) ?? '';
  const path = key === 'uki-url' ? undefined : fileOnBoot(boot, program);
  return path === undefined || exists(path) ? undefined : `"${program}" is missing`;
}

/** The rules of our script for GRUB, to which entries of others are nothing. */
function whySkippedByGrub(boot: BootPartition, file: string, content: BlsEntry): string | undefined {
  if (!exists(menuEntryPath(`${boot.path}/${ENTRIES}/${file}`))) return 'GRUB has no menu entry for it';
  return whySkipped(boot, file, content);
}

/** Whether an entry of ours starts a unified kernel image, to which no kernel arguments can be given. */
export function isUnified({ sequence, efi }: Pick<FoundEntry, 'sequence' | 'efi'>): boolean {
  return sequence !== undefined && efi !== undefined;
}

/** What an entry starts; undefined where it names nothing that ours can. */
export function programOf({ sequence, linux, initrd: [initrd], efi }: FoundEntry): EntryProgram | undefined {
  if (linux !== undefined && initrd !== undefined) return { linux, initrd };
  return sequence === undefined || efi === undefined ? undefined : { efi };
}

/** A foreign entry may say `composefs=` and mean something else: then it pins nothing that we know. */
function pinnedBy(kargs: readonly string[]): DigestArgument | undefined {
  try {
    return findDigestArguments(kargs)[0];
  } catch (error) {
    if (isHostctlError(error)) return undefined;
    throw error;
  }
}

/** The highest sequence number any entry file has, also one that cannot be parsed; 0 for none. */
export function highestSequence(boot: BootPartition): number {
  return listNames(`${boot.path}/${ENTRIES}`).reduce(
    (highest, file) => Math.max(highest, parseHostctlEntryName(file)?.sequence ?? 0),
    0,
  );
}
