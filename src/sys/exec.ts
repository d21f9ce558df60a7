/**
 * The only starter of processes: argument arrays, never a shell; nearly empty environment; what ran is logged as one
 * would type it, and the last lines of stderr stand in the error.
 */

import type { Readable, Writable } from 'node:stream';
import { HostctlError } from '../errors.ts';
import { loadExeca } from './execa.ts';

export interface ExecOptions {
  /** Exit codes that are an answer rather than a failure. Default `[0]`. */
  readonly allowed?: readonly number[];
  /** Given to the program on standard input. */
  readonly input?: string | Uint8Array;
  /** An open descriptor that the program gets as its descriptor 3. */
  readonly passFd?: number;
}

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Exec {
  /** Runs a program to its end. Rejects with 'tool-missing', 'command-failed' or 'interrupted'. */
  run(program: string, args: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** The same while nothing else may happen, for use inside a commit section. */
  runSync(program: string, args: readonly string[], options?: ExecOptions): ExecResult;
  /** Starts a program as a filter from its standard input to its standard output. */
  filter(program: string, args: readonly string[]): FilterProgram;
  /** Starts a program that reads standard input, which closes with `end` or when this process dies. */
  watchdog(program: string, args: readonly string[]): { end(): Promise<void> };
}

/** A running program that turns standard input into standard output. */
export interface FilterProgram {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Settles when the program has ended and its output is closed; rejects with 'tool-missing' if it did not start. */
  readonly ended: Promise<{ readonly exitCode: number | undefined; readonly stderr: string }>;
  kill(): void;
}

/** Children see a fixed locale and path, whatever the caller's environment is. */
const ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/** @param log - receives each command line before it runs */
export function openExec(log: (line: string) => void, signal: AbortSignal): Exec {
  const common = { env: ENVIRONMENT, extendEnv: false, stripFinalNewline: true, reject: false } as const;
  return {
    async run(program, args, options = {}) {
      log(describe(program, args));
      const result = await loadExeca().execa(program, args, {
        ...common,
        ...inputs(options),
        cancelSignal: signal,
      });
      if (result.isCanceled) throw new HostctlError('interrupted', `Stopped "${program}"`);
      return judge(program, args, options, result);
    },
    runSync(program, args, options = {}) {
      log(describe(program, args));
      const result = loadExeca().execaSync(program, args, { ...common, ...inputs(options) });
      return judge(program, args, options, result);
    },
    filter(program, args) {
      log(describe(program, args));
      const child = loadExeca().execa(program, args, {
        ...common,
        stdin: 'pipe',
        stdout: 'pipe',
        stderr: 'pipe',
        buffer: { stdout: false, stderr: true },
        // The bytes of a layer, not text.
        encoding: 'buffer',
        cancelSignal: signal,
      });
      return {
        stdin: child.stdin,
        stdout: child.stdout,
        ended: child.then((result) => {
          if (result.code === 'ENOENT') throw missing(program, result.cause);
          return { exitCode: result.exitCode, stderr: Buffer.from(result.stderr).toString('utf8') };
        }),
        kill: () => void child.kill('SIGKILL'),
      };
    },
    watchdog(program, args) {
      const child = loadExeca().execa(program, args, { ...common, stdin: 'pipe', stdout: 'ignore', stderr: 'ignore' });
      return {
        async end() {
          child.stdin.end();
          await child;
        },
      };
    },
  };
}

/** Descriptors 0 to 3 of the child. */
function inputs(options: ExecOptions): {
  stdin?: 'ignore';
  input?: string | Uint8Array;
  stdio?: ['ignore', 'pipe', 'pipe', 3];
} {
  // execa's type names only the descriptors 3 to 9; at run time any number will do.
  if (options.passFd !== undefined) return { stdio: ['ignore', 'pipe', 'pipe', options.passFd as 3] };
  return options.input === undefined ? { stdin: 'ignore' } : { input: options.input };
}

function judge(
  program: string,
  args: readonly string[],
  options: ExecOptions,
  result: {
    readonly exitCode?: number | undefined;
    readonly stdout?: unknown;
    readonly stderr?: unknown;
    readonly code?: string | undefined;
    readonly signal?: string | undefined;
    readonly cause?: unknown;
  },
): ExecResult {
  if (result.code === 'ENOENT') throw missing(program, result.cause);
  const stdout = typeof result.stdout === 'string' ? result.stdout : '';
  const stderr = typeof result.stderr === 'string' ? result.stderr : '';
  const { exitCode } = result;
  if (exitCode === undefined || !(options.allowed ?? [0]).includes(exitCode)) {
    const how = result.signal === undefined ? `exit code ${exitCode ?? 'unknown'}` : `signal ${result.signal}`;
    const lastLines = stderr.trim().split('\n').slice(-5).join('; ');
    throw new HostctlError('command-failed', `"${describe(program, args)}" failed (${how}): ${lastLines}`);
  }
  return { exitCode, stdout, stderr };
}

function missing(program: string, cause: unknown): HostctlError {
  return new HostctlError('tool-missing', `Cannot start "${program}": it is not installed`, {
    hint: `Install the package that has "${program}"`,
    cause,
  });
}

/** A command line as one would type it. */
export function describe(program: string, args: readonly string[]): string {
  return [program, ...args]
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`))
    .join(' ');
}
