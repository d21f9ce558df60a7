/** Runs the built program as a user would. */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const PROGRAM = fileURLToPath(new URL('../../dist/main.js', import.meta.url));

export interface ProgramResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** @param prefix - words before the program, such as `setpriv …` */
export function hostctl(args: readonly string[], prefix: readonly string[] = []): ProgramResult {
  const [program = '', ...rest] = [...prefix, process.execPath, PROGRAM, ...args];
  const { status, stdout, stderr, error } = spawnSync(program, rest, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (error !== undefined) throw error;
  return { exitCode: status, stdout, stderr };
}
