/**
 * PAX extended headers (POSIX.1-2001 pax, "pax Extended Header"): `LEN KEY=VALUE\n` records over bytes. Values are
 * kept as raw bytes, since xattrs hold anything. The last record of a key wins; what hostctl has no use for is read
 * and forgotten.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, type RawName } from '../../tree/name.ts';
import type { Timestamp } from '../../tree/node.ts';
import { toSafeNumber } from './header.ts';
import type { SparseSegment } from './sparse.ts';

/** Bytes of one extended header. Go and tar-core have the same limit. */
export const MAX_PAX_BYTES = 1 << 20;
const MAX_PLAIN_VALUE_BYTES = 64 << 10;
const MAX_XATTR_VALUE_BYTES = 65_535;
const MAX_XATTR_NAME_BYTES = 255;
const MAX_XATTRS = 255;
const XATTR_PREFIX = 'SCHILY.xattr.';

/** What an extended header says about the next entry; a property is absent when no record gives it. */
export interface PaxHeader {
  path?: RawName;
  linkpath?: RawName;
  size?: number;
  uid?: number;
  gid?: number;
  mtime?: Timestamp;
  xattrs?: Map<RawName, Uint8Array>;
  sparse?: PaxSparse;
}

/** The `GNU.sparse.*` records, not yet judged. */
export interface PaxSparse {
  major?: number;
  minor?: number;
  name?: RawName;
  /** `GNU.sparse.realsize` or `GNU.sparse.size`: bytes of the expanded file. */
  realSize?: number;
  numBlocks?: number;
  /** `GNU.sparse.map` of form 0.1. */
  map?: SparseSegment[];
  /** Offsets and lengths in turn, from the repeated records of form 0.0. */
  pairs?: number[];
}

interface PaxRecord {
  readonly key: string;
  readonly value: Buffer;
}

/** Reads the extended header of one entry. Errors name the record. */
export function parsePaxHeader(data: Buffer): PaxHeader {
  const header: PaxHeader = {};
  for (const { key, value } of parsePaxRecords(data)) {
    if (key.startsWith(XATTR_PREFIX)) {
      addXattr((header.xattrs ??= new Map()), key.slice(XATTR_PREFIX.length) as RawName, value);
      continue;
    }
    if (value.length > MAX_PLAIN_VALUE_BYTES) {
      throw new HostctlError(
        'image-invalid',
        `PAX record "${displayRaw(key as RawName)}" has a value of ${value.length} bytes`,
      );
    }
    if (key.startsWith('GNU.sparse.')) {
      addSparse((header.sparse ??= {}), key, value);
      continue;
    }
    applyRecord(header, key, value);
  }
  return header;
}

/** Whether a global extended header changes nothing: only a `comment` is harmless in every reader. */
export function isHarmlessGlobal(data: Buffer): boolean {
  return parsePaxRecords(data).every((record) => record.key === 'comment');
}

function parsePaxRecords(data: Buffer): PaxRecord[] {
  const records: PaxRecord[] = [];
  let at = 0;
  while (at < data.length) {
    const space = data.indexOf(32, at);
    const digits = space === -1 ? '' : data.toString('latin1', at, Math.min(space, at + 9));
    // Eight digits reach far beyond the limit of one header, so longer ones are nothing but leading zeros.
    if (!/^[0-9]{1,8}$/.test(digits)) {
      throw new HostctlError('image-invalid', `PAX record at byte ${at} has no length`);
    }
    const end = at + Number(digits);
    if (end > data.length || end < space + 4) {
      throw new HostctlError('image-invalid', `PAX record at byte ${at} has the impossible length ${digits}`);
    }
    if (data[end - 1] !== 10) throw new HostctlError('image-invalid', `PAX record at byte ${at} has no line end`);
    const equals = data.indexOf(61, space + 1);
    if (equals === -1 || equals >= end) throw new HostctlError('image-invalid', `PAX record at byte ${at} has no "="`);
    const key = data.toString('latin1', space + 1, equals);
    if (key === '' || key.includes('\0')) {
      throw new HostctlError('image-invalid', `PAX record at byte ${at} has an invalid key`);
    }
    records.push({ key, value: data.subarray(equals + 1, end - 1) });
    at = end;
  }
  return records;
}

function applyRecord(header: PaxHeader, key: string, value: Buffer): void {
  switch (key) {
    case 'path':
    case 'linkpath':
      setOrDelete(header, key, value.length === 0 ? undefined : nameValue(key, value));
      break;
    case 'size':
    case 'uid':
    case 'gid':
      setOrDelete(header, key, value.length === 0 ? undefined : decimalValue(key, value));
      break;
    case 'mtime':
      setOrDelete(header, key, value.length === 0 ? undefined : parsePaxTime(value.toString('latin1')));
      break;
    default:
      break;
  }
}

/** An empty value deletes what an earlier record gave (POSIX). */
function setOrDelete<K extends keyof PaxHeader>(header: PaxHeader, key: K, value: PaxHeader[K] | undefined): void {
  if (value === undefined) delete header[key];
  else header[key] = value;
}

function nameValue(key: string, value: Buffer): RawName {
  if (value.includes(0)) throw new HostctlError('image-invalid', `PAX record "${key}" holds a NUL`);
  return value.toString('latin1') as RawName;
}

function decimalValue(key: string, value: Buffer): number {
  const text = value.toString('latin1');
  if (!/^[0-9]{1,20}$/.test(text)) {
    throw new HostctlError(
      'image-invalid',
      `PAX record "${key}" holds "${displayRaw(text as RawName)}" instead of a number`,
    );
  }
  return toSafeNumber(BigInt(text), `PAX record "${key}"`);
}

/**
 * A PAX time: decimal seconds with optional sign and fraction, cut (never rounded) to nanoseconds towards the past.
 */
export function parsePaxTime(text: string): Timestamp {
  const match = /^([+-]?)([0-9]{1,19})(?:\.([0-9]*))?$/.exec(text);
  if (match === null) {
    throw new HostctlError(
      'image-invalid',
      `PAX record "mtime" holds "${displayRaw(text as RawName)}" instead of a time`,
    );
  }
  const fraction = match[3] ?? '';
  let sec = BigInt(match[2]!);
  let nsec = Number(fraction.slice(0, 9).padEnd(9, '0'));
  if (match[1] === '-') {
    if (/[1-9]/.test(fraction.slice(9))) nsec += 1;
    sec = nsec === 0 ? -sec : -sec - 1n;
    nsec = nsec === 0 ? 0 : 1_000_000_000 - nsec;
  }
  if (BigInt.asIntN(64, sec) !== sec) {
    throw new HostctlError('image-invalid', `PAX record "mtime" holds ${sec} s, which is beyond 64 bits`);
  }
  return { sec, nsec };
}

function addXattr(xattrs: Map<RawName, Uint8Array>, name: RawName, value: Buffer): void {
  if (name === '' || name.length > MAX_XATTR_NAME_BYTES) {
    throw new HostctlError(
      'image-invalid',
      `Xattr has a name of ${name.length} bytes, allowed are 1 to ${MAX_XATTR_NAME_BYTES}`,
    );
  }
  if (value.length > MAX_XATTR_VALUE_BYTES) {
    throw new HostctlError(
      'image-invalid',
      `Xattr "${displayRaw(name)}" has ${value.length} bytes, at most ${MAX_XATTR_VALUE_BYTES} fit`,
    );
  }
  xattrs.set(name, Uint8Array.from(value));
  if (xattrs.size > MAX_XATTRS) throw new HostctlError('image-invalid', `Entry has more than ${MAX_XATTRS} xattrs`);
}

function addSparse(sparse: PaxSparse, key: string, value: Buffer): void {
  switch (key) {
    case 'GNU.sparse.major':
      sparse.major = decimalValue(key, value);
      break;
    case 'GNU.sparse.minor':
      sparse.minor = decimalValue(key, value);
      break;
    case 'GNU.sparse.name':
      sparse.name = nameValue(key, value);
      break;
    case 'GNU.sparse.size':
    case 'GNU.sparse.realsize':
      sparse.realSize = decimalValue(key, value);
      break;
    case 'GNU.sparse.numblocks':
      sparse.numBlocks = decimalValue(key, value);
      break;
    case 'GNU.sparse.offset':
    case 'GNU.sparse.numbytes': {
      const pairs = (sparse.pairs ??= []);
      if ((pairs.length % 2 === 0) !== (key === 'GNU.sparse.offset')) {
        throw new HostctlError('image-invalid', `PAX record "${key}" is out of turn`);
      }
      pairs.push(decimalValue(key, value));
      break;
    }
    case 'GNU.sparse.map':
      sparse.map = parseMap(key, value);
      break;
    default:
      throw new HostctlError(
        'image-unsupported',
        `PAX record "${displayRaw(key as RawName)}" is of no known sparse form`,
      );
  }
}

function parseMap(key: string, value: Buffer): SparseSegment[] {
  if (value.length === 0) return [];
  const numbers = value.toString('latin1').split(',');
  if (numbers.length % 2 !== 0)
    throw new HostctlError('image-invalid', `PAX record "${key}" has an odd count of numbers`);
  const segments: SparseSegment[] = [];
  for (let i = 0; i < numbers.length; i += 2) {
    segments.push({
      offset: decimalValue(key, Buffer.from(numbers[i]!, 'latin1')),
      length: decimalValue(key, Buffer.from(numbers[i + 1]!, 'latin1')),
    });
  }
  return segments;
}
