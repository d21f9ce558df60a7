/** Starts filter programs for tests, as the real host would. */

import { spawn } from 'node:child_process';
import type { StartFilter } from '../../src/image/zstd-decoder.ts';

export const startFilter: StartFilter = (program, args) => {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return {
    stdin: child.stdin,
    stdout: child.stdout,
    ended: new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (exitCode) => resolve({ exitCode: exitCode ?? undefined, stderr }));
    }),
    kill: () => child.kill('SIGKILL'),
  };
};
