/**
 * Boot entries on the boot partition. Publishing one is the only switch hostctl ever makes: an inert file, whole and
 * durable, is renamed to a fresh name whose number puts it first. No entry is edited, replaced or renumbered, and what
 * hostctl did not make is never touched.
 */

import * as fs from 'node:fs';
import { HostctlError, isHostctlError, isShortage } from '../errors.ts';
import { withChecksum } from '../format/checksum.ts';
import { entryOptions, entryValue, entryValues, formatEntry, parseEntry, type BlsEntry } from '../format/bls/entry.ts';
import {
  formatHostctlEntryName,
  MAX_SEQUENCE,
  parseEntryName,
  parseHostctlEntryName,
  type BootCounter,
  type EntryName,
} from '../format/bls/name.ts';
import { sortMenu, type MenuEntry } from '../format/bls/order.ts';
import { findDigestArguments, findKargs, splitCmdline, type DigestArgument } from '../format/cmdline.ts';
import {
  createFile,
  exists,
  fsyncPath,
  listNames,
  makeDirectories,
  readSmallFile,
  removeQuietly,
} from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { bootBarrier, fileOnBoot, type BootPartition } from './boot-partition.ts';

/** An entry as found, ours or foreign. */
export interface FoundEntry extends MenuEntry {
  readonly file: string;
  readonly name: EntryName;
  /** Sequence number; undefined for a foreign entry. */
  readonly sequence: number | undefined;
  readonly content: BlsEntry;
  readonly linux: string | undefined;
  readonly initrd: readonly string[];
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
/** Marks an entry that is for one boot. */
export const ONCE_KARG = 'hostctl.once=1';

/** Reads every entry; one that cannot be read is a problem, not a failure. */
export function listEntries(boot: BootPartition): EntryListing {
  const directory = `${boot.path}/${ENTRIES}`;
  const entries: FoundEntry[] = [];
  const problems: EntryProblem[] = [];
  for (const file of listNames(directory)) {
    const name = parseEntryName(file);
    if (name === undefined || name.suffix !== '.conf') continue;
    try {
      const bytes = readSmallFile(`${directory}/${file}`);
      if (bytes !== undefined) entries.push(describeEntry(boot, file, name, parseEntry(bytes)));
    } catch (error) {
      // Without it another entry would pass for the default.
      if (isShortage(error)) throw error;
      problems.push({ file, message: error instanceof Error ? error.message : String(error) });
    }
  }
  return { entries: sortMenu(entries), problems };
}

/** Where an entry lies. */
export function entryPath(boot: BootPartition, file: string): string {
  return `${boot.path}/${ENTRIES}/${file}`;
}

/** What boots by itself: the first of the menu that the loader does not leave out. */
export function defaultOf(menu: readonly FoundEntry[]): FoundEntry | undefined {
  return menu.find(({ skipped }) => skipped === undefined);
}

function describeEntry(boot: BootPartition, file: string, name: EntryName, content: BlsEntry): FoundEntry {
  const kargs = splitCmdline(entryOptions(content));
  const pinned = pinnedBy(kargs);
  return {
    file,
    name,
    sequence: parseHostctlEntryName(file)?.sequence,
    sortKey: entryValue(content, 'sort-key'),
    machineId: entryValue(content, 'machine-id'),
    version: entryValue(content, 'version'),
    content,
    linux: entryValue(content, 'linux'),
    initrd: entryValues(content, 'initrd'),
    kargs,
    pinned,
    stateName: pinned === undefined ? undefined : (findKargs(kargs, 'hostctl.state').at(-1) ?? pinned.digest),
    skipped: whySkipped(boot, file, content),
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

export interface NewEntry {
  readonly sequence: number;
  readonly counter: BootCounter | undefined;
  readonly title: string;
  readonly sortKey: string;
  readonly linuxPath: string;
  readonly initrdPath: string;
  readonly options: string;
}

/** What stands behind the final name while an entry is inert: being published now, or at the end of this boot. */
export type InertSuffix = '.tmp' | '.staged';

/** An entry that is whole and durable on the boot partition, under a name that no loader reads. */
export interface InertEntry {
  readonly temporaryPath: string;
  readonly finalPath: string;
  readonly file: string;
  /** Whether it has its name. */
  committed: boolean;
}

/** Writes an entry that does nothing yet. Throws 'state-invalid' when its number cannot be used. */
export async function writeInertEntry(
  host: Host,
  boot: BootPartition,
  entry: NewEntry,
  suffix: InertSuffix = '.tmp',
): Promise<InertEntry> {
  if (entry.sequence > MAX_SEQUENCE) {
    throw new HostctlError('state-invalid', `Sequence number ${entry.sequence} is above ${MAX_SEQUENCE}`);
  }
  const directory = makeDirectories(boot.path, ENTRIES);
  const file = formatHostctlEntryName(
    entry.counter === undefined ? { sequence: entry.sequence } : { sequence: entry.sequence, counter: entry.counter },
  );
  const fields = formatEntry({
    fields: [
      { key: 'title', value: entry.title },
      { key: 'version', value: String(entry.sequence) },
      { key: 'sort-key', value: entry.sortKey },
      { key: 'linux', value: entry.linuxPath },
      { key: 'initrd', value: entry.initrdPath },
      { key: 'options', value: entry.options },
    ],
  });
  const temporaryPath = `${directory}/${file}${suffix}`;
  dropUnfinishedEntries(boot);
  createFile(temporaryPath, withChecksum(fields, '#'), 0o644);
  try {
    fsyncPath(directory);
    await bootBarrier(host, boot);
  } catch (error) {
    removeQuietly(temporaryPath);
    throw error;
  }
  return { temporaryPath, finalPath: `${directory}/${file}`, file, committed: false };
}

/** What a crash left: under the lock, an entry of ours that was never committed belongs to nobody. */
function dropUnfinishedEntries(boot: BootPartition): void {
  removeInert(boot, inertEntries(boot, '.tmp'));
}

/** Removes staged entries, except the one that will be called `kept`. Nothing else may be staged. */
export function dropStagedEntries(boot: BootPartition, kept?: string): void {
  removeInert(
    boot,
    inertEntries(boot, '.staged').filter((file) => file !== `${kept}.staged`),
  );
}

function inertEntries(boot: BootPartition, suffix: InertSuffix): string[] {
  return listNames(`${boot.path}/${ENTRIES}`).filter(
    (file) => file.endsWith(suffix) && parseHostctlEntryName(file.slice(0, -suffix.length)) !== undefined,
  );
}

function removeInert(boot: BootPartition, files: readonly string[]): void {
  const directory = `${boot.path}/${ENTRIES}`;
  for (const file of files) fs.unlinkSync(`${directory}/${file}`);
  if (files.length > 0) fsyncPath(directory);
}

/** The staged entry that will be called `file`; undefined when it is not there. Throws when it cannot be read. */
export function readStagedEntry(
  boot: BootPartition,
  file: string,
): { readonly inert: InertEntry; readonly entry: FoundEntry } | undefined {
  const name = parseEntryName(file);
  const finalPath = `${boot.path}/${ENTRIES}/${file}`;
  const temporaryPath = `${finalPath}.staged`;
  const bytes = name === undefined ? undefined : readSmallFile(temporaryPath);
  if (name === undefined || bytes === undefined) return undefined;
  return {
    inert: { temporaryPath, finalPath, file, committed: false },
    entry: describeEntry(boot, file, name, parseEntry(bytes)),
  };
}

/**
 * COMMIT: gives the entry its name. Before this the host boots what it booted before; after it, the new deployment.
 * Returns false where the change could not be written back in place (see `bootBarrier`).
 */
export async function commitEntry(host: Host, boot: BootPartition, inert: InertEntry): Promise<boolean> {
  if (exists(inert.finalPath)) {
    throw new HostctlError('state-invalid', `The boot entry "${inert.file}" exists already`);
  }
  fs.renameSync(inert.temporaryPath, inert.finalPath);
  inert.committed = true;
  return settleEntry(host, boot, inert.file);
}

/**
 * Makes the name of an entry durable, also one that is there already: a command that died may have given it and no
 * more, and whoever then reports that nothing is to be done promises that it stays. Returns as `commitEntry` does.
 */
export async function settleEntry(host: Host, boot: BootPartition, file: string): Promise<boolean> {
  // On FAT the directory record is part of the file: sync it through its new name as well.
  fsyncPath(`${boot.path}/${ENTRIES}/${file}`);
  fsyncPath(`${boot.path}/${ENTRIES}`);
  return bootBarrier(host, boot);
}

/** Takes its name from an entry again whose commit could not be made durable: it is inert as before. */
export function retractEntry(boot: BootPartition, inert: InertEntry): void {
  if (!inert.committed) return;
  fs.renameSync(inert.finalPath, inert.temporaryPath);
  inert.committed = false;
  fsyncPath(inert.temporaryPath);
  fsyncPath(`${boot.path}/${ENTRIES}`);
}

/**
 * Takes an entry back when the command fails, also one whose commit could not be made durable: renamed to a name that
 * no loader reads, then removed. Throws when that fails too: then what the entry names must stay.
 */
export function withdrawEntry(boot: BootPartition, inert: InertEntry): void {
  retractEntry(boot, inert);
  fs.rmSync(inert.temporaryPath, { force: true });
  fsyncPath(`${boot.path}/${ENTRIES}`);
}

/**
 * Renames a counted entry to its name without counter, durably: the boot was good. Idempotent. Where it cannot be made
 * durable the entry has its counter again.
 */
export async function blessEntry(host: Host, boot: BootPartition, entry: FoundEntry): Promise<string> {
  const directory = `${boot.path}/${ENTRIES}`;
  const blessed = `${entry.name.id}.conf`;
  const isCounted = entry.file !== blessed;
  if (isCounted) {
    if (exists(`${directory}/${blessed}`)) {
      throw new HostctlError('state-invalid', `Both "${entry.file}" and "${blessed}" exist`);
    }
    fs.renameSync(`${directory}/${entry.file}`, `${directory}/${blessed}`);
  }
  try {
    await settleEntry(host, boot, blessed);
  } catch (error) {
    if (isCounted) fs.renameSync(`${directory}/${blessed}`, `${directory}/${entry.file}`);
    throw error;
  }
  return blessed;
}
