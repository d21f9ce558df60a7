/**
 * What tells an installation that was cut off from a machine that is in use: an empty file at the top of each file
 * system that is installed onto, there before anything else is and until the deployment has its entry. What lies at our
 * places beside it was made by that installation, as long as nothing was ever published: then the next one removes it.
 */

import * as fs from 'node:fs';
import { ENTRIES } from '../deploy/boot-entries.ts';
import { parseHostctlEntryName } from '../format/bls/name.ts';
import { createFile, exists, fsyncPath, isDirectory, listNames } from '../sys/files.ts';

const MARK = '.hostctl-installing';

/** Where marks stand; a place of several roles has one. */
export interface MarkedPlaces {
  readonly root: string;
  readonly boot: string;
  readonly esp: string | undefined;
  readonly var: string | undefined;
}

function marksOf({ root, boot, esp, var: ownVar }: MarkedPlaces): string[] {
  const places = new Set([root, boot, esp, ownVar]);
  return [...places].filter((place) => place !== undefined).map(markOf);
}

function markOf(place: string): string {
  return `${place}/${MARK}`;
}

/**
 * Whether an installation was cut off here before it published anything. Without the mark of the root nothing is, but
 * for one that had no more than the lock: what keeps a running one from being taken for dead comes before the mark.
 */
export function isInstallationCutOff({ root, boot }: Pick<MarkedPlaces, 'root' | 'boot'>): boolean {
  return (
    (isMarked(root) || isOnlyLock(root)) &&
    listNames(`${root}/state/hostctl/history`).length === 0 &&
    listNames(`${boot}/${ENTRIES}`).every((file) => parseHostctlEntryName(file) === undefined)
  );
}

/** Whether all that is in the root's `state/` is what taking the lock makes. */
export function isOnlyLock(root: string): boolean {
  const state = `${root}/state`;
  return (
    isDirectory(state) &&
    listNames(state).every((name) => name === 'hostctl') &&
    listNames(`${state}/hostctl`).every((name) => name === 'lock-holder')
  );
}

/** Whether the installation that was cut off wrote to this file system. */
export function isMarked(place: string): boolean {
  return exists(markOf(place));
}

/**
 * The mark of this file system where it means nothing any more: the installation was killed when its deployment had its
 * entry. The caller holds the lock.
 */
export function staleMarks(place: string, places: Pick<MarkedPlaces, 'root' | 'boot'>) {
  return isMarked(place) && !isInstallationCutOff(places) ? [{ name: MARK, path: markOf(place), bytes: 0 }] : [];
}

/** Whether a name at the top of a file system is only a mark. */
export function isMark(name: string): boolean {
  return name === MARK;
}

/** Durable when it returns. Idempotent. */
export function markInstallation(places: MarkedPlaces): void {
  for (const mark of marksOf(places)) {
    if (!exists(mark)) createFile(mark, '', 0o600);
    fsyncPath(mark.slice(0, -MARK.length));
  }
}

/** Idempotent. The root's goes last: without it the others mean nothing. */
export function unmarkInstallation(places: MarkedPlaces): void {
  for (const mark of marksOf(places).reverse()) {
    fs.rmSync(mark, { force: true });
    fsyncPath(mark.slice(0, -MARK.length));
  }
}
