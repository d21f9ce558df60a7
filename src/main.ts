#!/usr/bin/env node
/** Process entry: signals, the exit status, nothing else. */

import { writeSync } from 'node:fs';
import os from 'node:os';
import { start } from './cli/start.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

const controller = new AbortController();
let received: (typeof SIGNALS)[number] | undefined;
for (const signal of SIGNALS) {
  process.on(signal, () => {
    // A second one changes nothing: the first is already unwinding the command.
    received ??= signal;
    controller.abort();
  });
}
for (const stream of [process.stdout, process.stderr]) {
  // A reader that went away never changes the result.
  stream.on('error', () => undefined);
}

let isFinished = false;
process.on('exit', () => {
  if (isFinished) return;
  // Node ends when nothing is left to wait for, also in the middle of a command that waits for what never comes.
  process.exitCode = 1;
  writeSync(2, 'hostctl: internal error: the command ended without a result\n');
});

const exitCode = await start(process.argv.slice(2), controller.signal);
isFinished = true;
// Set, not called: pending output is still written.
process.exitCode = received !== undefined && exitCode !== 0 ? 128 + os.constants.signals[received] : exitCode;
