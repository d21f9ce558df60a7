/**
 * The floor: the highest security version that was ever good here. Two copies, each with its checksum, `floor` and
 * `floor-copy` under `state/hostctl`; the higher sound one counts. Only a boot that was found good raises it, so that
 * what a host falls back to by itself is never below it.
 */

import { HostctlError } from '../errors.ts';
import { hasChecksum } from '../format/checksum.ts';
import { readSmallFile, readSmallText, replaceFile } from '../sys/files.ts';
import type { Deployment, Deployments } from './deployments.ts';
import { ifSound, readRecord, removeRecord, writeRecord } from './records.ts';
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

export interface FloorPlan {
  readonly version: number;
  /** Those that do not say so, or are damaged. */
  readonly copies: readonly FloorCopy[];
}

interface FloorCopy {
  readonly name: string;
  /** What it holds until then; undefined where there is none, or nothing that can be read. */
  readonly before: Uint8Array | undefined;
}

/** What is to be written once the boot is known to be good; the floor never goes down. Only reads. */
export function planFloor(sysroot: Sysroot, { booted }: Pick<Deployments, 'booted'>): FloorPlan {
  const version = Math.max(readFloor(sysroot, { booted }), securityVersionOf(booted));
  // A host without security versions has nothing to remember.
  if (version === 0) return { version, copies: [] };
  const stale = COPIES.filter((name) => ifSound(() => readCopy(sysroot, name)) !== version);
  const before = (name: string): Uint8Array | undefined => ifSound(() => readSmallFile(`${sysroot.hostState}/${name}`));
  return { version, copies: stale.map((name) => ({ name, before: before(name) })) };
}

/** Durable when this returns; both copies are whole afterwards. */
export function raiseFloor(sysroot: Sysroot, { version, copies }: FloorPlan): void {
  for (const { name } of copies) writeRecord(sysroot, name, SECTION, { version: String(version) });
}

/** Puts back what was there: a copy that may not be durable must not pass for one that is when this is tried again. */
export function restoreFloor(sysroot: Sysroot, { copies }: FloorPlan): void {
  for (const { name, before } of copies) {
    if (before === undefined) removeRecord(sysroot, name);
    else replaceFile(`${sysroot.hostState}/${name}`, before);
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
