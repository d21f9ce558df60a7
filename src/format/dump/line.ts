/**
 * One line of the composefs dump format (composefs-dump(5)) as plain values. Knows fields and numbers, but not trees:
 * a line here may still name a parent that does not exist.
 */

import { HostctlError } from '../../errors.ts';
import type { RawName } from '../../tree/name.ts';
import { NO_XATTRS, type Timestamp, type VerityAlgorithm, type VerityDigest } from '../../tree/node.ts';
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
  /** A bigint where a number is not exact, which no file is as large as. */
  readonly size: number | bigint;
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

/** Reads lines out of the bytes of a dump: no text is made of what is a number, and what stays text is a slice. */
export class DumpLineReader {
  readonly #bytes: Buffer;
  /** A stretch of the dump as text, all of the current line in it, and where it begins and ends. */
  #text = '';
  #textFrom = 0;
  #textTo = 0;
  /** Whether anything in that text is escaped. */
  #hasEscapes = false;
  /** Where the next NUL is that is not in a line before. */
  #nul: number;
  /** Of the current line: where each field begins and ends, and its last byte. */
  readonly #from = new Int32Array(FIELDS.length);
  readonly #to = new Int32Array(FIELDS.length);
  #end = 0;
  /** Few lines have a mode that none before them had. */
  readonly #modes = new Map<string, Mode>();
  /** Whole seconds, which all times of an image are: many files have the same. */
  readonly #times = new Map<number, Timestamp>();

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#nul = bytes.indexOf(0);
  }

  /** The line from `start` to before `end`, its line feed left out; lines are read in their order. */
  read(start: number, end: number, algorithm: VerityAlgorithm | undefined, fail: Fail): DumpLine {
    if (end > this.#textTo) this.#decode(start, Math.max(end, Math.min(start + STRETCH, this.#bytes.length)));
    if (this.#nul >= 0 && this.#nul < end) fail('PATH', 'or a later one has a NUL byte');
    this.#split(start, end);
    const path = this.#value(PATH, fail);
    if (path === '') fail('PATH', 'is empty');
    const size = this.#size(fail);
    const { isHardlink, kind, mode } = this.#mode(fail);
    if (kind === 'file' && size > MAX_FILE_SIZE) fail('SIZE', `is ${size}, above 2^53`);
    return {
      path,
      isHardlink,
      kind,
      mode,
      size,
      nlink: this.#number(NLINK, fail),
      uid: this.#number(UID, fail),
      gid: this.#number(GID, fail),
      rdev: this.#number(RDEV, fail),
      mtime: this.#time(fail),
      payload: this.#optional(PAYLOAD, fail),
      content: this.#optional(CONTENT, fail),
      digest: this.#isAbsent(DIGEST) ? undefined : parseDigest(this.#field(DIGEST), algorithm, fail),
      xattrs: this.#xattrs(fail),
    };
  }

  #decode(from: number, to: number): void {
    this.#text = this.#bytes.toString('latin1', from, to);
    this.#textFrom = from;
    this.#textTo = to;
    this.#hasEscapes = this.#text.includes('\\');
  }

  #split(start: number, end: number): void {
    const text = this.#text;
    const offset = this.#textFrom;
    this.#end = end;
    let from = start;
    for (let field = 0; field < FIELDS.length; field++) {
      const space = from > end ? -1 : text.indexOf(' ', from - offset);
      const to = space < 0 ? end : Math.min(space + offset, end);
      this.#from[field] = Math.min(from, end);
      this.#to[field] = to;
      from = to + 1;
    }
  }

  #slice(from: number, to: number): string {
    return this.#text.slice(from - this.#textFrom, to - this.#textFrom);
  }

  #field(field: number): string {
    return this.#slice(this.#from[field]!, this.#to[field]!);
  }

  /** What a field stands for. */
  #value(field: number, fail: Fail): RawName {
    const text = this.#field(field);
    if (!this.#hasEscapes) return text as RawName;
    return unescapeField(text, (problem) => fail(FIELDS[field]!, problem));
  }

  #isAbsent(field: number): boolean {
    const from = this.#from[field]!;
    return this.#to[field]! - from === 1 && this.#bytes[from] === DASH;
  }

  #optional(field: number, fail: Fail): RawName | undefined {
    return this.#isAbsent(field) ? undefined : this.#value(field, fail);
  }

  /** The digits from `from` to before `to`; undefined where they are none, or too many for a number. */
  #digits(from: number, to: number): number | undefined {
    if (from >= to || to - from > MAX_DIGITS) return undefined;
    let value = 0;
    for (let at = from; at < to; at++) {
      const digit = this.#bytes[at]! - 48;
      if (digit < 0 || digit > 9) return undefined;
      value = value * 10 + digit;
    }
    return value;
  }

  /** An integer of 32 bits. */
  #number(field: number, fail: Fail): number {
    const value = this.#digits(this.#from[field]!, this.#to[field]!);
    if (value !== undefined && value <= MAX_U32) return value;
    return Number(parseInteger(this.#field(field), BigInt(MAX_U32), (problem) => fail(FIELDS[field]!, problem)));
  }

  #size(fail: Fail): number | bigint {
    const value = this.#digits(this.#from[SIZE]!, this.#to[SIZE]!);
    if (value !== undefined) return value;
    const exact = parseInteger(this.#field(SIZE), MAX_U64, (problem) => fail('SIZE', problem));
    return exact > MAX_FILE_SIZE ? exact : Number(exact);
  }

  #mode(fail: Fail): Mode {
    const text = this.#field(MODE);
    let mode = this.#modes.get(text);
    if (mode === undefined) this.#modes.set(text, (mode = parseMode(text, fail)));
    return mode;
  }

  #time(fail: Fail): Timestamp {
    const [from, to] = [this.#from[MTIME]!, this.#to[MTIME]!];
    let dot = from;
    while (dot < to && this.#bytes[dot] !== DOT) dot++;
    const sec = this.#digits(from, dot);
    const nsec = this.#digits(dot + 1, to);
    if (sec === undefined || nsec === undefined || nsec > MAX_NSEC) return parseTime(this.#field(MTIME), fail);
    if (nsec > 0) return { sec: BigInt(sec), nsec };
    let time = this.#times.get(sec);
    if (time === undefined) this.#times.set(sec, (time = { sec: BigInt(sec), nsec }));
    return time;
  }

  #xattrs(fail: Fail): ReadonlyMap<RawName, Uint8Array> {
    const from = this.#to[FIELDS.length - 1]! + 1;
    if (from >= this.#end) return NO_XATTRS;
    return parseXattrs(this.#slice(from, this.#end).split(' '), fail);
  }
}

/** Bytes that are made text at once: what stays of them keeps all of them in memory. */
const STRETCH = 64 << 10;
const DASH = 0x2d;
const DOT = 0x2e;
/** So many digits are always a number that is exact. */
const MAX_DIGITS = 15;
const MAX_NSEC = 999_999_999;
const [PATH, SIZE, MODE, NLINK, UID, GID, RDEV, MTIME, PAYLOAD, CONTENT, DIGEST] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

const MAX_U32 = 0xffffffff;
const MAX_U64 = 0xffffffffffffffffn;

function parseInteger(text: string, max: bigint, fail: (problem: string) => never): bigint {
  if (!/^[0-9]+$/.test(text)) fail(`"${text}" is not a decimal number`);
  const value = BigInt(text);
  if (value > max) fail(`${text} is above ${max}`);
  return value;
}

type Mode = Pick<DumpLine, 'isHardlink' | 'kind' | 'mode'>;

function parseMode(text: string, fail: Fail): Mode {
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
  if (nsec > MAX_NSEC) fail('MTIME', `"${text}" has more than 999999999 nanoseconds`);
  return { sec, nsec };
}

function parseDigest(text: string, algorithm: VerityAlgorithm | undefined, fail: Fail): VerityDigest {
  const digits = algorithm === undefined ? '64 or 128' : algorithm === 'sha256' ? '64' : '128';
  try {
    return parseVerityDigest(text.toLowerCase(), algorithm);
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
    const name = unescapeField(part.slice(0, equals), inXattr);
    xattrs.set(name, Buffer.from(unescapeField(part.slice(equals + 1), inXattr), 'latin1'));
  }
  return xattrs;
}
