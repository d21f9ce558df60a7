/** Reads a file out of an ext4 image, without mounting it. */

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';

/** @param path no link, without a leading slash */
export async function readExt4File(image: string, path: string): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), 'hostctl-ext4-'));
  try {
    const copy = join(folder, 'copy');
    await run('debugfs', ['-R', `dump /${path} ${copy}`, image]);
    return await readFile(copy);
  } finally {
    await rm(folder, { recursive: true });
  }
}
