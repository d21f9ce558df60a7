/**
 * Where a program that is measured writes: a new journaled ext4 in a loop file, so that no earlier run leaves its mark.
 * What it wrote is counted at the device, with the journal.
 */

import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../run.ts';

export interface Target {
  readonly path: string;
  /** Bytes that reached the device since it was mounted. */
  written(): number;
  remove(): Promise<void>;
}

const SECTOR_BYTES = 512;
/** Sparse: hostctl measures an image in advance where a file system has not many times its room. */
const SIZE = '40G';

/** Makes and mounts it below `folder`. Needs root. */
async function makeTarget(folder: string): Promise<Target> {
  const file = join(folder, 'target.img');
  const path = join(folder, 'target');
  await run('truncate', ['--size', SIZE, file]);
  // Tables written in the background would be counted.
  await run('mkfs.ext4', ['-q', '-O', 'has_journal', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard', file]);
  mkdirSync(path, { recursive: true });
  await run('mount', ['-o', 'loop', file, path]);
  await run('sync', ['-f', path]);
  const device = (await run('findmnt', ['-no', 'SOURCE', path])).trim().replace('/dev/', '');
  if (!existsSync(`/sys/block/${device}/stat`)) throw new Error(`Not a loop device: ${device}`);
  const written = (): number =>
    Number(readFileSync(`/sys/block/${device}/stat`, 'utf8').trim().split(/\s+/)[6]) * SECTOR_BYTES;
  const before = written();
  return {
    path,
    written: () => written() - before,
    async remove() {
      // podman leaves a mount of its own.
      await run('umount', ['--recursive', path]);
      rmSync(file);
    },
  };
}

/** Makes it for as long as `body` takes. */
export async function onTarget<T>(folder: string, body: (target: Target) => Promise<T>): Promise<T> {
  const target = await makeTarget(folder);
  try {
    return await body(target);
  } finally {
    await target.remove();
  }
}
