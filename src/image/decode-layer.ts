/**
 * A layer's blob in one pass: its digest and size, decompression, and the diff id over everything that comes out. The
 * output sees bytes before the digests are known to be right, so what it made of them counts only once this is done.
 */

import * as fs from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { HostctlError, isHostctlError } from '../errors.ts';
import { algorithmOf, OciHasher, type DiffId, type OciDigest } from '../format/oci/digest.ts';
import type { LayerDescriptor } from '../format/oci/manifest.ts';
import type { LayerCompression } from '../format/oci/media-types.ts';
import { openBlob } from './blob.ts';
import {
  fixedBuffer,
  GzipDecoder,
  GzipStreamDecoder,
  plainDecoder,
  type Decoder,
  type DecoderOutput,
  type OutputBuffer,
} from './decoder.ts';
import { openGunzip } from './gunzip.ts';
import { openZstd, type StartFilter } from './zstd-decoder.ts';

/** A layer of an opened image. Plain data, which can be handed to another thread. */
export interface LayerSource {
  /** From 1; with `count`, for messages: "layer 3 of 7". */
  readonly number: number;
  readonly count: number;
  readonly descriptor: LayerDescriptor;
  readonly diffId: DiffId;
  /** The blob's file on this host. */
  readonly blobFile: string;
  /** What may stand there in its place: the layer unpacked, a blob with the diff id as its digest. */
  readonly plainFile?: string;
}

/** Gets the decompressed bytes, lent for the call, and how many bytes of the blob they came from so far. */
export type LayerOutput = (chunk: Uint8Array, takenBytes: number) => void;

/** Decodes a layer, here or in another thread. Rejects with what the output threw. */
export type Decode = (layer: LayerSource, output: LayerOutput) => Promise<void>;

export interface DecodeOptions {
  /** For zstd where Node has none of its own. */
  readonly startFilter: StartFilter;
  /** Throws when the work shall end. */
  readonly checkStop: () => void;
  /** Where decompressors that can choose put their output. */
  readonly nextBuffer?: OutputBuffer;
}

const READ_BYTES = 256 << 10;

/** Decodes on this thread, until `signal` is aborted. */
export function decodeHere(signal: AbortSignal, startFilter: StartFilter): Decode {
  const checkStop = (): void => {
    if (signal.aborted) throw stopped(signal.reason);
  };
  return (layer, output) => decodeLayer(layer, output, { startFilter, checkStop });
}

/** What becomes of a layer when the command is interrupted. */
export function stopped(cause: unknown): HostctlError {
  return new HostctlError('interrupted', 'Stopped reading the layer', { cause });
}

/** Decodes a layer. Digests that do not match win over the errors that follow from that. */
export async function decodeLayer(layer: LayerSource, output: LayerOutput, options: DecodeOptions): Promise<void> {
  const present = presentForm(layer);
  const { descriptor, diffId } = present;
  const fd = openBlob(present.blobFile, descriptor.size);
  // Whoever counts bytes, or holds them against limits, counts those of the blob.
  const share = layer.descriptor.size / Math.max(1, descriptor.size);
  let decoder: Decoder | undefined;
  try {
    const blob = new BlobReader(fd, present, options.checkStop);
    const hasher = new OciHasher(algorithmOf(diffId));
    const take: DecoderOutput = (chunk) => {
      hasher.update(chunk);
      output(chunk, Math.floor(blob.takenBytes * share));
    };
    try {
      for await (const chunk of blob.chunks()) {
        if (decoder === undefined) {
          checkMagic(chunk, descriptor.compression);
          decoder = openDecoder(descriptor.compression, take, options);
        }
        await decoder.write(chunk);
      }
      decoder ??= openDecoder(descriptor.compression, take, options);
      await decoder.end();
    } catch (error) {
      // A damaged blob fails in many ways; that it is damaged is what should be said.
      if (isHostctlError(error, 'image-invalid', 'image-unsupported')) blob.checkRest(error);
      throw error;
    }
    blob.checkRest();
    const found = hasher.digest() as string;
    if (found !== diffId) {
      throw new HostctlError('digest-mismatch', `Content has the diff id "${found}" instead of "${diffId}"`);
    }
  } finally {
    await decoder?.close();
    fs.closeSync(fd);
  }
}

/** The layer as it lies here. */
function presentForm(layer: LayerSource): LayerSource {
  const { plainFile, diffId, descriptor } = layer;
  if (plainFile === undefined || fs.existsSync(layer.blobFile) || !fs.existsSync(plainFile)) return layer;
  const { size } = fs.statSync(plainFile);
  const plain = { ...descriptor, digest: diffId as string as OciDigest, size, compression: 'none' as const };
  return { ...layer, descriptor: plain, blobFile: plainFile };
}

/** Reads the blob piece by piece and counts up its digest. */
class BlobReader {
  readonly #fd: number;
  readonly #layer: LayerSource;
  readonly #checkStop: () => void;
  readonly #hasher: OciHasher;
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);
  takenBytes = 0;

  constructor(fd: number, layer: LayerSource, checkStop: () => void) {
    this.#fd = fd;
    this.#layer = layer;
    this.#checkStop = checkStop;
    this.#hasher = new OciHasher(algorithmOf(layer.descriptor.digest));
  }

  /** Every piece of the blob; the buffer is the same each time. */
  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let chunk = this.#next(); chunk.length > 0; chunk = this.#next()) {
      // Nothing below waits for anything, which would keep signals out.
      await nextTurn();
      this.#checkStop();
      yield chunk;
    }
  }

  /** Reads on to the end and compares the digest. */
  checkRest(cause?: unknown): void {
    while (this.#next().length > 0) this.#checkStop();
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

function openDecoder(compression: LayerCompression, output: DecoderOutput, options: DecodeOptions): Decoder {
  switch (compression) {
    case 'none':
      return plainDecoder(output);
    case 'gzip':
      return openGzip(output, options.nextBuffer ?? fixedBuffer());
    case 'zstd':
      return openZstd(output, options.startFilter, options.nextBuffer);
  }
}

function openGzip(output: DecoderOutput, nextBuffer: OutputBuffer): Decoder {
  const gunzip = openGunzip();
  return gunzip === undefined ? new GzipStreamDecoder(output) : new GzipDecoder(gunzip, output, nextBuffer);
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
