/**
 * File names of boot entries. A name is an entry's identity; a boot counter in it, `<id>+<left>[-<done>].conf`, is not
 * part of the id (UAPI.1 "Boot counting"). hostctl's own names are `hostctl-<sequence, 8 digits>`: the number alone
 * ranks them, in every loader.
 */

import { HostctlError } from '../../errors.ts';

/** Boot counter of an entry. */
export interface BootCounter {
  /** Tries left; 0 marks the entry bad. */
  readonly left: number;
  /** Tries made so far; absent where the name has only one number. */
  readonly done?: number;
}

export interface EntryName {
  /** The name without counter and suffix. */
  readonly id: string;
  readonly suffix: '.conf' | '.efi';
  /** Absent: good, or never counted. */
  readonly counter?: BootCounter;
}

/** 1…255 bytes of `A-Za-z0-9+-_.`, suffix in any case (the file system is FAT more often than not). */
const ENTRY_FILE = /^([A-Za-z0-9+\-_.]+)(\.conf|\.efi)$/i;
const COUNTED = /^(.+)\+(\d{1,9})(?:-(\d{1,9}))?$/;
const OURS = /^hostctl-(\d{8})$/;
const MAX_NAME_BYTES = 255;

/** Largest sequence number that fits the eight digits. */
export const MAX_SEQUENCE = 99_999_999;

/** Takes any entry's file name apart; undefined for what no loader takes for an entry. */
export function parseEntryName(fileName: string): EntryName | undefined {
  const match = fileName.length <= MAX_NAME_BYTES ? ENTRY_FILE.exec(fileName) : null;
  if (!match) return undefined;
  const [, stem = '', ending = ''] = match;
  const suffix = ending.toLowerCase() === '.efi' ? '.efi' : '.conf';
  const counted = COUNTED.exec(stem);
  if (!counted) return { id: stem, suffix };
  const [, id = '', left = '', done] = counted;
  return {
    id,
    suffix,
    counter: done === undefined ? { left: Number(left) } : { left: Number(left), done: Number(done) },
  };
}

/** Whether boot counting has used an entry up: loaders put it last. */
export function isBadName(name: EntryName): boolean {
  return name.counter?.left === 0;
}

export interface HostctlEntryName {
  /** 1…99,999,999; the highest boots. */
  readonly sequence: number;
  readonly counter?: BootCounter;
}

/** Takes the name of an entry of ours apart; undefined for every other file. */
export function parseHostctlEntryName(fileName: string): HostctlEntryName | undefined {
  const name = parseEntryName(fileName);
  const match = name?.suffix === '.conf' ? OURS.exec(name.id) : null;
  if (!name || !match) return undefined;
  const sequence = Number(match[1]);
  if (sequence === 0) return undefined;
  return name.counter ? { sequence, counter: name.counter } : { sequence };
}

/**
 * `hostctl-00000042.conf`, or with a counter `hostctl-00000042+3-0.conf`: both numbers in one digit each, so that each
 * count down is a rename to a name of the same length. Throws `state-invalid` when the numbers do not fit.
 */
export function formatHostctlEntryName({ sequence, counter }: HostctlEntryName): string {
  if (!Number.isSafeInteger(sequence) || sequence < 1 || sequence > MAX_SEQUENCE) {
    throw new HostctlError(
      'state-invalid',
      `Cannot name a boot entry by sequence number ${sequence}: 1 to ${MAX_SEQUENCE}`,
    );
  }
  const id = `hostctl-${String(sequence).padStart(8, '0')}`;
  if (!counter) return `${id}.conf`;
  const done = counter.done ?? 0;
  if (!isDigitNumber(counter.left) || !isDigitNumber(done)) {
    throw new HostctlError('state-invalid', `Cannot count ${counter.left} tries left and ${done} done: 0 to 9 each`);
  }
  return `${id}+${counter.left}-${done}.conf`;
}

function isDigitNumber(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 9;
}
