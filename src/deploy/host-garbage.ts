/**
 * What may go from the boot partition and from `state/`, decided over a snapshot. The rule for everything is the same:
 * it goes when no deployment that stays and no entry that stays needs it; where an entry cannot be read, nothing goes
 * that it might need. Pure.
 */

import type { VerityDigest } from '../tree/node.ts';
import { isBadName } from '../format/bls/name.ts';
import { parseKarg } from '../format/cmdline.ts';
import type { Deployment, Problem } from './deployments.ts';
import type { DiskItem, HostSnapshot, ListedEntry } from './host-snapshot.ts';
import { KERNELS } from './kernels.ts';

export interface HostGarbage {
  /** Deployments that go with all they have: dropped ones and those that a command left half made. */
  readonly deployments: readonly Deployment[];
  /** Ours alone, in the order in which they go: lowest in the menu first. */
  readonly entries: readonly ListedEntry[];
  readonly inert: readonly DiskItem[];
  readonly kernels: readonly DiskItem[];
  readonly bootTemporaries: readonly DiskItem[];
  readonly states: readonly DiskItem[];
  readonly stateTemporaries: readonly DiskItem[];
  readonly pins: readonly DiskItem[];
  /** Deployments that stay, whose images are roots. */
  readonly kept: readonly Deployment[];
  /** Images that an entry which stays names, by the entry's file. */
  readonly entryImages: readonly { readonly digest: VerityDigest; readonly file: string }[];
  /** Why something stays that looks unused. */
  readonly notes: readonly Problem[];
}

const DIGEST_AT_END = /(?:^|[^0-9a-f])([0-9a-f]{64}|[0-9a-f]{128})$/;

/** @param dropped - deployments that shall go although they are whole */
export function planHostGarbage(snapshot: HostSnapshot, dropped: readonly Deployment[]): HostGarbage {
  const { list, booted, staged, stagedRecord } = snapshot.deployments;
  const isBlind = snapshot.unreadableEntries.length > 0;
  const isOrphan = (item: Deployment): boolean =>
    item.entries.length === 0 &&
    // Without an origin of ours it may be another tool's, started by something else than an entry.
    item.origin !== undefined &&
    item !== staged &&
    item !== booted &&
    !item.pinned &&
    !isBlind &&
    snapshot.isStagedKnown;
  const gone = list.filter((item) => dropped.includes(item) || isOrphan(item));
  const kept = list.filter((item) => !gone.includes(item));
  const entries = removableEntries(snapshot, gone);
  const staying = snapshot.entries.filter((entry) => !entries.includes(entry));
  const goneNames = new Set(gone.map(({ name }) => name));
  const keptIds = new Set(kept.map(({ id }) => id));
  return {
    deployments: gone,
    entries,
    inert: snapshot.inert.filter(
      ({ isStaged, sequence }) => !isStaged || (snapshot.isStagedKnown && sequence !== stagedRecord?.id),
    ),
    kernels: isBlind || !snapshot.isStagedKnown ? [] : unusedKernels(snapshot, staying, kept),
    bootTemporaries: snapshot.bootTemporaries,
    states: snapshot.states.filter(({ name }) => goneNames.has(name)),
    stateTemporaries: snapshot.stateTemporaries,
    pins: snapshot.pins.filter(({ id }) => !keptIds.has(id)),
    kept,
    entryImages: staying.flatMap((entry) => imagesOf(entry).map((digest) => ({ digest, file: entry.file }))),
    notes: [...notesOn(snapshot), ...kept.filter(isUnknown).map(unknownNote)],
  };
}

/** Entries of what goes, and those that a later good entry of the same deployment makes superfluous. */
function removableEntries(snapshot: HostSnapshot, gone: readonly Deployment[]): ListedEntry[] {
  const goneFiles = new Set(
    gone.flatMap(({ entries, onceEntries }) => [...entries, ...onceEntries].map(({ file }) => file)),
  );
  const isUsedUp = ({ isOnce, name }: ListedEntry): boolean => isOnce && isBadName(name);
  return snapshot.entries
    .filter((entry) => entry.sequence !== undefined)
    .filter(
      (entry) =>
        goneFiles.has(entry.file) || isUsedUp(entry) || snapshot.entries.some((other) => supersedes(other, entry)),
    )
    .sort((a, b) => (a.sequence ?? 0) - (b.sequence ?? 0));
}

/** Whether `other` starts all that `entry` starts, is good, and stands before it in every loader's menu. */
function supersedes(other: ListedEntry, entry: ListedEntry): boolean {
  return (
    !other.isOnce &&
    other.stateName === entry.stateName &&
    (other.sequence ?? 0) > (entry.sequence ?? 0) &&
    other.name.counter === undefined &&
    other.linux === entry.linux &&
    other.efi === entry.efi &&
    other.initrd.join('\n') === entry.initrd.join('\n')
  );
}

function unusedKernels(
  snapshot: HostSnapshot,
  staying: readonly ListedEntry[],
  kept: readonly Deployment[],
): DiskItem[] {
  const inert = kept.flatMap(({ stagedEntry }) => stagedEntry ?? []);
  const paths = [...staying, ...inert]
    .flatMap(({ linux, initrd, efi }) => [linux ?? '', ...initrd, efi ?? ''])
    .map((path) => path.toLowerCase());
  // Where there are entries they decide: a repaired kernel has another name than the one it was deployed with.
  const recorded = new Set(kept.filter(({ entries }) => entries.length === 0).map(({ origin }) => origin?.kernel));
  // Wherever the entry's paths begin: the partition may have been mounted elsewhere when it was written.
  return snapshot.kernels.filter(
    ({ name }) =>
      !recorded.has(name) && !paths.some((path) => `/${path}`.includes(`/${KERNELS}/${name.toLowerCase()}/`)),
  );
}

/** Every image that a command line names, also by parameters that are not ours: the first that exists is what boots. */
function imagesOf({ kargs }: ListedEntry): VerityDigest[] {
  return kargs
    .map(parseKarg)
    .filter(({ key }) => key === 'composefs' || key === 'composefs.digest')
    .map(({ value }) => DIGEST_AT_END.exec(value ?? '')?.[1] as VerityDigest | undefined)
    .filter((digest) => digest !== undefined);
}

function isUnknown({ origin, entries, state }: Deployment): boolean {
  return origin === undefined && entries.length === 0 && state !== 'staged';
}

function unknownNote({ name }: Deployment): Problem {
  const message = `"state/deploy/${name}" has neither a boot entry nor an origin of hostctl: it is not removed`;
  return { code: 'state-unknown', message };
}

function notesOn({ unreadableEntries, isStagedKnown }: HostSnapshot): Problem[] {
  const notes: Problem[] = unreadableEntries.map((file) => ({
    code: 'entry-unreadable',
    message: `The boot entry "${file}" cannot be read: no kernel and no state directory is removed`,
  }));
  if (!isStagedKnown) {
    notes.push({
      code: 'staged-unreadable',
      message: 'The staged record cannot be read: what may belong to it is not removed',
    });
  }
  return notes;
}
