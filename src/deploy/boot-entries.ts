/**
 * Boot entries on the boot partition. Publishing one is the only switch hostctl ever makes: an inert file, whole and
 * durable, is renamed to a fresh name whose number puts it first. No entry is edited, replaced or renumbered, and what
 * hostctl did not make is never touched.
 */

import * as fs from 'node:fs';
import { HostctlError, isHostctlError, isShortage } from '../errors.ts';
import { withChecksum } from '../format/checksum.ts';
import {
  entryOptions,
  entryValue,
  entryValues,
  formatEntry,
  parseEntry,
  type BlsEntry,
  type BlsField,
} from '../format/bls/entry.ts';
import {
  formatHostctlEntryName,
  MAX_SEQUENCE,
  parseEntryName,
  parseHostctlEntryName,
  type BootCounter,
  type EntryName,
} from '../format/bls/name.ts';
import { sortMenu, type MenuEntry } from '../format/bls/order.ts';
import { formatGrubMenuEntry } from '../format/grub/menu-entry.ts';
import { findDigestArguments, findKargs, splitCmdline, type DigestArgument } from '../format/cmdline.ts';
import {
  createFile,
  exists,
  fsyncPath,
  listNames,
  makeDirectories,
  readSmallFile,
  removeQuietly,
  split,
} from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { bootBarrier, fileOnBoot, type BootPartition } from './boot-partition.ts';
import type { EntryProgram } from './kernels.ts';
import { announceToGrub, blessForGrub, checkGrubEnvironment, menuEntryPath } from './grub.ts';

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
/** Of GRUB, also one that is being written. */
const MENU_ENTRY = /^hostctl-\d{8}\.cfg(\.tmp)?$/;
/**
 * Says to us, and to no loader, by what a unified kernel image boots. With `options` the loader would hand the stub
 * something, which then takes the place of its own command line where the firmware verifies nothing.
 */
export const UKI_OPTIONS = 'x-hostctl-options';
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

export interface NewEntry {
  readonly sequence: number;
  readonly counter: BootCounter | undefined;
  readonly title: string;
  readonly sortKey: string;
  readonly program: EntryProgram;
  /** The kernel command line; of a unified kernel image its own. */
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
      ...programFields(boot, entry),
    ],
  });
  const finalPath = `${directory}/${file}`;
  const temporaryPath = `${finalPath}${suffix}`;
  if (boot.isGrub) checkGrubEnvironment(boot.path);
  dropUnfinishedEntries(boot);
  createFile(temporaryPath, withChecksum(fields, '#'), 0o644);
  try {
    if (boot.isGrub) writeMenuEntry(menuEntryPath(finalPath), entry);
    fsyncPath(directory);
    await bootBarrier(host, boot);
  } catch (error) {
    removeQuietly(temporaryPath);
    removeQuietly(menuEntryPath(finalPath));
    throw error;
  }
  return { temporaryPath, finalPath, file, committed: false };
}

function programFields({ takesUki }: BootPartition, { program, options }: NewEntry): BlsField[] {
  if ('efi' in program) {
    return [
      { key: takesUki ? 'uki' : 'efi', value: program.efi },
      { key: UKI_OPTIONS, value: options },
    ];
  }
  return [
    { key: 'linux', value: program.linux },
    { key: 'initrd', value: program.initrd },
    { key: 'options', value: options },
  ];
}

/** GRUB's script takes no notice of it before the entry has its name. */
function writeMenuEntry(path: string, { counter, program, title, options }: NewEntry): void {
  if ('efi' in program) throw new HostctlError('host-unsupported', 'GRUB cannot start a unified kernel image');
  const { linux: linuxPath, initrd: initrdPath } = program;
  const id = split(path).name.replace(/\.cfg$/, '');
  const temporaryPath = `${path}.tmp`;
  createFile(
    temporaryPath,
    formatGrubMenuEntry({ id, title, linuxPath, initrdPath, options, tries: counter?.left }),
    0o644,
  );
  fs.renameSync(temporaryPath, path);
  fsyncPath(path);
}

/** What a crash left: under the lock, an entry of ours that was never committed belongs to nobody. */
function dropUnfinishedEntries(boot: BootPartition): void {
  removeInert(boot, [...inertEntries(boot, '.tmp'), ...unusedMenuEntries(boot)]);
}

/** Menu entries of GRUB whose boot entry is not there, and ones that are not whole. */
export function unusedMenuEntries({ path }: BootPartition): string[] {
  const files = listNames(`${path}/${ENTRIES}`);
  const entries = files.map((file) => file.replace(/\.staged$/, '')).filter((file) => file.endsWith('.conf'));
  const used = new Set(entries.map(menuEntryPath));
  return files.filter((file) => MENU_ENTRY.test(file) && !used.has(file));
}

/** Removes staged entries, except the one that will be called `kept`. Nothing else may be staged. */
export function dropStagedEntries(boot: BootPartition, kept?: string): void {
  removeInert(
    boot,
    inertEntries(boot, '.staged').filter((file) => file !== `${kept}.staged`),
  );
  removeInert(boot, unusedMenuEntries(boot));
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
  const isSettled = await settleEntry(host, boot, inert.file);
  if (!boot.isGrub) return isSettled;
  const takeBack = announceToGrub(boot.path, inert.file);
  try {
    return (await bootBarrier(host, boot)) && isSettled;
  } catch (error) {
    takeBack();
    throw error;
  }
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
  fs.rmSync(menuEntryPath(inert.finalPath), { force: true });
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
  if (boot.isGrub) {
    blessForGrub(boot.path, entry.sequence);
    await bootBarrier(host, boot);
  }
  return blessed;
}
