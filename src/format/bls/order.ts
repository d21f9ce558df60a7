/**
 * The order in which a loader shows entries, best first: UAPI.1 "Sorting", as systemd-boot and bootctl carry it out.
 * The first one is what boots when nothing overrides it.
 */

import { type EntryName, isBadName } from './name.ts';
import { compareVersions } from './version.ts';

/** What the order is decided by. */
export interface MenuEntry {
  readonly name: EntryName;
  readonly sortKey?: string | undefined;
  readonly machineId?: string | undefined;
  readonly version?: string | undefined;
}

/** Negative when `a` stands before `b` in the menu. */
export function compareMenuEntries(a: MenuEntry, b: MenuEntry): number {
  return (
    Number(isBadName(a.name)) - Number(isBadName(b.name)) ||
    Number(a.sortKey === undefined) - Number(b.sortKey === undefined) ||
    compareBySortKey(a, b) ||
    compareVersions(b.name.id, a.name.id) ||
    compareTries(a.name, b.name)
  );
}

function compareBySortKey(a: MenuEntry, b: MenuEntry): number {
  if (a.sortKey === undefined || b.sortKey === undefined) return 0;
  return (
    compareBytes(a.sortKey, b.sortKey) ||
    compareBytes(a.machineId ?? '', b.machineId ?? '') ||
    compareVersions(b.version ?? '', a.version ?? '')
  );
}

/** Only for names alike but for the counter: more tries left first, then fewer made. */
function compareTries(a: EntryName, b: EntryName): number {
  if (!a.counter || !b.counter) return 0;
  return b.counter.left - a.counter.left || (a.counter.done ?? 0) - (b.counter.done ?? 0);
}

/** A new array in menu order. Entries that compare equal keep the order they came in. */
export function sortMenu<T extends MenuEntry>(entries: readonly T[]): T[] {
  return [...entries].sort(compareMenuEntries);
}

/** What boots by itself: the first of the menu, a used-up entry only when there is nothing else. */
export function defaultMenuEntry<T extends MenuEntry>(entries: readonly T[]): T | undefined {
  return sortMenu(entries)[0];
}

/** Byte order of the UTF-8 text, which UTF-16 order is not. */
function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
