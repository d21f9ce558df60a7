/**
 * The floor: the highest security version that was ever good here. Two copies, each with its checksum, `floor` and
 * `floor-copy` under `state/hostctl`; the higher sound one counts. Only a boot that was found good raises it, so that
 * what a host falls back to by itself is never below it.
 */

import { HostctlError } from '../errors.ts';
import { hasChecksum } from '../format/checksum.ts';
import { readSmallText } from '../sys/files.ts';
import type { Deployment, Deployments } from './deployments.ts';
import { ifSound, readRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

const COPIES = ['floor-copy', 'floor'] as const;
const SECTION = 'floor';

/** Where both copies are lost, what runs is what was good last. */
export function readFloor(sysroot: Sysroot, { booted }: Pick<Deployments, 'booted'>): number {
  const sound = COPIES.flatMap((name) => ifSound(() => readCopy(sysroot, name)) ?? []);
  return sound.length > 0 ? Math.max(...sound) : securityVersionOf(booted);
}

/** Throws for a copy that is broken; one that is not there is fine. */
export function checkFloor(sysroot: Sysroot): void {
  for (const name of COPIES) readCopy(sysroot, name);
}

/** Durable when this returns. It never goes down; both copies are whole afterwards. */
export function raiseFloor(sysroot: Sysroot, { booted }: Pick<Deployments, 'booted'>): void {
  const floor = Math.max(readFloor(sysroot, { booted }), securityVersionOf(booted));
  // A host without security versions has nothing to remember.
  if (floor === 0) return;
  for (const name of COPIES) {
    if (ifSound(() => readCopy(sysroot, name)) === floor) continue;
    writeRecord(sysroot, name, SECTION, { version: String(floor) });
  }
}

function securityVersionOf(deployment: Deployment | undefined): number {
  return deployment?.origin?.securityVersion ?? 0;
}

function readCopy(sysroot: Sysroot, name: string): number | undefined {
  const text = readSmallText(`${sysroot.hostState}/${name}`);
  if (text === undefined) return undefined;
  const version = Number(readRecord(sysroot, name, SECTION)?.get('version'));
  if (hasChecksum(text) && Number.isSafeInteger(version) && version >= 0) return version;
  throw new HostctlError('state-invalid', `"${sysroot.hostState}/${name}" is damaged: its checksum is wrong`);
}
