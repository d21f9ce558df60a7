/**
 * Zstd layers: by libzstd in this process, where it can be had, else by the `zstd` program as a filter. Both sit behind
 * the frame scanner, so that both accept exactly the same streams, of any number of frames.
 */

import type { Readable, Writable } from 'node:stream';
import { ZstdFrameScanner } from '../format/zstd/frames.ts';
import { openZstdStream } from '../sys/zstd.ts';
import { damaged, fixedBuffer, toError, ZstdDecoder, type Decoder, type DecoderOutput } from './decoder.ts';

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

/** The library where there is one, or the program. */
export function openZstd(output: DecoderOutput, start: StartFilter, nextBuffer = fixedBuffer()): Decoder {
  const library = openZstdStream();
  return library === undefined ? new ZstdProgramDecoder(output, start) : new ZstdDecoder(library, output, nextBuffer);
}
