/**
 * The floor: the highest security version that was ever good here. Two copies, each with its checksum, `floor` and
 * `floor-copy` under `state/hostctl`; the higher sound one counts. Only a boot that was found good raises it, so that
 * what a host falls back to by itself is never below it.
 */

import { HostctlError } from '../errors.ts';
import { hasChecksum } from '../format/checksum.ts';
import { parseKeyfile } from '../format/keyfile.ts';
import { readSmallFile, replaceFile } from '../sys/files.ts';
import type { Deployment, Deployments } from './deployments.ts';
import { ifSound, removeRecord, writeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

const COPIES = ['floor-copy', 'floor'] as const;
const SECTION = 'floor';

/** Where both copies are lost, what runs is what was good last. */
export function readFloor(sysroot: Sysroot, { booted }: Pick<Deployments, 'booted'>): number {
  return highest(readCopies(sysroot), booted);
}

/** Throws for a copy that is broken; one that is not there is fine. */
export function checkFloor(sysroot: Sysroot): void {
  for (const name of COPIES) {
    const path = pathOf(sysroot, name);
    const bytes = readSmallFile(path);
    if (bytes !== undefined) versionIn(bytes, path);
  }
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
  /** What that says, if it is sound. */
  readonly version: number | undefined;
}

/** What is to be written once the boot is known to be good; the floor never goes down. Only reads. */
export function planFloor(sysroot: Sysroot, { booted }: Pick<Deployments, 'booted'>): FloorPlan {
  const copies = readCopies(sysroot);
  const version = Math.max(highest(copies, booted), securityVersionOf(booted));
  // A host without security versions has nothing to remember.
  return { version, copies: version === 0 ? [] : copies.filter((copy) => copy.version !== version) };
}

/** Durable when this returns; both copies are whole afterwards. */
export function raiseFloor(sysroot: Sysroot, { version, copies }: FloorPlan): void {
  for (const { name } of copies) writeRecord(sysroot, name, SECTION, { version: String(version) });
}

/** Puts back what was there: a copy that may not be durable must not pass for one that is when this is tried again. */
export function restoreFloor(sysroot: Sysroot, { copies }: FloorPlan): void {
  for (const { name, before } of copies) {
    if (before === undefined) removeRecord(sysroot, name);
    else replaceFile(pathOf(sysroot, name), before);
  }
}

function highest(copies: readonly FloorCopy[], booted: Deployment | undefined): number {
  const sound = copies.flatMap(({ version }) => version ?? []);
  return sound.length > 0 ? Math.max(...sound) : securityVersionOf(booted);
}

function securityVersionOf(deployment: Deployment | undefined): number {
  return deployment?.origin?.securityVersion ?? 0;
}

function readCopies(sysroot: Sysroot): FloorCopy[] {
  return COPIES.map((name) => {
    const path = pathOf(sysroot, name);
    const before = ifSound(() => readSmallFile(path));
    const version = before === undefined ? undefined : ifSound(() => versionIn(before, path));
    return { name, before, version };
  });
}

function versionIn(bytes: Uint8Array, path: string): number {
  const text = Buffer.from(bytes).toString('utf8');
  const version = Number(parseKeyfile(text).get(SECTION)?.get('version'));
  if (hasChecksum(text) && Number.isSafeInteger(version) && version >= 0) return version;
  throw new HostctlError('state-invalid', `"${path}" is damaged: its checksum is wrong`);
}

function pathOf({ hostState }: Sysroot, name: string): string {
  return `${hostState}/${name}`;
}
