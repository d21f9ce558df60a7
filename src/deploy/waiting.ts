/**
 * Where a boot partition has a journal that cannot be written back in place, a boot loader may still see an entry that
 * was removed. What the entry names then waits for the next boot: `state/hostctl/waiting` says in which boot entries
 * were last removed so.
 */

import { readSmallText, replaceFile } from '../sys/files.ts';
import { removeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

/** Id of the boot that has to end first; undefined when nothing waits. */
export function readWaiting({ hostState }: Sysroot): string | undefined {
  return readSmallText(`${hostState}/waiting`)?.trim();
}

export function writeWaiting({ hostState }: Sysroot, bootId: string): void {
  replaceFile(`${hostState}/waiting`, `${bootId}\n`);
}

/** Idempotent. */
export function clearWaiting(sysroot: Sysroot): void {
  removeRecord(sysroot, 'waiting');
}
