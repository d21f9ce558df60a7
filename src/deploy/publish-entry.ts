/**
 * Publishing boot entries: the only switch hostctl ever makes. An inert file, whole and durable, is renamed to a fresh
 * name whose number puts it first. No entry is edited, replaced or renumbered, and what hostctl did not make is never
 * touched.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { withChecksum } from '../format/checksum.ts';
import { formatEntry, parseEntry, type BlsField } from '../format/bls/entry.ts';
import {
  formatHostctlEntryName,
  MAX_SEQUENCE,
  parseEntryName,
  parseHostctlEntryName,
  type BootCounter,
} from '../format/bls/name.ts';
import { formatGrubMenuEntry } from '../format/grub/menu-entry.ts';
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
import { describeEntry, ENTRIES, UKI_OPTIONS, type FoundEntry } from './boot-entries.ts';
import { bootBarrier, type BootPartition } from './boot-partition.ts';
import { announceToGrub, blessForGrub, checkGrubEnvironment, menuEntryPath } from './grub.ts';
import type { EntryProgram } from './kernels.ts';

/** Of GRUB, also one that is being written. */
const MENU_ENTRY = /^hostctl-\d{8}\.cfg(\.tmp)?$/;

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
  return (await settleForGrub(host, boot, announceToGrub(boot.path, inert.file))) && isSettled;
}

/** Makes durable what GRUB was told, which is taken back where that fails. Returns as `commitEntry` does. */
async function settleForGrub(host: Host, boot: BootPartition, takeBack: () => void): Promise<boolean> {
  try {
    return await bootBarrier(host, boot);
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
  underItsName(boot, file, fsyncPath);
  fsyncPath(`${boot.path}/${ENTRIES}`);
  return bootBarrier(host, boot);
}

/**
 * Does something with an entry under the name that it has now: systemd-bless-boot takes the counter off and knows no
 * lock of ours.
 */
function underItsName(boot: BootPartition, file: string, act: (path: string) => void): void {
  const directory = `${boot.path}/${ENTRIES}`;
  try {
    act(`${directory}/${file}`);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    const id = parseEntryName(file)?.id;
    const renamed = listNames(directory).find((other) => {
      const name = parseEntryName(other);
      return name?.suffix === '.conf' && name.id === id;
    });
    if (renamed === undefined) throw error;
    act(`${directory}/${renamed}`);
  }
}

/** Takes its name from an entry again whose commit could not be made durable: it is inert as before. */
export function retractEntry(boot: BootPartition, inert: InertEntry): void {
  if (!inert.committed) return;
  underItsName(boot, inert.file, (path) => fs.renameSync(path, inert.temporaryPath));
  inert.committed = false;
  fsyncPath(inert.temporaryPath);
  fsyncPath(`${boot.path}/${ENTRIES}`);
}

/**
 * Removes entries: first to names that no loader reads, and when these are in place, away. A loader that replays no
 * journal might else find the name of an entry whose file is gone already. Returns as `commitEntry` does.
 */
export async function removeEntries(host: Host, boot: BootPartition, files: readonly string[]): Promise<boolean> {
  const directory = `${boot.path}/${ENTRIES}`;
  for (const file of files) {
    const temporaryPath = `${directory}/${file}.tmp`;
    // A leftover of the same name would be replaced, which FAT does not survive.
    if (exists(temporaryPath)) {
      fs.rmSync(temporaryPath, { recursive: true });
      fsyncPath(directory);
    }
    retractEntry(boot, { file, finalPath: `${directory}/${file}`, temporaryPath, committed: true });
  }
  const isSettled = await bootBarrier(host, boot);
  for (const file of files) {
    fs.rmSync(`${directory}/${file}.tmp`, { force: true });
    fs.rmSync(menuEntryPath(`${directory}/${file}`), { force: true });
  }
  if (files.length > 0) fsyncPath(directory);
  return isSettled;
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
 * Renames a counted entry to its name without counter, durably, and tells GRUB: the boot was good. Idempotent. Where it
 * cannot be made durable the entry has its counter again, for GRUB as well.
 */
export async function blessEntry(host: Host, boot: BootPartition, entry: FoundEntry): Promise<string> {
  const directory = `${boot.path}/${ENTRIES}`;
  const blessed = `${entry.name.id}.conf`;
  const isCounted = entry.file !== blessed;
  if (isCounted) {
    if (exists(`${directory}/${blessed}`) && exists(`${directory}/${entry.file}`)) {
      throw new HostctlError('state-invalid', `Both "${entry.file}" and "${blessed}" exist`);
    }
    underItsName(boot, entry.file, (path) => fs.renameSync(path, `${directory}/${blessed}`));
  }
  try {
    await settleEntry(host, boot, blessed);
    if (boot.isGrub) await settleForGrub(host, boot, blessForGrub(boot.path, entry.sequence));
  } catch (error) {
    if (isCounted) fs.renameSync(`${directory}/${blessed}`, `${directory}/${entry.file}`);
    throw error;
  }
  return blessed;
}
