/**
 * One layer from its blob to tar entries, in one pass: blob digest and size, decompression, diff id over everything
 * that comes out, tar. The handler sees entries before the digests are known to be right, so what it made counts only
 * once `readLayer` has resolved.
 */

import * as fs from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { HostctlError, isHostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { algorithmOf, OciHasher, type DiffId } from '../format/oci/digest.ts';
import type { LayerDescriptor } from '../format/oci/manifest.ts';
import type { LayerCompression } from '../format/oci/media-types.ts';
import { TarReader, type TarHandler } from '../format/tar/reader.ts';
import { openBlob } from './blob.ts';
import { GzipDecoder, plainDecoder, type Decoder, type DecoderOutput } from './decoder.ts';
import { builtinZstd, ZstdBuiltinDecoder, ZstdProgramDecoder, type StartFilter } from './zstd-decoder.ts';

/** A layer of an opened image. */
export interface LayerSource {
  /** From 1; with `count`, for messages: "layer 3 of 7". */
  readonly number: number;
  readonly count: number;
  readonly descriptor: LayerDescriptor;
  readonly diffId: DiffId;
  /** The blob's file on this host. */
  readonly blobFile: string;
}

export interface ReadLayerOptions {
  readonly signal: AbortSignal;
  /** For zstd where Node has none of its own. */
  readonly startFilter: StartFilter;
  /** What the layers below gave out, for the limit of the whole image. */
  readonly outputBytesBefore: number;
  /** Called with the blob bytes taken since the last call. */
  readonly onBytes?: (bytes: number) => void;
}

export interface LayerResult {
  /** Output of this layer and those before it: decompressed bytes and expanded holes. */
  readonly outputBytes: number;
  /** Something other than zeros follows the end of the tar; it was not read as entries. */
  readonly trailingData: boolean;
}

const READ_BYTES = 256 << 10;
const MAX_OUTPUT_BYTES = 64 * 2 ** 30;
const MAX_RATIO = 1000;
const RATIO_FREE_BYTES = 2 ** 30;

/** Reads a layer through `handler`. Errors name the layer; digests that do not match win over what follows from that. */
export async function readLayer(
  layer: LayerSource,
  handler: TarHandler,
  options: ReadLayerOptions,
): Promise<LayerResult> {
  const { number, count, descriptor } = layer;
  try {
    return await readChecked(layer, handler, options);
  } catch (error) {
    throw withContext(`Layer ${number} of ${count} (${descriptor.digest})`, error);
  }
}

async function readChecked(layer: LayerSource, handler: TarHandler, options: ReadLayerOptions): Promise<LayerResult> {
  const { descriptor, diffId } = layer;
  const fd = openBlob(layer.blobFile, descriptor.size);
  let decoder: Decoder | undefined;
  try {
    const blob = new BlobReader(fd, layer);
    const chain = new OutputChain(diffId, handler, blob, options.outputBytesBefore);
    const output: DecoderOutput = (chunk) => chain.take(chunk);
    try {
      for await (const chunk of blob.chunks(options)) {
        if (decoder === undefined) {
          checkMagic(chunk, descriptor.compression);
          decoder = openDecoder(descriptor.compression, output, options.startFilter);
        }
        await decoder.write(chunk);
      }
      decoder ??= openDecoder(descriptor.compression, output, options.startFilter);
      await decoder.end();
      chain.end();
    } catch (error) {
      // A damaged blob fails in many ways; that it is damaged is what should be said.
      if (isHostctlError(error, 'image-invalid', 'image-unsupported')) blob.checkRest(error);
      throw error;
    }
    blob.checkRest();
    chain.checkDiffId();
    return { outputBytes: chain.outputBytes, trailingData: chain.trailingData };
  } finally {
    await decoder?.close();
    fs.closeSync(fd);
  }
}

/** Reads the blob piece by piece and counts up its digest. */
class BlobReader {
  readonly #fd: number;
  readonly #layer: LayerSource;
  readonly #hasher: OciHasher;
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);
  takenBytes = 0;

  constructor(fd: number, layer: LayerSource) {
    this.#fd = fd;
    this.#layer = layer;
    this.#hasher = new OciHasher(algorithmOf(layer.descriptor.digest));
  }

  /** Every piece of the blob; the buffer is the same each time. */
  async *chunks({ signal, onBytes }: ReadLayerOptions): AsyncGenerator<Uint8Array> {
    for (let chunk = this.#next(); chunk.length > 0; chunk = this.#next()) {
      // Plain tar is read without waiting for anything, which would keep signals out.
      await nextTurn();
      if (signal.aborted) throw new HostctlError('interrupted', 'Stopped reading the layer', { cause: signal.reason });
      onBytes?.(chunk.length);
      yield chunk;
    }
  }

  /** Reads on to the end and compares the digest. */
  checkRest(cause?: unknown): void {
    while (this.#next().length > 0);
    const digest = this.#hasher.digest();
    const expected = this.#layer.descriptor.digest;
    if (digest !== expected) {
      throw new HostctlError('digest-mismatch', `Blob has the digest "${digest}" instead of "${expected}"`, { cause });
    }
  }

  #next(): Uint8Array {
    const left = this.#layer.descriptor.size - this.takenBytes;
    const length = fs.readSync(this.#fd, this.#buffer, 0, Math.min(READ_BYTES, left), null);
    const chunk = this.#buffer.subarray(0, length);
    if (length === 0 && left > 0) throw new HostctlError('size-mismatch', `Blob ends ${left} bytes early`);
    this.takenBytes += length;
    this.#hasher.update(chunk);
    return chunk;
  }
}

/** What happens to decompressed bytes: limits, diff id, tar. */
class OutputChain {
  readonly #diffId: DiffId;
  readonly #hasher: OciHasher;
  readonly #tar: TarReader;
  readonly #blob: BlobReader;
  readonly #before: number;
  outputBytes: number;

  constructor(diffId: DiffId, handler: TarHandler, blob: BlobReader, before: number) {
    this.#diffId = diffId;
    this.#hasher = new OciHasher(algorithmOf(diffId));
    this.#blob = blob;
    this.#before = before;
    this.outputBytes = before;
    this.#tar = new TarReader({
      entry: (entry) => {
        this.#count(entry.holeBytes);
        handler.entry(entry);
      },
      data: (chunk) => handler.data(chunk),
      entryEnd: () => handler.entryEnd(),
    });
  }

  get trailingData(): boolean {
    return this.#tar.trailingData;
  }

  take(chunk: Uint8Array): void {
    this.#count(chunk.length);
    this.#hasher.update(chunk);
    this.#tar.push(chunk);
  }

  end(): void {
    this.#tar.end();
  }

  checkDiffId(): void {
    const found = this.#hasher.digest() as string;
    if (found !== this.#diffId) {
      throw new HostctlError('digest-mismatch', `Content has the diff id "${found}" instead of "${this.#diffId}"`);
    }
  }

  #count(bytes: number): void {
    this.outputBytes += bytes;
    if (this.outputBytes > MAX_OUTPUT_BYTES) {
      throw new HostctlError('image-unsupported', `Image unpacks to more than ${MAX_OUTPUT_BYTES} bytes`);
    }
    const ofLayer = this.outputBytes - this.#before;
    if (ofLayer > RATIO_FREE_BYTES && ofLayer > MAX_RATIO * this.#blob.takenBytes) {
      throw new HostctlError('image-unsupported', `Content is more than ${MAX_RATIO} times as large as the blob`);
    }
  }
}

function openDecoder(compression: LayerCompression, output: DecoderOutput, startFilter: StartFilter): Decoder {
  switch (compression) {
    case 'none':
      return plainDecoder(output);
    case 'gzip':
      return new GzipDecoder(output);
    case 'zstd':
      return builtinZstd === undefined
        ? new ZstdProgramDecoder(output, startFilter)
        : new ZstdBuiltinDecoder(output, builtinZstd);
  }
}

/** Other readers believe the content rather than the media type, so the two must agree. */
function checkMagic(start: Uint8Array, compression: LayerCompression): void {
  const found = sniff(Buffer.from(start.buffer, start.byteOffset, start.byteLength));
  if (found !== compression && !(found === 'none' && compression !== 'none')) {
    throw new HostctlError('image-invalid', `Media type says ${named(compression)}, the content is ${found}`);
  }
}

function named(compression: LayerCompression): string {
  return compression === 'none' ? 'plain tar' : compression;
}

function sniff(start: Buffer): LayerCompression | 'bzip2' | 'xz' {
  const magic = start.toString('hex', 0, 6);
  if (magic.startsWith('1f8b')) return 'gzip';
  if (magic.startsWith('28b52ffd') || /^5.2a4d18/.test(magic)) return 'zstd';
  if (magic.startsWith('425a68')) return 'bzip2';
  return magic === 'fd377a585a00' ? 'xz' : 'none';
}
