/** Starts a program for a script or a test: argument list, no shell, and an error that says what was run. */

import { spawn } from 'node:child_process';

export interface RunOptions {
  readonly cwd?: string;
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Exit codes that are no error; default 0 only. */
  readonly accept?: readonly number[];
}

/** Tools of the system administrator are not on every user's path. */
const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;

/** Runs to the end and returns stdout. Throws with the last lines of stderr on another exit code. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env, PATH, LC_ALL: 'C.UTF-8' },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code !== null && (options.accept ?? [0]).includes(code)) {
        resolve(Buffer.concat(stdout).toString());
        return;
      }
      const shown = [command, ...args].map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word}'`)).join(' ');
      const said = Buffer.concat(stderr).toString().trimEnd().split('\n').slice(-20).join('\n');
      reject(new Error(`Command failed with ${signal ?? code}: ${shown}\n${said}`));
    });
    // A program that does not read its input is no failure of ours.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
  });
}
