/**
 * The image that was left by hand: after a rollback, `upgrade` on its own does not go back to it. Another image that is
 * deployed makes it forgotten; so does asking for it by name.
 */

import { readRecord, removeRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

export interface LeftImage {
  readonly id: number;
  /** `sha256:…` of the OCI manifest. */
  readonly manifestDigest: string;
}

const LEFT = 'left';

/** Throws for a broken record. */
export function readLeft(sysroot: Sysroot): LeftImage | undefined {
  const fields = readRecord(sysroot, LEFT, 'left');
  return fields === undefined
    ? undefined
    : { id: Number(fields.get('id')), manifestDigest: fields.get('manifest-digest') };
}

export function writeLeft(sysroot: Sysroot, { id, manifestDigest }: LeftImage): void {
  writeRecord(sysroot, LEFT, 'left', { id: String(id), 'manifest-digest': manifestDigest });
}

/** Idempotent. */
export function clearLeft(sysroot: Sysroot): void {
  removeRecord(sysroot, LEFT);
}
