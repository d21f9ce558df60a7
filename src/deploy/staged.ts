/**
 * The staged deployment, at most one: whole and durable, its entry inert until the end of this boot. The record is on
 * disk, not in `/run`, so that a power cut loses nothing. Beside it stands why the last finalization failed: that is
 * written before it begins and removed when it has succeeded, so that also one that was killed leaves its reason.
 */

import { HostctlError } from '../errors.ts';
import { parseHostctlEntryName } from '../format/bls/name.ts';
import { readRecord, removeRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

export interface StagedRecord {
  readonly id: number;
  /** Directory below `state/deploy`. */
  readonly stateName: string;
  /** Name the entry will have. */
  readonly entryFile: string;
  /** The verb that staged it, for the history. */
  readonly action: string;
  /** Downloaded only: stays staged at shutdown until it is asked for. */
  readonly isLocked: boolean;
}

export interface FinalizeFailure {
  readonly id: number;
  readonly code: string;
  readonly message: string;
}

const STAGED = 'staged';
const FAILURE = 'finalize-failure';
const STATE_NAME = /^[0-9a-f]{64,128}(\.[0-9]+)?$/;

/** Undefined when nothing is staged. Throws 'state-invalid' or 'format-invalid' for a broken record. */
export function readStaged(sysroot: Sysroot): StagedRecord | undefined {
  const fields = readRecord(sysroot, STAGED, 'staged');
  if (fields === undefined) return undefined;
  const record = {
    id: Number(fields.get('id')),
    stateName: fields.get('state'),
    entryFile: fields.get('entry'),
    action: fields.get('action'),
    isLocked: fields.get('locked') === 'yes',
  };
  const isSound = STATE_NAME.test(record.stateName) && parseHostctlEntryName(record.entryFile)?.sequence === record.id;
  if (isSound) return record;
  throw new HostctlError('state-invalid', `The staged record in "${sysroot.hostState}" names no deployment`);
}

/** Durable when this returns: from then on the deployment is staged. */
export function writeStaged(sysroot: Sysroot, record: StagedRecord): void {
  writeRecord(sysroot, STAGED, 'staged', {
    id: String(record.id),
    state: record.stateName,
    entry: record.entryFile,
    action: record.action,
    locked: record.isLocked ? 'yes' : 'no',
  });
}

/** Durable when this returns: nothing is staged any more. Idempotent. */
export function clearStaged(sysroot: Sysroot): void {
  removeRecord(sysroot, STAGED);
}

/** Why the last finalization did not succeed; undefined when it did, or none was tried. Throws for a broken record. */
export function readFinalizeFailure(sysroot: Sysroot): FinalizeFailure | undefined {
  const fields = readRecord(sysroot, FAILURE, 'failure');
  if (fields === undefined) return undefined;
  return { id: Number(fields.get('id')), code: fields.get('code'), message: fields.get('message') };
}

export function writeFinalizeFailure(sysroot: Sysroot, { id, code, message }: FinalizeFailure): void {
  writeRecord(sysroot, FAILURE, 'failure', { id: String(id), code, message });
}

/** Idempotent. */
export function clearFinalizeFailure(sysroot: Sysroot): void {
  removeRecord(sysroot, FAILURE);
}
