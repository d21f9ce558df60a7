/** Directories that are gone when the test is over. */

import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import { onTestFinished } from 'vitest';

/** A fresh directory for the running test. */
export function scratchDir(): string {
  const path = mkdtempSync(`${os.tmpdir()}/hostctl-test-`);
  // Removing many files takes long on a busy machine.
  onTestFinished(() => rmSync(path, { recursive: true, force: true }), 600_000);
  return path;
}
