/**
 * The decompressors of layers behind one shape: bytes in, bytes out through a callback, and a stream accepted only
 * when it is nothing but what its media type says, to the last byte. Bounded memory.
 */

import type { Writable } from 'node:stream';
import { createGunzip, type Gunzip } from 'node:zlib';
import { HostctlError } from '../errors.ts';
import { isAllZero } from '../format/zeros.ts';
import type { SyncGunzip } from './gunzip.ts';

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

/**
 * Gzip of one or more members (RFC 1952), CRC and length checked. Zero padding behind the last member is accepted,
 * anything else refused, because readers differ in what they make of it.
 */
export class GzipDecoder implements Decoder {
  readonly #gunzip: SyncGunzip;
  readonly #output: DecoderOutput;
  readonly #nextBuffer: OutputBuffer;
  #buffer: Uint8Array | undefined;
  #used = 0;
  #isBehindEnd = false;

  constructor(gunzip: SyncGunzip, output: DecoderOutput, nextBuffer: OutputBuffer) {
    this.#gunzip = gunzip;
    this.#output = output;
    this.#nextBuffer = nextBuffer;
  }

  write(chunk: Uint8Array): Promise<void> {
    return settled(() => this.#write(chunk));
  }

  end(): Promise<void> {
    return settled(() => {
      if (!this.#isBehindEnd) this.#run(new Uint8Array(0), true);
      this.#flush();
    });
  }

  close(): Promise<void> {
    this.#gunzip.close();
    return Promise.resolve();
  }

  #write(chunk: Uint8Array): void {
    const unused = this.#isBehindEnd ? chunk : this.#run(chunk, false);
    if (unused.length === 0) return;
    // Once the last member has ended, gunzip stops in front of a zero byte.
    this.#isBehindEnd = true;
    checkPadding(unused);
  }

  /** What is left of the input once no more comes of it. */
  #run(input: Uint8Array, isLast: boolean): Uint8Array {
    for (let rest = input; ;) {
      this.#buffer ??= this.#nextBuffer();
      const room = this.#buffer.subarray(this.#used);
      const { taken, made } = this.#decompress(rest, room, isLast);
      rest = rest.subarray(taken);
      this.#used += made;
      const isFull = made === room.length;
      if (isFull) this.#flush();
      else return rest;
    }
  }

  #decompress(input: Uint8Array, output: Uint8Array, isLast: boolean): ReturnType<SyncGunzip['run']> {
    try {
      return this.#gunzip.run(input, output, isLast);
    } catch (error) {
      // What came before the damage was read before it.
      this.#flush();
      throw damaged('Gzip', error);
    }
  }

  #flush(): void {
    const filled = this.#buffer?.subarray(0, this.#used);
    this.#buffer = undefined;
    this.#used = 0;
    if (filled !== undefined && filled.length > 0) this.#output(filled);
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

/** Resolves when `stream` has used the chunk up, or has ended: a failing stream may never call back. */
export async function writeOrEnd(stream: Writable, chunk: Uint8Array, ended: Promise<void>): Promise<void> {
  await Promise.race([new Promise<void>((resolve) => stream.write(chunk, () => resolve())), ended]);
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
