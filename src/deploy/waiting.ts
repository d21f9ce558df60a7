/**
 * Where a boot partition has a journal that cannot be written back in place, a boot loader may still see an entry that
 * was removed. What the entry names then waits for the next boot: `state/hostctl/waiting` says in which boot entries
 * were last removed so.
 */

import { ifSound, readRecord, removeRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

const NAME = 'waiting';

/** Id of the boot that has to end first; undefined when nothing waits, or the record is broken: then gc asks anew. */
export function readWaiting(sysroot: Sysroot): string | undefined {
  return ifSound(() => readRecord(sysroot, NAME, NAME)?.get('boot'));
}

export function writeWaiting(sysroot: Sysroot, bootId: string): void {
  writeRecord(sysroot, NAME, NAME, { boot: bootId });
}

/** Idempotent. */
export function clearWaiting(sysroot: Sysroot): void {
  removeRecord(sysroot, NAME);
}
