/**
 * A zstd:chunked layer of which only those files are fetched that no object of the repository holds. What comes out is
 * the plain tar, put together around its files; the diff id says whether every byte is right, so nothing that led there
 * has to be trusted.
 */

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { errnoOf, HostctlError } from '../../errors.ts';
import { algorithmOf, OciHasher, type DiffId } from '../../format/oci/digest.ts';
import type { Descriptor } from '../../format/oci/descriptor.ts';
import { TarSplitReader } from '../../format/tar/tar-split.ts';
import {
  checkStored,
  parseToc,
  type BlobPart,
  type ChunkedFile,
  type ChunkedLayer,
} from '../../format/zstd/chunked.ts';
import { fileChunks, freeSpace, split, writeAll } from '../../sys/files.ts';
import type { Host } from '../../sys/host.ts';
import { openZstd } from '../zstd-decoder.ts';
import type { RegistryClient } from './client.ts';
import { fetchParts } from './parts.ts';

export interface PartialLayer {
  readonly blob: Descriptor;
  readonly diffId: DiffId;
  readonly chunked: ChunkedLayer;
}

export interface PartialSources {
  readonly client: RegistryClient;
  /** The file that may hold the content with this sha256; it is compared. */
  readonly findObject: (sha256: string) => string | undefined;
  /** Called with how many bytes came. */
  readonly onBytes: (bytes: number) => void;
}

/** Less of the blob than this is not worth the requests. */
const LEAST_SHARE = 0.1;
const MAX_TAR_BYTES = 64 * 2 ** 30;
/** Real tables take some hundred bytes for each entry, and as much again for each piece of a file. */
const MAX_TOC_BYTES = 64 << 20;
/** A kilobyte for each of as many entries as an image may have; it passes in pieces. */
const MAX_TAR_SPLIT_BYTES = 4 * 2 ** 30;

/** A content of the tar and where it stands there. */
interface Placed {
  readonly file: ChunkedFile;
  readonly at: number;
}

/**
 * Writes the plain tar of a layer to `target`, a new file. Returns false where that would fetch about as much as the
 * whole blob. Throws HostctlError for whatever does not fit: then the whole blob is the way.
 */
export async function fetchPartialLayer(
  host: Host,
  layer: PartialLayer,
  sources: PartialSources,
  target: string,
): Promise<boolean> {
  const { files, tarSplit } = await fetchTables(host, layer, sources);
  const objects = files.map(({ sha256 }) => sources.findObject(sha256));
  if (sizeOf(files.filter((_, index) => objects[index] !== undefined)) < LEAST_SHARE * layer.blob.size) return false;
  const fd = fs.openSync(target, 'wx+', 0o600);
  try {
    const placed = await writeAround(host, { fd, target }, tarSplit, files);
    const missing: Placed[] = [];
    for (const [index, content] of placed.entries()) {
      await checkpoint(host);
      if (!copyObject(fd, content, objects[index])) missing.push(content);
    }
    await fetchContents(host, layer, sources, { fd, missing });
  } finally {
    fs.closeSync(fd);
  }
  await checkTar(host, target, layer.diffId);
  return true;
}

async function fetchTables(
  host: Host,
  { blob, chunked }: PartialLayer,
  { client, onBytes }: PartialSources,
): Promise<{ readonly files: readonly ChunkedFile[]; readonly tarSplit: Uint8Array }> {
  const stored: [Uint8Array[], Uint8Array[]] = [[], []];
  await fetchParts(client, blob, [chunked.toc, chunked.tarSplit], {
    onBytes,
    take: (part, bytes) => Promise.resolve(void stored[part]!.push(bytes)),
  });
  const [toc, tarSplit] = [Buffer.concat(stored[0]), Buffer.concat(stored[1])];
  checkStored(toc, chunked.tocDigest, 'Table of contents');
  const pieces: Uint8Array[] = [];
  await unpack(host, toc, MAX_TOC_BYTES, (piece) => pieces.push(Uint8Array.from(piece)));
  const { files, tarSplitDigest } = parseToc(Buffer.concat(pieces), chunked.toc.start);
  checkStored(tarSplit, tarSplitDigest, 'Tar-split');
  return { files, tarSplit };
}

/** Writes everything but the contents, and says where these go. */
async function writeAround(
  host: Host,
  { fd, target }: { readonly fd: number; readonly target: string },
  tarSplit: Uint8Array,
  files: readonly ChunkedFile[],
): Promise<Placed[]> {
  const placed: Placed[] = [];
  const { freeBytes } = freeSpace(split(target).directory);
  let at = 0;
  const grow = (size: number): void => {
    at += size;
    if (at > MAX_TAR_BYTES) throw new HostctlError('image-unsupported', `Layer has more than ${MAX_TAR_BYTES} bytes`);
    if (at > freeBytes) throw new HostctlError('no-space', 'There is no room for the unpacked layer');
  };
  const reader = new TarSplitReader({
    raw(bytes) {
      writeAll(fd, bytes, at);
      grow(bytes.length);
    },
    content(size) {
      const file = files[placed.length];
      if (file?.size !== size) throw new HostctlError('image-invalid', 'Tar-split and table of contents differ');
      placed.push({ file, at });
      grow(size);
    },
  });
  await unpack(host, tarSplit, MAX_TAR_SPLIT_BYTES, (piece) => reader.push(piece));
  reader.end();
  if (placed.length < files.length) throw new HostctlError('image-invalid', 'Tar-split has fewer files than the table');
  return placed;
}

/** Whether the object was there and had the content. What was written otherwise is written again. */
function copyObject(fd: number, { file, at }: Placed, path: string | undefined): boolean {
  if (path === undefined) return false;
  const hash = createHash('sha256');
  let length = 0;
  try {
    for (const chunk of fileChunks(path)) {
      if (length + chunk.length > file.size) return false;
      hash.update(chunk);
      writeAll(fd, chunk, at + length);
      length += chunk.length;
    }
  } catch (error) {
    // Objects may be removed at any time before the repository is locked, and may lie where the disk is damaged.
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EIO') return false;
    throw error;
  }
  return length === file.size && hash.digest('hex') === file.sha256;
}

async function fetchContents(
  host: Host,
  { blob }: PartialLayer,
  { client, onBytes }: PartialSources,
  { fd, missing }: { readonly fd: number; readonly missing: readonly Placed[] },
): Promise<void> {
  if (missing.length === 0) return;
  const writer = new ContentWriter(fd, missing);
  const decoder = openZstd(
    (piece) => writer.write(piece),
    (program, args) => host.exec.filter(program, args),
  );
  try {
    const take = (_: number, bytes: Uint8Array): Promise<void> => decoder.write(bytes);
    await fetchParts(
      client,
      blob,
      missing.map(({ file }) => file),
      { onBytes, take },
    );
    await decoder.end();
  } finally {
    await decoder.close();
  }
  writer.end();
}

/** Takes the contents one after the other and puts each where it belongs. */
class ContentWriter {
  readonly #fd: number;
  readonly #contents: readonly Placed[];
  #next = 0;
  #length = 0;
  #hash = createHash('sha256');

  constructor(fd: number, contents: readonly Placed[]) {
    this.#fd = fd;
    this.#contents = contents;
  }

  write(bytes: Uint8Array): void {
    for (let rest = bytes; rest.length > 0;) {
      const content = this.#contents[this.#next];
      if (content === undefined) throw new HostctlError('size-mismatch', 'Parts unpack to more than their files');
      const { file, at } = content;
      const piece = rest.subarray(0, file.size - this.#length);
      writeAll(this.#fd, piece, at + this.#length);
      this.#hash.update(piece);
      this.#length += piece.length;
      rest = rest.subarray(piece.length);
      if (this.#length === file.size) this.#finish(file);
    }
  }

  end(): void {
    if (this.#next < this.#contents.length)
      throw new HostctlError('size-mismatch', 'Parts unpack to less than their files');
  }

  #finish({ sha256 }: ChunkedFile): void {
    if (this.#hash.digest('hex') !== sha256)
      throw new HostctlError('digest-mismatch', 'A part has other content than the table says');
    this.#hash = createHash('sha256');
    this.#length = 0;
    this.#next += 1;
  }
}

async function checkTar(host: Host, file: string, diffId: DiffId): Promise<void> {
  const hasher = new OciHasher(algorithmOf(diffId));
  for (const chunk of fileChunks(file)) {
    hasher.update(chunk);
    await checkpoint(host);
  }
  const found = hasher.digest() as string;
  if (found === diffId) return;
  throw new HostctlError('digest-mismatch', `Parts give the diff id "${found}" instead of "${diffId}"`);
}

async function unpack(
  host: Host,
  bytes: Uint8Array,
  maxBytes: number,
  output: (piece: Uint8Array) => void,
): Promise<void> {
  let length = 0;
  const bounded = (piece: Uint8Array): void => {
    length += piece.length;
    if (length > maxBytes)
      throw new HostctlError('image-unsupported', `A table unpacks to more than ${maxBytes} bytes`);
    output(piece);
  };
  const decoder = openZstd(bounded, (program, args) => host.exec.filter(program, args));
  try {
    await decoder.write(bytes);
    await decoder.end();
  } finally {
    await decoder.close();
  }
}

/** Lets signals in. */
async function checkpoint({ signal }: Host): Promise<void> {
  await nextTurn();
  if (signal.aborted) throw new HostctlError('interrupted', 'Stopped fetching', { cause: signal.reason });
}

function sizeOf(parts: readonly BlobPart[]): number {
  return parts.reduce((sum, { start, end }) => sum + end - start, 0);
}
