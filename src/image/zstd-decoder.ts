/**
 * Zstd layers: by Node's own decompressor where it has one, else by the `zstd` program as a filter. Both sit behind
 * the frame scanner, so that both accept exactly the same streams, of any number of frames.
 */

import type { Readable, Transform, Writable } from 'node:stream';
import * as zlib from 'node:zlib';
import { HostctlError } from '../errors.ts';
import { ZstdFrameScanner, type ZstdFrameHeader } from '../format/zstd/frames.ts';
import { damaged, OUTPUT_CHUNK_BYTES, toError, writeOrEnd, type Decoder, type DecoderOutput } from './decoder.ts';

/** A running program that turns standard input into standard output. */
export interface FilterProgram {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Settles when the program has ended and its output is closed; rejects with 'tool-missing' if it did not start. */
  readonly ended: Promise<{ readonly exitCode: number | undefined; readonly stderr: string }>;
  kill(): void;
}

/** Starts a filter; the port to `sys/`. */
export type StartFilter = (program: string, args: readonly string[]) => FilterProgram;

/** The `zstd` program. Checksums are verified by it; more memory than the window limit is not needed. */
export class ZstdProgramDecoder implements Decoder {
  readonly #scanner = new ZstdFrameScanner();
  readonly #program: FilterProgram;
  readonly #outputEnded: Promise<void>;
  #failure: Error | undefined;

  constructor(output: DecoderOutput, start: StartFilter) {
    this.#program = start('zstd', ['-dcq', '--memory=128MiB']);
    const { stdin, stdout, ended } = this.#program;
    // A program that ended early breaks the pipe; its exit code says why.
    stdin.on('error', () => undefined);
    ended.catch(() => undefined);
    stdout.on('data', (chunk: Uint8Array) => {
      if (this.#failure !== undefined) return;
      try {
        output(chunk);
      } catch (error) {
        this.#fail(error);
      }
    });
    this.#outputEnded = new Promise((resolve) => {
      stdout.once('end', resolve);
      stdout.once('close', resolve);
      stdout.once('error', resolve);
    });
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#check();
    this.#scanner.push(chunk);
    const { stdin } = this.#program;
    const error = await new Promise<Error | null | undefined>((resolve) => stdin.write(chunk, resolve));
    this.#check();
    if (error) await this.#judge();
  }

  async end(): Promise<void> {
    this.#check();
    this.#scanner.end();
    this.#program.stdin.end();
    await this.#judge();
  }

  async close(): Promise<void> {
    this.#program.kill();
    this.#program.stdin.destroy();
    this.#program.stdout.destroy();
    // How it ended no longer matters: whoever closes early has an error of their own.
    await this.#program.ended.catch(() => undefined);
  }

  async #judge(): Promise<void> {
    const { exitCode, stderr } = await this.#program.ended;
    await this.#outputEnded;
    this.#check();
    if (exitCode !== 0) throw damaged('Zstd', stderr.trim().split('\n').at(-1) ?? '');
  }

  #fail(error: unknown): void {
    this.#failure ??= toError(error);
    this.#program.kill();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** Node's decompressor of one zstd frame; missing before Node 22.15. */
export type CreateZstdDecompress = (options: { chunkSize: number }) => Transform;

/** What this Node has for zstd. */
export const builtinZstd = (zlib as { createZstdDecompress?: CreateZstdDecompress }).createZstdDecompress;

/** The decoder of this Node, or the program. */
export function openZstd(output: DecoderOutput, start: StartFilter): Decoder {
  return builtinZstd === undefined
    ? new ZstdProgramDecoder(output, start)
    : new ZstdBuiltinDecoder(output, builtinZstd);
}

type FrameStep =
  | { readonly kind: 'start'; readonly header: ZstdFrameHeader }
  | { readonly kind: 'data'; readonly pieces: Uint8Array[] }
  | { readonly kind: 'end' };

/** Node's own zstd. It stops behind the first frame, so each frame gets a decompressor of its own. */
export class ZstdBuiltinDecoder implements Decoder {
  readonly #scanner: ZstdFrameScanner;
  readonly #output: DecoderOutput;
  readonly #create: CreateZstdDecompress;
  #frame: { stream: Transform; ended: Promise<void> } | undefined;
  /** What the scanner found in the chunk at hand, to be done in order. */
  #steps: FrameStep[] = [];
  #failure: Error | undefined;

  constructor(output: DecoderOutput, create: CreateZstdDecompress) {
    this.#output = output;
    this.#create = create;
    this.#scanner = new ZstdFrameScanner({
      frameStart: (header) => this.#steps.push({ kind: 'start', header }),
      frameData: (bytes) => this.#addData(bytes),
      frameEnd: () => this.#steps.push({ kind: 'end' }),
    });
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#steps = [];
    this.#scanner.push(chunk);
    for (const step of this.#steps) {
      if (step.kind === 'start') this.#startFrame(step.header);
      else if (step.kind === 'data') await this.#frameData(Buffer.concat(step.pieces));
      else await this.#endFrame();
    }
  }

  end(): Promise<void> {
    this.#scanner.end();
    return Promise.resolve();
  }

  async close(): Promise<void> {
    this.#frame?.stream.destroy();
    await this.#frame?.ended;
  }

  /** Gathers the pieces of a frame: each write costs a trip through the thread pool. */
  #addData(bytes: Uint8Array): void {
    // Headers come in the scanner's own buffer, which it reuses.
    const piece = bytes.length < 32 ? Uint8Array.from(bytes) : bytes;
    const last = this.#steps.at(-1);
    if (last?.kind === 'data') last.pieces.push(piece);
    else this.#steps.push({ kind: 'data', pieces: [piece] });
  }

  #startFrame(header: ZstdFrameHeader): void {
    const expected = header.contentBytes ?? header.windowBytes;
    const stream = this.#create({ chunkSize: Math.min(OUTPUT_CHUNK_BYTES, Math.max(4096, expected)) });
    stream.on('data', (chunk: Uint8Array) => {
      if (this.#failure !== undefined) return;
      try {
        this.#output(chunk);
      } catch (error) {
        this.#failure = toError(error);
        stream.destroy();
      }
    });
    stream.on('error', (error) => (this.#failure ??= damaged('Zstd', error)));
    const ended = new Promise<void>((resolve) => {
      stream.once('end', resolve);
      stream.once('close', resolve);
    });
    this.#frame = { stream, ended };
  }

  async #frameData(bytes: Uint8Array): Promise<void> {
    const { stream, ended } = this.#currentFrame();
    await writeOrEnd(stream, bytes, ended);
    this.#check();
  }

  async #endFrame(): Promise<void> {
    const { stream, ended } = this.#currentFrame();
    stream.end();
    await ended;
    stream.destroy();
    this.#frame = undefined;
    this.#check();
  }

  #currentFrame(): { stream: Transform; ended: Promise<void> } {
    if (this.#frame === undefined) throw new HostctlError('internal', 'Zstd data outside of a frame');
    return this.#frame;
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
