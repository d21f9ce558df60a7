/**
 * The xattrs of a whole image: every distinct name and value once, with the count of inodes that use it, and from that
 * the table of shared xattrs. Values are latin1 strings, which are small, compare as bytes and work as map keys.
 */

import { roundUp } from '../bytes/align.ts';
import { MAX_SHARED_REFERENCES, xattrEntry, xattrHeader } from './layout.ts';
import { filterBit, splitXattrName } from './xattr-name.ts';

export interface XattrName {
  readonly full: string;
  readonly index: number;
  readonly suffix: string;
  /** Mask for the name filter. */
  readonly filterBit: number;
}

export interface Xattr {
  readonly name: XattrName;
  readonly value: string;
  /** Inodes that have it. */
  uses: number;
  /** Offset in the shared table, or -1. Known after `shareXattrs`. */
  sharedOffset: number;
}

interface NameValues extends XattrName {
  readonly values: Map<string, Xattr>;
}

/** Collects the xattrs of all inodes. */
export class XattrPool {
  readonly #names = new Map<string, NameValues>();
  readonly #isVersion2: boolean;

  constructor(isVersion2 = false) {
    this.#isVersion2 = isVersion2;
  }

  /** The pooled xattr, counted once more. */
  use(name: string, value: string): Xattr {
    let entry = this.#names.get(name);
    if (entry === undefined) {
      const { index, suffix } = splitXattrName(name, this.#isVersion2);
      entry = { full: name, index, suffix, filterBit: filterBit(index, suffix), values: new Map() };
      this.#names.set(name, entry);
    }
    let xattr = entry.values.get(value);
    if (xattr === undefined) {
      xattr = { name: entry, value, uses: 0, sharedOffset: -1 };
      entry.values.set(value, xattr);
    }
    xattr.uses++;
    return xattr;
  }

  /** Whether any inode has an xattr of this name. */
  has(name: string): boolean {
    return this.#names.has(name);
  }

  /**
   * Places everything used twice or more into the shared table and returns the table in its order: names descending,
   * then longer values first, then values descending; in version 2 ascending by prefix number, suffix and value.
   */
  share(): { readonly entries: readonly Xattr[]; readonly sizeBytes: number } {
    const entries: Xattr[] = [];
    for (const name of this.#names.values()) {
      for (const xattr of name.values.values()) if (xattr.uses > 1) entries.push(xattr);
    }
    entries.sort(this.#isVersion2 ? byNumberAndSuffix : byNameDescending);
    let sizeBytes = 0;
    for (const xattr of entries) {
      xattr.sharedOffset = sizeBytes;
      sizeBytes += xattrEntrySize(xattr);
    }
    return { entries, sizeBytes };
  }
}

function byNameDescending(a: Xattr, b: Xattr): number {
  return descending(a.name.full, b.name.full) || b.value.length - a.value.length || descending(a.value, b.value);
}

function byNumberAndSuffix(a: Xattr, b: Xattr): number {
  return a.name.index - b.name.index || descending(b.name.suffix, a.name.suffix) || descending(b.value, a.value);
}

function descending(a: string, b: string): number {
  return a < b ? 1 : a > b ? -1 : 0;
}

/** Bytes of an entry with its padding, inline or shared. */
export function xattrEntrySize(xattr: Xattr): number {
  return roundUp(xattrEntry.size + xattr.name.suffix.length + xattr.value.length, 4);
}

/** Which of an inode's xattrs are references to the shared table and which are written with the inode, in order. */
export function splitShared(
  xattrs: readonly Xattr[],
  maxShared = MAX_SHARED_REFERENCES,
): { shared: Xattr[]; inline: Xattr[] } {
  const shared: Xattr[] = [];
  const inline: Xattr[] = [];
  for (const xattr of xattrs) {
    if (xattr.sharedOffset >= 0 && shared.length < maxShared) shared.push(xattr);
    else inline.push(xattr);
  }
  return { shared, inline };
}

/** Bytes of the xattr area of an inode, a multiple of 4; 0 without xattrs. */
export function xattrAreaSize(xattrs: readonly Xattr[], maxShared?: number): number {
  if (xattrs.length === 0) return 0;
  const { shared, inline } = splitShared(xattrs, maxShared);
  return inline.reduce((size, xattr) => size + xattrEntrySize(xattr), xattrHeader.size + 4 * shared.length);
}
