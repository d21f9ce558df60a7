/**
 * The decompressors of layers behind one shape: bytes in, bytes out through a callback, and a stream accepted only
 * when it is nothing but what its media type says, to the last byte. Bounded memory.
 */

import { createGunzip, type Gunzip } from 'node:zlib';
import { HostctlError } from '../errors.ts';
import { isAllZero } from '../format/zeros.ts';
import { ZstdFrameScanner } from '../format/zstd/frames.ts';

export interface Decoder {
  /** Takes the next compressed bytes; they may be reused once it resolves. Rejects with what the output threw. */
  write(chunk: Uint8Array): Promise<void>;
  /** Ends the stream: all output has been handed on. Rejects if it was cut off. */
  end(): Promise<void>;
  /** Releases everything. To be called in any case. */
  close(): Promise<void>;
}

/** Gets decompressed bytes, lent for the call. May throw, which ends the decoding. */
export type DecoderOutput = (chunk: Uint8Array) => void;

/** Gives the buffer for the next output, which `DecoderOutput` then gets filled. */
export type OutputBuffer = () => Uint8Array;

const OUTPUT_BYTES = 256 << 10;

/** The same buffer each time. */
export function fixedBuffer(): OutputBuffer {
  const buffer = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
  return () => buffer;
}

/** Hands bytes on as they are, for plain tar. */
export function plainDecoder(output: DecoderOutput): Decoder {
  return {
    write: (chunk) => settled(() => output(chunk)),
    end: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}

function settled(body: () => void): Promise<void> {
  return new Promise((resolve) => {
    body();
    resolve();
  });
}

/** Larger pieces cost a third less CPU time than Node's default of 16 KiB. */
export const OUTPUT_CHUNK_BYTES = 1 << 20;

/** Decompresses where it is called, into a buffer of the caller's. */
export interface SyncDecompressor {
  /**
   * Decompresses from `input` into `output`, until one of them is used up or no more comes of the input. With `isLast`,
   * input that ends too early may be an error. Throws what is wrong.
   */
  run(input: Uint8Array, output: Uint8Array, isLast: boolean): { readonly taken: number; readonly made: number };
  close(): void;
}

/** Runs a decompressor, and hands on each buffer that it fills. */
class Filling {
  readonly #format: string;
  readonly #decompressor: SyncDecompressor;
  readonly #output: DecoderOutput;
  readonly #nextBuffer: OutputBuffer;
  #buffer: Uint8Array | undefined;
  #used = 0;

  constructor(format: string, decompressor: SyncDecompressor, output: DecoderOutput, nextBuffer: OutputBuffer) {
    this.#format = format;
    this.#decompressor = decompressor;
    this.#output = output;
    this.#nextBuffer = nextBuffer;
  }

  /** What is left of the input once no more comes of it. */
  run(input: Uint8Array, isLast: boolean): Uint8Array {
    for (let rest = input; ;) {
      this.#buffer ??= this.#nextBuffer();
      const room = this.#buffer.subarray(this.#used);
      const { taken, made } = this.#decompress(rest, room, isLast);
      rest = rest.subarray(taken);
      this.#used += made;
      const isFull = made === room.length;
      if (isFull) this.flush();
      else return rest;
    }
  }

  #decompress(input: Uint8Array, output: Uint8Array, isLast: boolean): ReturnType<SyncDecompressor['run']> {
    try {
      return this.#decompressor.run(input, output, isLast);
    } catch (error) {
      // What came before the damage was read before it.
      this.flush();
      throw damaged(this.#format, error);
    }
  }

  /** Hands on what there is. */
  flush(): void {
    const filled = this.#buffer?.subarray(0, this.#used);
    this.#buffer = undefined;
    this.#used = 0;
    if (filled !== undefined && filled.length > 0) this.#output(filled);
  }
}

/**
 * Gzip of one or more members (RFC 1952), CRC and length checked. Zero padding behind the last member is accepted,
 * anything else refused, because readers differ in what they make of it.
 */
export class GzipDecoder implements Decoder {
  readonly #gunzip: SyncDecompressor;
  readonly #filling: Filling;
  #isBehindEnd = false;

  constructor(gunzip: SyncDecompressor, output: DecoderOutput, nextBuffer: OutputBuffer) {
    this.#gunzip = gunzip;
    this.#filling = new Filling('Gzip', gunzip, output, nextBuffer);
  }

  write(chunk: Uint8Array): Promise<void> {
    return settled(() => this.#write(chunk));
  }

  end(): Promise<void> {
    return settled(() => {
      if (!this.#isBehindEnd) this.#filling.run(new Uint8Array(0), true);
      this.#filling.flush();
    });
  }

  close(): Promise<void> {
    this.#gunzip.close();
    return Promise.resolve();
  }

  #write(chunk: Uint8Array): void {
    const unused = this.#isBehindEnd ? chunk : this.#filling.run(chunk, false);
    if (unused.length === 0) return;
    // Once the last member has ended, gunzip stops in front of a zero byte.
    this.#isBehindEnd = true;
    checkPadding(unused);
  }
}

/** Zstd of any number of frames, checksums verified, within the limits of the frame scanner. */
export class ZstdDecoder implements Decoder {
  readonly #scanner = new ZstdFrameScanner();
  readonly #zstd: SyncDecompressor;
  readonly #filling: Filling;

  constructor(zstd: SyncDecompressor, output: DecoderOutput, nextBuffer: OutputBuffer) {
    this.#zstd = zstd;
    this.#filling = new Filling('Zstd', zstd, output, nextBuffer);
  }

  write(chunk: Uint8Array): Promise<void> {
    return settled(() => {
      this.#scanner.push(chunk);
      // libzstd stops behind each frame.
      for (let rest = chunk; rest.length > 0;) rest = this.#filling.run(rest, false);
    });
  }

  end(): Promise<void> {
    return settled(() => {
      this.#scanner.end();
      this.#filling.flush();
    });
  }

  close(): Promise<void> {
    this.#zstd.close();
    return Promise.resolve();
  }
}

/** The same through Node's public streams, for a Node whose inside is another. */
export class GzipStreamDecoder implements Decoder {
  readonly #gunzip: Gunzip = createGunzip({ chunkSize: OUTPUT_CHUNK_BYTES });
  readonly #ended: Promise<void>;
  #fedBytes = 0;
  #failure: Error | undefined;

  constructor(output: DecoderOutput) {
    this.#gunzip.on('data', (chunk: Uint8Array) => {
      if (this.#failure !== undefined) return;
      try {
        output(chunk);
      } catch (error) {
        this.#fail(error);
      }
    });
    this.#gunzip.on('error', (error) => this.#fail(damaged('Gzip', error)));
    this.#ended = new Promise((resolve) => {
      this.#gunzip.once('end', resolve);
      this.#gunzip.once('close', resolve);
    });
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#check();
    // Once the last member has ended, the stream takes no more.
    if (this.#gunzip.readableEnded || this.#isBehindEnd()) {
      checkPadding(chunk);
      return;
    }
    this.#fedBytes += chunk.length;
    const taken = new Promise<void>((resolve) => this.#gunzip.write(chunk, () => resolve()));
    // A stream that is destroyed by an error never says that it took the chunk.
    await Promise.race([taken, this.#ended]);
    this.#check();
    const unused = this.#fedBytes - this.#gunzip.bytesWritten;
    if (unused > 0) checkPadding(chunk.subarray(chunk.length - unused));
  }

  async end(): Promise<void> {
    this.#check();
    this.#gunzip.end();
    await this.#ended;
    this.#check();
  }

  async close(): Promise<void> {
    this.#gunzip.destroy();
    await this.#ended;
  }

  /** Node's gunzip stops in front of a zero byte that follows a member. */
  #isBehindEnd(): boolean {
    return this.#gunzip.bytesWritten < this.#fedBytes;
  }

  #fail(error: unknown): void {
    this.#failure ??= toError(error);
    this.#gunzip.destroy();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** What was thrown, as an error. */
export function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** The error for data that the decompressor refused. */
export function damaged(format: string, cause: unknown): HostctlError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new HostctlError('image-invalid', `${format} data is damaged: ${reason}`, { cause });
}

function checkPadding(chunk: Uint8Array): void {
  if (!isAllZero(chunk)) {
    throw new HostctlError('image-invalid', 'Gzip data is followed by something else');
  }
}
