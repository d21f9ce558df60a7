/**
 * zstd:chunked: a zstd layer in which each file is a frame of its own, with a table of contents and the bytes of the tar
 * around the files ("tar-split") in skippable frames at its end. Where these lie, annotations of the layer say. All of
 * it only says how less may be fetched: what is made of it is compared with the diff id.
 */

import { HostctlError } from '../../errors.ts';
import type { Descriptor } from '../oci/descriptor.ts';
import { digestLike, type OciDigest } from '../oci/digest.ts';

/** Bytes of a blob from `start` to before `end`. */
export interface BlobPart {
  readonly start: number;
  readonly end: number;
}

export interface ChunkedLayer {
  readonly toc: BlobPart;
  /** Of the table as it is stored. */
  readonly tocDigest: OciDigest;
  readonly tarSplit: BlobPart;
}

/** A file with content, and the frames that give it. */
export interface ChunkedFile extends BlobPart {
  /** Bytes of the content. */
  readonly size: number;
  /** Of the content, hex. */
  readonly sha256: string;
}

export interface ChunkedToc {
  /** In the order of the tar. */
  readonly files: readonly ChunkedFile[];
  /** Of the tar-split as it is stored. */
  readonly tarSplitDigest: OciDigest;
}

const PREFIX = 'io.github.containers.zstd-chunked.';
/** Both tables are held in memory as they are stored. */
const MAX_PACKED_BYTES = 32 << 20;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** What the annotations of a layer say; undefined where they do not make it one that can be fetched in parts. */
export function chunkedLayer({ annotations, size }: Descriptor): ChunkedLayer | undefined {
  const toc = partOf(annotations.get(`${PREFIX}manifest-position`), /^(\d{1,15}):(\d{1,15}):\d+:1$/, size);
  const tarSplit = partOf(annotations.get(`${PREFIX}tarsplit-position`), /^(\d{1,15}):(\d{1,15}):\d+$/, size);
  const tocDigest = annotations.get(`${PREFIX}manifest-checksum`);
  if (toc === undefined || tarSplit === undefined || tocDigest === undefined) return undefined;
  if (!DIGEST.test(tocDigest) || tarSplit.start < toc.end) return undefined;
  return { toc, tocDigest: tocDigest as OciDigest, tarSplit };
}

function partOf(position: string | undefined, form: RegExp, size: number): BlobPart | undefined {
  const match = form.exec(position ?? '');
  if (match === null) return undefined;
  const [start, length] = [Number(match[1]), Number(match[2])];
  return length > 0 && length <= MAX_PACKED_BYTES && start + length <= size
    ? { start, end: start + length }
    : undefined;
}

/** Refuses stored bytes that are not those of the digest; `what` opens the message. */
export function checkStored(bytes: Uint8Array, digest: OciDigest, what: string): void {
  if (digestLike(digest, bytes) !== digest) throw unfit(`${what} is not the one of ${digest}`);
}

/** Parses an unpacked table, whose files lie before `end` in the blob. Throws 'image-invalid'. */
export function parseToc(bytes: Uint8Array, end: number): ChunkedToc {
  const toc = fieldsOf(parseJson(bytes, 'Table of contents'));
  if (toc['version'] !== 1 || !Array.isArray(toc['entries'])) throw unfit('Table of contents is of another version');
  const tarSplitDigest = toc['tarSplitDigest'];
  if (typeof tarSplitDigest !== 'string' || !DIGEST.test(tarSplitDigest)) {
    throw unfit('Table of contents does not say which tar-split it goes with');
  }
  const files: ChunkedFile[] = [];
  let at = 0;
  for (const entry of toc['entries'] as unknown[]) {
    const file = fileOf(fieldsOf(entry));
    if (file === undefined) continue;
    if (file.start < at || file.end <= file.start || file.end > end) {
      throw unfit(`Table of contents places a file at ${file.start} to ${file.end}, behind what comes after it`);
    }
    at = file.end;
    files.push(file);
  }
  return { files, tarSplitDigest: tarSplitDigest as OciDigest };
}

/** Pieces of a file ("chunk") lie in its own frames one after the other, so the file is all that is needed. */
function fileOf({ type, size, digest, offset, endOffset }: Readonly<Record<string, unknown>>): ChunkedFile | undefined {
  if (type !== 'reg' || size === undefined || size === 0) return undefined;
  if (!isCount(size) || !isCount(offset) || !isCount(endOffset) || typeof digest !== 'string' || !DIGEST.test(digest)) {
    throw unfit('Table of contents has a file without size, digest or place');
  }
  return { size, sha256: digest.slice('sha256:'.length), start: offset, end: endOffset };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Parses JSON that comes from an image, without the rules of OCI's documents. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new HostctlError('image-invalid', `${what} is not JSON`, { cause });
  }
}

/** The fields of an object; nothing else has any. */
export function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function unfit(message: string): HostctlError {
  return new HostctlError('image-invalid', message);
}
