/** Reads a mount table again and again in a process of its own, and asks findmnt beside it. */

import { spawn } from 'node:child_process';
import { setTimeout } from 'node:timers/promises';
import { onTestFinished } from 'vitest';

export interface WatchedMounts {
  /** How often the table was read, and findmnt asked. */
  readonly reads: number;
  readonly asked: number;
  /** Every line that stood in the table at any of these moments. */
  readonly lines: string[];
}

const SCRIPT = `
  const fs = require('node:fs');
  const { execFile } = require('node:child_process');
  const [file] = process.argv.slice(1);
  const lines = new Set();
  let reads = 0;
  let asked = 0;
  process.stdin.on('data', () => {
    console.log(JSON.stringify({ reads, asked, lines: [...lines] }));
    process.exit();
  });
  const read = () => {
    for (const line of fs.readFileSync(file, 'utf8').split('\\n')) if (line !== '') lines.add(line);
    if (reads++ === 0) console.log('ready');
    setTimeout(read, 1);
  };
  const ask = () => {
    execFile('findmnt', ['--tab-file', file, '--types', 'erofs', '--noheadings'], (error, stdout) => {
      if (stdout !== '') lines.add('findmnt: ' + stdout);
      asked++;
      setTimeout(ask, 25);
    });
  };
  read();
  ask();`;

/** @param file - a `mountinfo` */
export async function watchMounts(file: string): Promise<() => Promise<WatchedMounts>> {
  const child = spawn(process.execPath, ['-e', SCRIPT, file], { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  while (output === '') await setTimeout(5);
  return async () => {
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.stdin.end('stop');
    await ended;
    return JSON.parse(output.slice('ready\n'.length)) as WatchedMounts;
  };
}
