/** Directories in memory, for tests that do too much for a disk that really syncs. */

import { mkdtempSync, statfsSync } from 'node:fs';
import os from 'node:os';

const TMPFS_MAGIC = 0x01021994;
const SHARED_MEMORY = '/dev/shm';

/** A fresh directory on tmpfs, or an ordinary temporary one where there is none. The caller removes it. */
export function memoryDir(): string {
  return mkdtempSync(`${isTmpfs() ? SHARED_MEMORY : os.tmpdir()}/hostctl-model-`);
}

function isTmpfs(): boolean {
  try {
    return statfsSync(SHARED_MEMORY).type === TMPFS_MAGIC;
  } catch {
    // No such place on this machine.
    return false;
  }
}
