/** What the global options mean: a host to work on, and where results, messages and progress go. */

import { writeSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errnoOf, HostctlError } from '../errors.ts';
import type { SysrootOptions } from '../deploy/sysroot.ts';
import type { Host, Log, ProgressEvent } from '../sys/host.ts';
import { openRealHost } from '../sys/real-host.ts';
import { plainProgress, terminalProgress } from './view/progress.ts';

/** The options every command has, as yargs gives them. */
export interface GlobalOptions {
  readonly sysroot?: string | undefined;
  readonly boot?: string | undefined;
  readonly repo?: string | undefined;
  readonly config?: string | undefined;
  readonly format: 'human' | 'json' | 'yaml';
  readonly quiet: boolean;
  readonly debug: boolean;
  readonly color: 'auto' | 'always' | 'never';
  readonly 'progress-fd'?: number | undefined;
  readonly wait: string;
}

export interface Context {
  readonly host: Host;
  readonly paths: SysrootOptions;
  readonly options: GlobalOptions;
  /** Prints a result on stdout: `data` for machines, `human` otherwise. */
  print(data: unknown, human: () => string): void;
  /** Prints text or bytes piece by piece, no faster than they are read. A reader that goes away ends it quietly. */
  printPieces(pieces: Iterable<string | Uint8Array>): Promise<void>;
  /** Prints a list: one line for each item, for machines one array of what `data` makes of them. */
  printList<T>(items: Iterable<T>, data: (item: T) => unknown, line: (item: T) => string): Promise<void>;
}

let stringify: ((data: unknown) => string) | undefined;

/** To be called before a result is printed as YAML. */
export async function loadYaml(): Promise<void> {
  ({ stringify } = await import('./view/yaml.ts'));
}

export function openContext(options: GlobalOptions, signal: AbortSignal): Context {
  const log: Log = {
    debug: (message) => {
      if (options.debug) process.stderr.write(`hostctl: ${message}\n`);
    },
    info: (message) => {
      if (!options.quiet) process.stderr.write(`hostctl: ${message}\n`);
    },
    warn: (message) => process.stderr.write(`hostctl: warning: ${message}\n`),
  };
  const printPieces = async (pieces: Iterable<string | Uint8Array>): Promise<void> => {
    try {
      await pipeline(Readable.from(copies(pieces)), process.stdout, { end: false });
    } catch (error) {
      if (errnoOf(error) !== 'EPIPE') throw error;
    }
  };
  return {
    host: openRealHost({ log, signal, lockWaitMs: parseWait(options.wait), progress: progressSink(options) }),
    paths: { sysroot: options.sysroot, boot: options.boot, repo: options.repo },
    options,
    print(data, human) {
      process.stdout.write(render(data, human, options.format));
    },
    printPieces,
    printList(items, data, line) {
      if (options.format === 'human') return printPieces(linesOf(items, line));
      return printPieces([render(Array.from(items, data), () => '', options.format)]);
    },
  };
}

/** A stream reads ahead of a slow reader, while whoever makes the pieces fills the same buffer again. */
function* copies(pieces: Iterable<string | Uint8Array>): Generator<string | Uint8Array, void> {
  for (const piece of pieces) yield typeof piece === 'string' ? piece : Uint8Array.from(piece);
}

function* linesOf<T>(items: Iterable<T>, line: (item: T) => string): Generator<string, void> {
  for (const item of items) yield `${line(item)}\n`;
}

function render(data: unknown, human: () => string, format: GlobalOptions['format']): string {
  switch (format) {
    case 'human':
      return human();
    case 'json':
      return `${JSON.stringify(data, undefined, 2)}\n`;
    case 'yaml':
      return stringify!(data);
  }
}

function parseWait(text: string): number {
  if (text === 'forever') return Infinity;
  const seconds = Number(text);
  if (text.trim() !== '' && Number.isFinite(seconds) && seconds >= 0) return seconds * 1000;
  throw new HostctlError('usage', `--wait takes seconds or "forever", not "${text}"`);
}

/** JSON Lines on `--progress-fd`, one line rewritten on a terminal, lines now and then otherwise. */
function progressSink(options: GlobalOptions): (event: ProgressEvent) => void {
  const fd = options['progress-fd'];
  if (fd !== undefined) {
    return (event) => {
      try {
        writeSync(fd, `${JSON.stringify(event)}\n`);
      } catch {
        // Whoever watched has gone; the work goes on.
      }
    };
  }
  if (options.quiet) return () => undefined;
  if (process.stderr.isTTY === true) return (event) => void process.stderr.write(terminalProgress(event));
  const lineFor = plainProgress();
  return (event) => {
    const line = lineFor(event, performance.now());
    if (line !== undefined) process.stderr.write(line);
  };
}
