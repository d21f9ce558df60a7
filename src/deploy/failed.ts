/**
 * The deployment that failed last: `state/hostctl/failed`. It outlives the deployment itself, so that `upgrade` does not
 * take that image again by itself after `gc`; another image that is tried makes it forgotten.
 */

import { readRecord, removeRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';
import type { BootFailure } from './trials.ts';

export interface FailedDeployment extends BootFailure {
  readonly id: number;
  /** Of the composefs image. */
  readonly digest: string;
  /** `sha256:…` of the OCI manifest. */
  readonly manifestDigest: string;
  /** Boots that were begun, as far as is known. */
  readonly attempts: number;
}

const FAILED = 'failed';

/** Throws for a broken record. */
export function readFailed(sysroot: Sysroot): FailedDeployment | undefined {
  const fields = readRecord(sysroot, FAILED, 'failed');
  if (fields === undefined) return undefined;
  return {
    id: Number(fields.get('id')),
    digest: fields.get('digest'),
    manifestDigest: fields.get('manifest-digest'),
    attempts: Number(fields.get('attempts')),
    code: fields.get('reason'),
    message: fields.get('message'),
  };
}

/** Durable when this returns. */
export function writeFailed(sysroot: Sysroot, failed: FailedDeployment): void {
  writeRecord(sysroot, FAILED, 'failed', {
    id: String(failed.id),
    digest: failed.digest,
    'manifest-digest': failed.manifestDigest,
    attempts: String(failed.attempts),
    reason: failed.code,
    message: failed.message,
  });
}

/** Idempotent. */
export function clearFailed(sysroot: Sysroot): void {
  removeRecord(sysroot, FAILED);
}
