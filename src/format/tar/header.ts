/**
 * The 512-byte tar header block: V7, ustar and GNU (POSIX.1-1988 ustar, GNU tar manual "Basic Tar Format"). Fields
 * are read one by one so that a PAX record can stand in for a field that does not fit; whatever two tar readers
 * could understand differently is refused.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, type RawName } from '../../tree/name.ts';

export const BLOCK_SIZE = 512;

/** Offset and length of each field in the header block. */
export const TAR_FIELDS = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  linkname: [157, 100],
  magic: [257, 8],
  devmajor: [329, 8],
  devminor: [337, 8],
  prefix: [345, 155],
  sparse: [386, 96],
  sparseExtended: [482, 1],
  sparseRealSize: [483, 12],
} as const satisfies Record<string, readonly [offset: number, length: number]>;

export type TarField = keyof typeof TAR_FIELDS;

/** Only ustar has a prefix; in a GNU header other things lie there. V7 has no device numbers. */
export type TarFormat = 'v7' | 'ustar' | 'gnu';

/** Which dialect the magic and version fields state. */
export function tarFormat(block: Buffer): TarFormat {
  const [offset, length] = TAR_FIELDS.magic;
  const magic = block.toString('latin1', offset, offset + length);
  return magic === 'ustar\u000000' ? 'ustar' : magic === 'ustar  \0' ? 'gnu' : 'v7';
}

/** Whether the block's checksum fits, summed over unsigned or (as some old tars do) signed bytes. */
export function checkChecksum(block: Buffer): void {
  const stated = numberField(block, 'checksum');
  const [offset, length] = TAR_FIELDS.checksum;
  // The field itself counts as spaces.
  let unsigned = 32 * length;
  for (let i = 0; i < offset; i++) unsigned += block[i]!;
  for (let i = offset + length; i < BLOCK_SIZE; i++) unsigned += block[i]!;
  if (stated !== unsigned && stated !== unsigned - 256 * countNegative(block)) {
    throw new HostctlError('image-invalid', `Field "checksum" holds ${stated} but the header sums to ${unsigned}`);
  }
}

/** Bytes outside the checksum that are negative when taken as signed. */
function countNegative(block: Buffer): number {
  const [offset, length] = TAR_FIELDS.checksum;
  return block.filter((byte, i) => byte >= 128 && (i < offset || i >= offset + length)).length;
}

/** A text field: its bytes up to the first NUL. */
export function textField(block: Buffer, field: TarField): RawName {
  const [offset, length] = TAR_FIELDS[field];
  const nul = block.indexOf(0, offset);
  const end = nul === -1 || nul > offset + length ? offset + length : nul;
  return block.toString('latin1', offset, end) as RawName;
}

/** A numeric field that is not negative and at most 2^53-1. */
export function numberField(block: Buffer, field: TarField): number {
  const [offset, length] = TAR_FIELDS[field];
  return numberAt(block, offset, length, `Field "${field}"`);
}

/** A non-negative number, octal or base-256, in `length` bytes at `offset`; `what` opens the error message. */
export function numberAt(block: Buffer, offset: number, length: number, what: string): number {
  const octal = octalAt(block, offset, length);
  if (octal !== undefined) return octal;
  return toSafeNumber(unusualNumberAt(block, offset, length, what), what);
}

/** A numeric field that may be negative, as only times may be: a signed 64-bit integer. */
export function signedField(block: Buffer, field: TarField): bigint {
  const [offset, length] = TAR_FIELDS[field];
  const octal = octalAt(block, offset, length);
  return octal === undefined ? unusualNumberAt(block, offset, length, `Field "${field}"`) : BigInt(octal);
}

/** The common case, or undefined for anything that is not spaces, octal digits, and an end by space or NUL. */
function octalAt(block: Buffer, offset: number, length: number): number | undefined {
  const end = offset + length;
  let at = offset;
  while (at < end && block[at] === 32) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = block[at]! - 48;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  // Some readers stop at the first space, some only at a NUL: so nothing may follow a space. A field that begins
  // with NUL is empty to some and skipped over by others: so it must be empty to the end.
  if (at < end && (block[at] === 32 || at === offset || block[at - 1] === 32)) {
    for (let rest = at; rest < end; rest++) {
      if (block[rest] !== 32 && block[rest] !== 0) return undefined;
    }
  } else if (at < end && block[at] !== 0) {
    return undefined;
  }
  return value;
}

/** Base-256: 0x80 and a big-endian number, or 0xff and a negative one in two's complement. */
function unusualNumberAt(block: Buffer, offset: number, length: number, what: string): bigint {
  const first = block[offset];
  if (first !== 0x80 && first !== 0xff) {
    const text = displayRaw(block.toString('latin1', offset, offset + length) as RawName);
    throw new HostctlError('image-invalid', `${what} holds "${text}" instead of a number`);
  }
  const digits = BigInt(`0x${block.toString('hex', offset + 1, offset + length)}`);
  const value = first === 0x80 ? digits : digits - (1n << BigInt(8 * (length - 1)));
  if (BigInt.asIntN(64, value) !== value) {
    throw new HostctlError('image-invalid', `${what} holds ${value}, which is beyond 64 bits`);
  }
  return value;
}

/** A bigint as a number; refuses what is negative or beyond 2^53-1. */
export function toSafeNumber(value: bigint, what: string): number {
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new HostctlError('image-invalid', `${what} holds ${value}, which is out of range`);
  }
  return Number(value);
}
