/**
 * One line of the composefs dump format (composefs-dump(5)) as plain values. Knows fields and numbers, but not trees:
 * a line here may still name a parent that does not exist.
 */

import { HostctlError } from '../../errors.ts';
import type { RawName } from '../../tree/name.ts';
import type { Timestamp, VerityAlgorithm, VerityDigest } from '../../tree/node.ts';
import { MAX_FILE_SIZE } from '../../tree/validate.ts';
import { kindOfMode, MODE_PERMISSION_MASK, type NodeKind } from '../erofs/file-type.ts';
import { parseVerityDigest } from '../fsverity/digest.ts';
import { unescapeField } from './escape.ts';

/** The xattr part of a line may not be longer than this, escapes counted as written. */
const MAX_XATTR_TEXT = 65535;

export const FIELDS = [
  'PATH',
  'SIZE',
  'MODE',
  'NLINK',
  'UID',
  'GID',
  'RDEV',
  'MTIME',
  'PAYLOAD',
  'CONTENT',
  'DIGEST',
] as const;
export type FieldName = (typeof FIELDS)[number] | 'XATTR';

/** Throws the error for a field of the current line; `problem` reads on from the field's name. */
export type Fail = (field: FieldName, problem: string) => never;

export interface DumpLine {
  readonly path: RawName;
  readonly isHardlink: boolean;
  readonly kind: NodeKind;
  /** Permission bits. */
  readonly mode: number;
  readonly size: bigint;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly mtime: Timestamp;
  /** Symlink target, object path or link target. */
  readonly payload: RawName | undefined;
  readonly content: RawName | undefined;
  readonly digest: VerityDigest | undefined;
  readonly xattrs: ReadonlyMap<RawName, Uint8Array>;
}

/** Makes the `Fail` of line `number` (from 1). */
export function failAt(number: number): Fail {
  return (field, problem) => {
    throw new HostctlError('format-invalid', `Cannot read the dump: line ${number}, field ${field} ${problem}`);
  };
}

/** Reads the fields of `text` (latin1, without the line feed). */
export function parseDumpLine(text: string, algorithm: VerityAlgorithm | undefined, fail: Fail): DumpLine {
  if (text.includes('\0')) fail('PATH', 'or a later one has a NUL byte');
  const parts = text.split(' ');
  const field = (name: (typeof FIELDS)[number]): string => parts[FIELDS.indexOf(name)] ?? '';
  const number = (name: 'SIZE' | 'NLINK' | 'UID' | 'GID' | 'RDEV', max: bigint): bigint =>
    parseInteger(field(name), max, (problem) => fail(name, problem));
  const optional = (name: 'PAYLOAD' | 'CONTENT'): RawName | undefined =>
    field(name) === '-' ? undefined : detach(unescapeField(field(name), (problem) => fail(name, problem)));

  const path = unescapeField(field('PATH'), (problem) => fail('PATH', problem));
  if (path === '') fail('PATH', 'is empty');
  const size = number('SIZE', MAX_U64);
  const { isHardlink, kind, mode } = parseMode(field('MODE'), fail);
  if (kind === 'file' && size > BigInt(MAX_FILE_SIZE)) fail('SIZE', `is ${size}, above 2^53`);
  return {
    path,
    isHardlink,
    kind,
    mode,
    size,
    nlink: Number(number('NLINK', MAX_U32)),
    uid: Number(number('UID', MAX_U32)),
    gid: Number(number('GID', MAX_U32)),
    rdev: Number(number('RDEV', MAX_U32)),
    mtime: parseTime(field('MTIME'), fail),
    payload: optional('PAYLOAD'),
    content: optional('CONTENT'),
    digest: parseDigest(field('DIGEST'), algorithm, fail),
    xattrs: parseXattrs(parts.slice(FIELDS.length), fail),
  };
}

/** A copy that does not keep the whole line in memory, as a slice of it would. */
export function detach<T extends string>(text: T): T {
  return Buffer.from(text, 'latin1').toString('latin1') as T;
}

const MAX_U32 = 0xffffffffn;
const MAX_U64 = 0xffffffffffffffffn;

function parseInteger(text: string, max: bigint, fail: (problem: string) => never): bigint {
  if (!/^[0-9]+$/.test(text)) fail(`"${text}" is not a decimal number`);
  const value = BigInt(text);
  if (value > max) fail(`${text} is above ${max}`);
  return value;
}

function parseMode(text: string, fail: Fail): { isHardlink: boolean; kind: NodeKind; mode: number } {
  const isHardlink = text.startsWith('@');
  const digits = isHardlink ? text.slice(1) : text;
  if (!/^[0-7]{1,22}$/.test(digits)) fail('MODE', `"${text}" is not an octal number`);
  const value = parseInt(digits, 8);
  const kind = value > 0xffff ? undefined : kindOfMode(value);
  if (kind === undefined) fail('MODE', `"${text}" is no file type`);
  return { isHardlink, kind, mode: value & MODE_PERMISSION_MASK };
}

function parseTime(text: string, fail: Fail): Timestamp {
  const match = /^(-?[0-9]+)\.([0-9]+)$/.exec(text);
  if (match === null) fail('MTIME', `"${text}" is not SECONDS.NANOSECONDS`);
  const sec = BigInt(match[1]!);
  if (sec !== BigInt.asIntN(64, sec)) fail('MTIME', `"${text}" is beyond 64 bits`);
  const nsec = Number(match[2]);
  if (nsec > 999_999_999) fail('MTIME', `"${text}" has more than 999999999 nanoseconds`);
  return { sec, nsec };
}

function parseDigest(text: string, algorithm: VerityAlgorithm | undefined, fail: Fail): VerityDigest | undefined {
  if (text === '-') return undefined;
  const digits = algorithm === undefined ? '64 or 128' : algorithm === 'sha256' ? '64' : '128';
  try {
    return parseVerityDigest(detach(text.toLowerCase()), algorithm);
  } catch {
    // Said again with line and field; the cause would only repeat it.
    return fail('DIGEST', `"${text.slice(0, 130)}" is neither "-" nor ${digits} hex digits`);
  }
}

/** A repeated name takes the last value. */
function parseXattrs(parts: readonly string[], fail: Fail): Map<RawName, Uint8Array> {
  const xattrs = new Map<RawName, Uint8Array>();
  const inXattr = (problem: string): never => fail('XATTR', problem);
  let count = parts.length;
  while (count > 0 && parts[count - 1] === '') count--;
  const size = parts.slice(0, count).reduce((sum, part) => sum + part.length + 1, -1);
  if (size > MAX_XATTR_TEXT) inXattr(`takes ${size} characters, above ${MAX_XATTR_TEXT}`);
  for (const part of parts.slice(0, count)) {
    const equals = part.indexOf('=');
    if (equals < 0) inXattr(`"${part.slice(0, 80)}" has no "="`);
    const name = detach(unescapeField(part.slice(0, equals), inXattr));
    xattrs.set(name, Buffer.from(unescapeField(part.slice(equals + 1), inXattr), 'latin1'));
  }
  return xattrs;
}
