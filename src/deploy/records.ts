/**
 * The small files under `state/hostctl`: each one fact, a key file of one section, replaced as a whole and durable
 * before the call returns. A broken one throws for its reader alone; removing works whatever stands at the name.
 */

import * as fs from 'node:fs';
import { HostctlError, isShortage } from '../errors.ts';
import { withChecksum } from '../format/checksum.ts';
import { formatKeyfile, parseKeyfile } from '../format/keyfile.ts';
import { replaceUnsafeCharacters } from '../format/text.ts';
import {
  fsyncPath,
  isDirectory,
  isRegularFile,
  makeDirectories,
  readSmallText,
  replaceFile,
  split,
  TEMPORARY_NAME,
} from '../sys/files.ts';
import type { Sysroot } from './sysroot.ts';

/** What a record says; `get` throws 'state-invalid' for a key that is missing. */
export interface RecordFields {
  get(key: string): string;
  find(key: string): string | undefined;
}

/** Reads section `section` of `state/hostctl/<name>`; undefined when there is no such file. */
export function readRecord({ hostState }: Sysroot, name: string, section: string): RecordFields | undefined {
  const text = readSmallText(`${hostState}/${name}`);
  if (text === undefined) return undefined;
  const fields = parseKeyfile(text).get(section);
  return {
    find: (key) => fields?.get(key),
    get: (key) => {
      const value = fields?.get(key);
      if (value !== undefined) return value;
      throw new HostctlError('state-invalid', `"${hostState}/${name}" lacks "${key}" in section "${section}"`);
    },
  };
}

/** What `read` finds in a record; undefined also where that is broken, so that nothing else is held up by it. */
export function ifSound<T>(read: () => T | undefined): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isShortage(error)) throw error;
    return undefined;
  }
}

/** Values lose line breaks and control characters; undefined ones are left out. */
export function writeRecord(
  { hostState }: Sysroot,
  name: string,
  section: string,
  fields: Readonly<Record<string, string | undefined>>,
): void {
  const values = new Map<string, string>();
  for (const [key, value] of Object.entries(fields)) {
    if (value !== undefined) values.set(key, replaceUnsafeCharacters(value, ' ').trim());
  }
  const { directory } = split(name);
  if (directory !== '.') makeDirectories(hostState, directory);
  // A directory in its place is a broken record, and no rename replaces one.
  if (isDirectory(`${hostState}/${name}`)) fs.rmSync(`${hostState}/${name}`, { recursive: true });
  replaceFile(`${hostState}/${name}`, withChecksum(formatKeyfile(new Map([[section, values]])), ';'));
}

/** What others write there: pins, the initramfs, the lock. */
const NO_RECORD = /^(?:pinned-|boot-failure-|fallback-tried$|lock-holder$)/;

/** Names of all records below `state/hostctl`, those in its directories with the directory. */
export function recordNames({ hostState }: Sysroot): string[] {
  if (!isDirectory(hostState)) return [];
  return fs
    .readdirSync(hostState, { recursive: true, encoding: 'utf8' })
    .filter((name) => !NO_RECORD.test(name) && !TEMPORARY_NAME.test(split(name).name))
    .filter((name) => isRegularFile(`${hostState}/${name}`))
    .sort();
}

/** Idempotent. One that is gone already is synced too: a command that was killed may have removed it and no more. */
export function removeRecord({ hostState }: Sysroot, name: string): void {
  const path = `${hostState}/${name}`;
  fs.rmSync(path, { recursive: true, force: true });
  fsyncPath(split(path).directory);
}
