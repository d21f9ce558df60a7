/**
 * Layer record: what one layer does to the tree below it, as it came out of its tar, so that the blob need not be read
 * again. Little-endian, no padding, no choice in how a value is written:
 *
 *     16 bytes  "hostctl-layer 1\n"; another version is another text. Version 1 keeps the xattrs of `allowlist-only`
 *     u8        hash of the objects: 1 sha256, 2 sha512
 *     u8        1 where something follows the end of the tar, else 0
 *     text      diff id
 *     u32       entries below
 *     u32, u64, u64    what the layer uses of an image's limits: entries, metadata bytes, output bytes
 *     entries   u8 kind, u32 number, text path, and what the kind has
 *     32 bytes  SHA-256 of everything before
 *
 * A text is a u16 length and its bytes. A node has u16 mode, u32 uid, u32 gid, i64 and u32 mtime, u16 xattrs, each of
 * them two texts, and then by its kind: content (a text), object (u64 size, digest), symlink target, u32 device.
 */

import { createHash, hash } from 'node:crypto';
import { HostctlError } from '../errors.ts';
import type { ImageTotals, LayerEntry } from '../tree/layer-entry.ts';
import type { RawName } from '../tree/name.ts';
import {
  NO_CONTENT,
  NO_XATTRS,
  type FileContent,
  type Metadata,
  type Timestamp,
  type TreeNode,
  type VerityAlgorithm,
  type VerityDigest,
} from '../tree/node.ts';
import { INLINE_LIMIT } from '../tree/validate.ts';
import { objectPath } from './fsverity/digest.ts';
import type { DiffId } from './oci/digest.ts';

/** What a layer came to. */
export interface LayerContent {
  readonly entries: readonly LayerEntry[];
  /** What it uses of an image's limits. */
  readonly used: ImageTotals;
  /** Something other than zeros follows the end of its tar. */
  readonly trailingData: boolean;
}

/** Which layer a record is of, and by what hash it names objects. */
export interface LayerKey {
  readonly diffId: DiffId;
  readonly algorithm: VerityAlgorithm;
}

/** Larger records are neither written nor read. Some 800,000 entries fit. */
export const MAX_LAYER_RECORD_BYTES = 128 << 20;

const MAGIC = Buffer.from('hostctl-layer 1\n');
const CHECKSUM_BYTES = 32;
const CHUNK_BYTES = 256 << 10;
/** More than any entry takes: three texts, and xattrs up to their limit. */
const ENTRY_BYTES = 128 << 10;
const DIGEST_BYTES: Readonly<Record<VerityAlgorithm, number>> = { sha256: 32, sha512: 64 };
const ALGORITHM_NUMBERS: Readonly<Record<VerityAlgorithm, number>> = { sha256: 1, sha512: 2 };
const MAX_MODE = 0o7777;
const NSEC_PER_SEC = 1_000_000_000;

const KINDS = [
  'whiteout',
  'opaque',
  'hardlink',
  'directory',
  'inline',
  'external',
  'symlink',
  'char',
  'block',
  'fifo',
] as const;
type Kind = (typeof KINDS)[number];
const KIND_NUMBERS = new Map<Kind, number>(KINDS.map((kind, index) => [kind, index]));

/** The bytes of a record in pieces, each lent until the next one is asked for. */
export function* encodeLayerRecord(key: LayerKey, content: LayerContent): Generator<Uint8Array, void, undefined> {
  const checksum = createHash('sha256');
  const writer = new RecordWriter(Buffer.allocUnsafe(CHUNK_BYTES));
  const flush = (): Uint8Array => {
    const bytes = writer.take();
    checksum.update(bytes);
    return bytes;
  };
  writer.header(key, content);
  for (const entry of content.entries) {
    if (writer.length > CHUNK_BYTES - ENTRY_BYTES) yield flush();
    writer.entry(entry);
  }
  yield flush();
  yield checksum.digest();
}

/** Whether these are the bytes of a record of this layer, as they were written. */
export function isLayerRecord(bytes: Uint8Array, key: LayerKey): boolean {
  const { start, end } = bounds(bytes, key);
  return start < end && hasChecksum(bytes, end);
}

/** Whether they are those of a record in another version, as they were written: every version ends with its checksum. */
export function isOtherLayerRecord(bytes: Uint8Array): boolean {
  const [, version] = /^hostctl-layer (\d+)\n/.exec(Buffer.from(bytes.subarray(0, 32)).toString('latin1')) ?? [];
  return version !== undefined && version !== '1' && hasChecksum(bytes, bytes.length - CHECKSUM_BYTES);
}

function hasChecksum(bytes: Uint8Array, end: number): boolean {
  return end >= 0 && hash('sha256', bytes.subarray(0, end), 'buffer').equals(bytes.subarray(end));
}

/** Reads a record. Throws 'format-invalid' for any that is not of this layer, as it was written. */
export function parseLayerRecord(bytes: Uint8Array, key: LayerKey): LayerContent {
  if (!isLayerRecord(bytes, key)) {
    throw new HostctlError('format-invalid', `Layer record is not one of ${key.diffId} as it was written`);
  }
  const { start, end } = bounds(bytes, key);
  return new RecordReader(bytes, start, end, key.algorithm).content();
}

/** Where the part begins that not all records of the layer have in common, and where the checksum begins. */
function bounds(bytes: Uint8Array, { diffId, algorithm }: LayerKey): { readonly start: number; readonly end: number } {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = text.length - CHECKSUM_BYTES;
  const start = MAGIC.length + 4 + diffId.length;
  const isOurs =
    start < end &&
    text.compare(MAGIC, 0, MAGIC.length, 0, MAGIC.length) === 0 &&
    text[MAGIC.length] === ALGORITHM_NUMBERS[algorithm] &&
    text.readUInt16LE(MAGIC.length + 2) === diffId.length &&
    text.toString('latin1', MAGIC.length + 4, start) === diffId;
  return isOurs ? { start, end } : { start: 0, end: 0 };
}

class RecordWriter {
  readonly #buffer: Buffer;
  length = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  take(): Uint8Array {
    const bytes = this.#buffer.subarray(0, this.length);
    this.length = 0;
    return bytes;
  }

  header({ diffId, algorithm }: LayerKey, { entries, used, trailingData }: LayerContent): void {
    this.length += MAGIC.copy(this.#buffer, this.length);
    this.#u8(ALGORITHM_NUMBERS[algorithm]);
    this.#u8(Number(trailingData));
    this.#text(diffId);
    this.#u32(entries.length);
    this.#u32(used.entries);
    this.#u64(used.metadataBytes);
    this.#u64(used.outputBytes);
  }

  entry(entry: LayerEntry): void {
    this.#u8(KIND_NUMBERS.get(kindOf(entry))!);
    this.#u32(entry.number);
    this.#text(entry.path);
    if (entry.kind === 'node') this.#node(entry.node);
    else if (entry.kind === 'hardlink') this.#text(entry.target);
  }

  #node(node: TreeNode): void {
    this.#metadata(node);
    if (node.kind === 'file') this.#content(node.content);
    else if (node.kind === 'symlink') this.#text(node.target);
    else if (node.kind === 'char' || node.kind === 'block') this.#u32(node.rdev);
  }

  #metadata({ mode, uid, gid, mtime, xattrs }: Metadata): void {
    this.#u16(mode);
    this.#u32(uid);
    this.#u32(gid);
    this.length = this.#buffer.writeBigInt64LE(mtime.sec, this.length);
    this.#u32(mtime.nsec);
    this.#u16(xattrs.size);
    for (const [name, value] of xattrs) {
      this.#text(name);
      this.#bytes(value);
    }
  }

  #content(content: FileContent): void {
    if (content.kind === 'inline') {
      this.#bytes(content.bytes);
      return;
    }
    if (content.digest === undefined) throw new HostctlError('internal', 'A file of a layer has no digest');
    this.#u64(content.size);
    this.length += this.#buffer.write(content.digest, this.length, 'hex');
  }

  #text(text: string): void {
    this.#u16(text.length);
    this.length += this.#buffer.write(text, this.length, 'latin1');
  }

  #bytes(bytes: Uint8Array): void {
    this.#u16(bytes.length);
    this.#buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  #u8(value: number): void {
    this.length = this.#buffer.writeUInt8(value, this.length);
  }

  #u16(value: number): void {
    this.length = this.#buffer.writeUInt16LE(value, this.length);
  }

  #u32(value: number): void {
    this.length = this.#buffer.writeUInt32LE(value, this.length);
  }

  #u64(value: number): void {
    this.#u32(value % 2 ** 32);
    this.#u32(Math.floor(value / 2 ** 32));
  }
}

function kindOf(entry: LayerEntry): Kind {
  if (entry.kind !== 'node') return entry.kind;
  const { node } = entry;
  if (node.kind === 'file') return node.content.kind;
  if (node.kind === 'socket') throw new HostctlError('internal', 'A layer has a socket');
  return node.kind;
}

class RecordReader {
  readonly #bytes: Buffer;
  readonly #end: number;
  readonly #algorithm: VerityAlgorithm;
  #offset: number;
  /** Of the last node: most come with the time of the one before, and share it. */
  #mtime: Timestamp = { sec: 0n, nsec: 0 };

  constructor(bytes: Uint8Array, start: number, end: number, algorithm: VerityAlgorithm) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#offset = start;
    this.#end = end;
    this.#algorithm = algorithm;
  }

  content(): LayerContent {
    const trailing = this.#bytes[MAGIC.length + 1];
    if (trailing !== 0 && trailing !== 1) throw invalid(MAGIC.length + 1, 'neither 0 nor 1');
    const count = this.#u32();
    const used = { entries: this.#u32(), metadataBytes: this.#u64(), outputBytes: this.#u64() };
    const entries: LayerEntry[] = [];
    while (this.#offset < this.#end) entries.push(this.#entry());
    if (entries.length !== count) throw invalid(this.#offset, `${entries.length} entries instead of ${count}`);
    return { entries, used, trailingData: trailing === 1 };
  }

  #entry(): LayerEntry {
    const at = this.#offset;
    const kind = KINDS[this.#u8()];
    const number = this.#u32();
    const path = this.#text();
    switch (kind) {
      case undefined:
        throw invalid(at, 'a kind of entry that there is not');
      case 'whiteout':
      case 'opaque':
        return { kind, number, path };
      case 'hardlink':
        return { kind, number, path, target: this.#text() };
      default:
        return { kind: 'node', number, path, node: this.#node(kind) };
    }
  }

  #node(kind: Exclude<Kind, 'whiteout' | 'opaque' | 'hardlink'>): TreeNode {
    const metadata = this.#metadata();
    switch (kind) {
      case 'directory':
        return { kind, ...metadata, entries: new Map() };
      case 'inline':
        return { kind: 'file', ...metadata, content: this.#inline(), nlink: 0 };
      case 'external':
        return { kind: 'file', ...metadata, content: this.#external(), nlink: 0 };
      case 'symlink':
        return { kind, ...metadata, target: this.#text(), nlink: 0 };
      case 'char':
      case 'block':
        return { kind, ...metadata, rdev: this.#u32(), nlink: 0 };
      case 'fifo':
        return { kind, ...metadata, nlink: 0 };
    }
  }

  #metadata(): Metadata {
    const at = this.#offset;
    const mode = this.#u16();
    const uid = this.#u32();
    const gid = this.#u32();
    const sec = this.#bytes.readBigInt64LE(this.#take(8));
    const nsec = this.#u32();
    if (mode > MAX_MODE || nsec >= NSEC_PER_SEC) throw invalid(at, 'a mode or a time that there is not');
    if (sec !== this.#mtime.sec || nsec !== this.#mtime.nsec) this.#mtime = { sec, nsec };
    return { mode, uid, gid, mtime: this.#mtime, xattrs: this.#xattrs() };
  }

  #xattrs(): Metadata['xattrs'] {
    const at = this.#offset;
    const count = this.#u16();
    if (count === 0) return NO_XATTRS;
    const xattrs = new Map<RawName, Uint8Array>();
    for (let i = 0; i < count; i++) xattrs.set(this.#text(), this.#copy(this.#u16()));
    if (xattrs.size !== count) throw invalid(at, 'an xattr twice');
    return xattrs;
  }

  #inline(): FileContent {
    const at = this.#offset;
    const length = this.#u16();
    if (length > INLINE_LIMIT) throw invalid(at, `a content of ${length} bytes`);
    return length === 0 ? NO_CONTENT : { kind: 'inline', bytes: this.#copy(length) };
  }

  #external(): FileContent {
    const at = this.#offset;
    const size = this.#u64();
    if (size <= INLINE_LIMIT) throw invalid(at, `an object of ${size} bytes`);
    const length = DIGEST_BYTES[this.#algorithm];
    const start = this.#take(length);
    const digest = this.#bytes.toString('hex', start, start + length) as VerityDigest;
    return { kind: 'external', size, digest, path: objectPath(digest) };
  }

  #text(): RawName {
    const length = this.#u16();
    const start = this.#take(length);
    return this.#bytes.toString('latin1', start, start + length) as RawName;
  }

  /** A copy: what stays in the tree must not hold all of the record. */
  #copy(length: number): Uint8Array {
    const start = this.#take(length);
    return new Uint8Array(this.#bytes.subarray(start, start + length));
  }

  #u8(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }

  #u16(): number {
    return this.#bytes.readUInt16LE(this.#take(2));
  }

  #u32(): number {
    return this.#bytes.readUInt32LE(this.#take(4));
  }

  #u64(): number {
    const at = this.#offset;
    const value = this.#u32() + this.#u32() * 2 ** 32;
    if (value > Number.MAX_SAFE_INTEGER) throw invalid(at, 'a number beyond 2^53');
    return value;
  }

  /** Passes over so many bytes and says where they begin. */
  #take(length: number): number {
    const start = this.#offset;
    if (length > this.#end - start) throw invalid(start, `an end ${length - (this.#end - start)} bytes early`);
    this.#offset = start + length;
    return start;
  }
}

function invalid(offset: number, what: string): HostctlError {
  return new HostctlError('format-invalid', `Layer record has ${what} at offset ${offset}`);
}
