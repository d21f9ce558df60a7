/**
 * Sparse files in tar: the four forms (old GNU type `S`, and GNU.sparse 0.0, 0.1, 1.0 in PAX records; GNU tar
 * manual, "Storing Sparse Files") become one list of data segments. A map that is accepted ascends, does not
 * overlap, ends within the file and adds up to exactly the packed bytes that follow.
 */

import { HostctlError } from '../../errors.ts';
import { BLOCK_SIZE, numberAt, TAR_FIELDS } from './header.ts';
import type { PaxSparse } from './pax.ts';

/** A run of stored bytes in the expanded file; everything between runs is zeros. */
export interface SparseSegment {
  readonly offset: number;
  readonly length: number;
}

const MAX_SEGMENTS = 10_000;
const PAIR_BYTES = 24;

/** How a PAX header stores the map of a sparse file. */
export type PaxSparseForm =
  | { readonly kind: 'in-header'; readonly segments: SparseSegment[]; readonly realSize: number }
  /** Form 1.0: the map opens the data. */
  | { readonly kind: 'in-data'; readonly realSize: number };

/** Decides which form the `GNU.sparse.*` records are; refuses records that add up to none. */
export function paxSparseForm(sparse: PaxSparse): PaxSparseForm {
  const { realSize } = sparse;
  if (realSize === undefined) throw new HostctlError('image-invalid', 'Sparse file has no real size');
  if (sparse.major === 1 && sparse.minor === 0) {
    if (sparse.map !== undefined || sparse.pairs !== undefined) {
      throw new HostctlError('image-invalid', 'Sparse file of form 1.0 has a second map in its PAX header');
    }
    return { kind: 'in-data', realSize };
  }
  if ((sparse.major ?? 0) !== 0 || (sparse.minor ?? 0) > 1) {
    throw new HostctlError(
      'image-unsupported',
      `Sparse file has the unknown form ${sparse.major ?? 0}.${sparse.minor ?? 0}`,
    );
  }
  if ((sparse.map === undefined) === (sparse.pairs === undefined)) {
    throw new HostctlError('image-invalid', 'Sparse file does not have exactly one map');
  }
  const segments = sparse.map ?? segmentsOfPairs(sparse.pairs!);
  if (sparse.numBlocks !== undefined && sparse.numBlocks !== segments.length) {
    throw new HostctlError(
      'image-invalid',
      `Sparse file has ${segments.length} segments instead of ${sparse.numBlocks}`,
    );
  }
  return { kind: 'in-header', segments, realSize };
}

/** Refuses a map that does not describe `packedBytes` of data in a file of `realSize`. Returns it. */
export function checkSparseMap(segments: SparseSegment[], packedBytes: number, realSize: number): SparseSegment[] {
  if (segments.length > MAX_SEGMENTS) throw tooManySegments(segments.length);
  let end = 0;
  let stored = 0;
  for (const [i, segment] of segments.entries()) {
    if (segment.offset < end) throw new HostctlError('image-invalid', `Sparse segment ${i} overlaps or goes back`);
    end = segment.offset + segment.length;
    stored += segment.length;
    if (end > realSize)
      throw new HostctlError('image-invalid', `Sparse segment ${i} ends behind the file's ${realSize} bytes`);
  }
  if (stored !== packedBytes) {
    throw new HostctlError('image-invalid', `Sparse segments hold ${stored} bytes, but ${packedBytes} are stored`);
  }
  return segments;
}

function segmentsOfPairs(pairs: readonly number[]): SparseSegment[] {
  if (pairs.length % 2 !== 0) throw new HostctlError('image-invalid', 'Sparse file has an offset without length');
  const segments: SparseSegment[] = [];
  for (let i = 0; i < pairs.length; i += 2) segments.push({ offset: pairs[i]!, length: pairs[i + 1]! });
  return segments;
}

function tooManySegments(count: number): HostctlError {
  return new HostctlError('image-unsupported', `Sparse file has ${count} segments, at most ${MAX_SEGMENTS} are read`);
}

/** Collects the map of an old GNU sparse file (type `S`) from its header and the extension blocks behind it. */
export class OldGnuSparseMap {
  readonly realSize: number;
  readonly segments: SparseSegment[] = [];
  /** Whether an extension block follows. */
  extended: boolean;

  constructor(header: Buffer) {
    const [sizeAt, sizeLength] = TAR_FIELDS.sparseRealSize;
    this.realSize = numberAt(header, sizeAt, sizeLength, 'Field "realsize"');
    this.extended = this.#take(header, TAR_FIELDS.sparse[0], 4, TAR_FIELDS.sparseExtended[0]);
  }

  /** Takes one extension block. */
  extend(block: Buffer): void {
    this.extended = this.#take(block, 0, 21, 504);
    if (this.segments.length > MAX_SEGMENTS) throw tooManySegments(this.segments.length);
  }

  #take(block: Buffer, offset: number, count: number, flagAt: number): boolean {
    for (let i = 0; i < count; i++) {
      const at = offset + i * PAIR_BYTES;
      if (block[at] === 0) break;
      this.segments.push({
        offset: numberAt(block, at, 12, 'Sparse offset'),
        length: numberAt(block, at + 12, 12, 'Sparse length'),
      });
    }
    return block[flagAt] !== 0;
  }
}

/**
 * Reads the map that opens the data of a sparse file of form 1.0, one 512-byte block at a time: decimal lines, first
 * the count, then offset and length of each segment, padded to a block.
 */
export class SparseDataMap {
  readonly segments: SparseSegment[] = [];
  #digits = '';
  #count: number | undefined;
  #offset: number | undefined;

  /** Takes the next block; true once the map is complete. */
  take(block: Buffer): boolean {
    for (let i = 0; i < BLOCK_SIZE; i++) {
      const byte = block[i]!;
      if (byte >= 48 && byte <= 57 && this.#digits.length < 16) {
        this.#digits += String.fromCharCode(byte);
        continue;
      }
      if (byte !== 10 || this.#digits === '')
        throw new HostctlError('image-invalid', 'Sparse map is not lines of numbers');
      this.#line(Number(this.#digits));
      this.#digits = '';
      if (this.segments.length === this.#count) return true;
    }
    return false;
  }

  #line(value: number): void {
    if (!Number.isSafeInteger(value)) throw new HostctlError('image-invalid', `Sparse map holds ${value}`);
    if (this.#count === undefined) {
      if (value > MAX_SEGMENTS) throw tooManySegments(value);
      this.#count = value;
    } else if (this.#offset === undefined) {
      this.#offset = value;
    } else {
      this.segments.push({ offset: this.#offset, length: value });
      this.#offset = undefined;
    }
  }
}
