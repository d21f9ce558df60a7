/**
 * What lies on the boot partition and under `state/`, with what it takes, for deciding what may go. Unlike `status` it
 * takes nothing for granted: where one of these places cannot be read, or is not the one that deployments were made
 * on, it refuses, since a place that is missing is not a place that is empty.
 */

import { HostctlError } from '../errors.ts';
import { parseHostctlEntryName } from '../format/bls/name.ts';
import { allocatedBytes, isDirectory, listNames, TEMPORARY_NAME } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { mountOf } from '../sys/mounts.ts';
import { ENTRIES, listEntries, type FoundEntry } from './boot-entries.ts';
import { unusedMenuEntries } from './publish-entry.ts';
import type { BootPartition } from './boot-partition.ts';
import { readDeployments, type Deployments } from './deployments.ts';
import { KERNELS } from './kernels.ts';
import { pinFile, readPins } from './pins.ts';
import type { Sysroot } from './sysroot.ts';

export interface DiskItem {
  readonly name: string;
  readonly path: string;
  /** Allocated, directories and what is below them included. */
  readonly bytes: number;
}

export interface InertItem extends DiskItem {
  readonly sequence: number;
  /** Staged: waiting to be finalized, if the record says so too. */
  readonly isStaged: boolean;
}

export interface ListedEntry extends FoundEntry {
  readonly path: string;
  readonly bytes: number;
}

export interface HostSnapshot {
  readonly deployments: Deployments;
  /** Every entry of the menu, ours and others'. */
  readonly entries: readonly ListedEntry[];
  /** Files that are called as entries are and cannot be read: nobody knows what they boot. */
  readonly unreadableEntries: readonly string[];
  readonly inert: readonly InertItem[];
  readonly kernels: readonly DiskItem[];
  readonly states: readonly DiskItem[];
  /** What commands that died left; under the lock nobody else's can be there. */
  readonly bootTemporaries: readonly DiskItem[];
  readonly stateTemporaries: readonly DiskItem[];
  readonly pins: readonly (DiskItem & { readonly id: number })[];
  /** Whether what is staged could be told. */
  readonly isStagedKnown: boolean;
}

const INERT = /^(.+)\.(tmp|staged)$/;
/** Warnings of `readDeployments` after which nobody can say what is in use. */
const BLINDING = new Set(['boot-unreadable', 'state-unreadable', 'pins-unreadable']);

/**
 * Reads everything. The caller holds the sysroot lock, or only wants to show it. `isBootNamed` says that the user
 * named the boot directory. Throws 'state-invalid' where what is read cannot be all there is.
 */
export function readHostSnapshot(host: Host, sysroot: Sysroot, isBootNamed: boolean): HostSnapshot {
  const deployments = readDeployments(host, sysroot);
  const blind = deployments.warnings.find(({ code }) => BLINDING.has(code));
  if (blind !== undefined) {
    throw new HostctlError('state-invalid', `Cannot tell what is in use: ${blind.message}`, {
      hint: 'Nothing was removed; see "hostctl status"',
    });
  }
  requireBoot(host, sysroot, deployments, isBootNamed);
  const { path } = sysroot.boot;
  const { entries, problems } = listEntries(sysroot.boot);
  const states = itemsIn(sysroot.deployments, isLasting);
  return {
    deployments,
    entries: entries.map((entry) => {
      const file = `${path}/${ENTRIES}/${entry.file}`;
      return { ...entry, path: file, bytes: allocatedBytes(file) };
    }),
    unreadableEntries: problems.map(({ file }) => file),
    inert: [...inertItems(`${path}/${ENTRIES}`), ...menuEntryItems(sysroot.boot)],
    kernels: itemsIn(`${path}/${KERNELS}`, isLasting),
    states,
    bootTemporaries: itemsIn(`${path}/${KERNELS}`, isTemporary),
    stateTemporaries: [
      sysroot.deployments,
      ...states.map((state) => state.path),
      sysroot.sharedVar.slice(0, sysroot.sharedVar.lastIndexOf('/')),
      sysroot.hostState,
      `${sysroot.hostState}/history`,
    ].flatMap((directory) => itemsIn(directory, isTemporary)),
    pins: [...readPins(sysroot)].map((id) => {
      const pin = pinFile(sysroot, id);
      return { id, name: String(id), path: pin, bytes: allocatedBytes(pin) };
    }),
    isStagedKnown: !deployments.warnings.some(({ code }) => code === 'staged-unreadable'),
  };
}

/** A boot partition that is not mounted looks like one without entries: then every deployment would seem unused. */
function requireBoot(host: Host, { path, boot }: Sysroot, { list, booted }: Deployments, isNamed: boolean): void {
  if (list.length === 0 || list.some(({ entries }) => entries.length > 0)) return;
  const isMountPoint = mountOf(host.mounts.table(), boot.path)?.mountPoint === boot.path;
  const isUsed = isDirectory(`${boot.path}/${ENTRIES}`) || isDirectory(`${boot.path}/${KERNELS}`);
  // Only the very first deployment can have been cut off before any entry was there.
  const [only] = list;
  const canBeCutOff = list.length === 1 && (only?.id ?? 1) === 1 && booted === undefined;
  if (canBeCutOff && (isNamed || isMountPoint || isUsed)) return;
  throw new HostctlError(
    'state-invalid',
    `None of the boot entries in "${boot.path}" starts any of the deployments in "${path}"`,
    { hint: 'Mount the boot partition, or name it with --boot DIR; nothing was removed' },
  );
}

function inertItems(directory: string): InertItem[] {
  return listNames(directory).flatMap((file) => {
    const [, final = '', suffix] = INERT.exec(file) ?? [];
    const sequence = parseHostctlEntryName(final)?.sequence;
    if (sequence === undefined) return [];
    return { ...itemOf(directory, file), sequence, isStaged: suffix === 'staged' };
  });
}

/** Menu entries of GRUB whose boot entry is gone are inert too. */
function menuEntryItems(boot: BootPartition): InertItem[] {
  return unusedMenuEntries(boot).map((file) => ({
    ...itemOf(`${boot.path}/${ENTRIES}`, file),
    sequence: Number(/\d+/.exec(file)?.[0]),
    isStaged: false,
  }));
}

function isTemporary(name: string): boolean {
  return TEMPORARY_NAME.test(name);
}

function isLasting(name: string): boolean {
  return !isTemporary(name);
}

function itemsIn(directory: string, isWanted: (name: string) => boolean): DiskItem[] {
  if (!isDirectory(directory)) return [];
  return listNames(directory)
    .filter(isWanted)
    .map((name) => itemOf(directory, name));
}

function itemOf(directory: string, name: string): DiskItem {
  const path = `${directory}/${name}`;
  return { name, path, bytes: allocatedBytes(path) };
}
