/**
 * Pins: `state/hostctl/pinned-<id>`, an empty file for each deployment that nothing may drop by itself. The file's
 * being there is the whole fact, so a pin cannot be half written.
 */

import * as fs from 'node:fs';
import { createFile, exists, fsyncPath, listNames, removeQuietly } from '../sys/files.ts';
import type { Sysroot } from './sysroot.ts';

const NAME = /^pinned-([1-9][0-9]{0,7})$/;

/** Ids of all pins, also of deployments that are gone. */
export function readPins({ hostState }: Sysroot): ReadonlySet<number> {
  const ids = listNames(hostState).map((name) => NAME.exec(name)?.[1]);
  return new Set(ids.filter((id) => id !== undefined).map(Number));
}

/** Durable when this returns; not there when this throws. Idempotent. */
export function setPin(sysroot: Sysroot, id: number): void {
  const path = pinFile(sysroot, id);
  const isNew = !exists(path);
  if (isNew) createFile(path, '', 0o644);
  try {
    fsyncPath(sysroot.hostState);
  } catch (error) {
    if (isNew) removeQuietly(path);
    throw error;
  }
}

/** Durable when this returns. Idempotent. */
export function clearPin(sysroot: Sysroot, id: number): void {
  fs.rmSync(pinFile(sysroot, id), { force: true });
  fsyncPath(sysroot.hostState);
}

export function pinFile({ hostState }: Sysroot, id: number): string {
  return `${hostState}/pinned-${id}`;
}
