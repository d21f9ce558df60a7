/**
 * The xattrs of a whole image: how many inodes use each name and value, and from that the table of shared xattrs. Only
 * what is shared is held. Values are latin1 strings, which are small, compare as bytes and work as map keys.
 */

import { rawFromBytes } from '../../tree/name.ts';
import type { VerityDigest } from '../../tree/node.ts';
import { roundUp } from '../bytes/align.ts';
import { VERITY_PARAMETERS } from '../fsverity/algorithm.ts';
import { digestAlgorithm, digestToBytes } from '../fsverity/digest.ts';
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
  /** Offset in the shared table, or -1. */
  readonly sharedOffset: number;
}

interface NameValues extends XattrName {
  /** Makes a value of its key. */
  readonly valueOf: (key: string) => string;
  /** How many inodes have each value, by keys, until the shared ones are placed. */
  readonly uses: Map<string, number>;
  readonly shared: Map<string, Xattr>;
}

/** Keys of these are what the tree holds anyway, the digest and the path of an object; of all others the values. */
const KEYED: ReadonlyMap<string, (key: string) => string> = new Map([
  ['trusted.overlay.metacopy', (digest) => (digest === '' ? '' : metacopyValue(digest as VerityDigest))],
  ['trusted.overlay.redirect', (path) => `/${path}`],
]);

/** Version 0, total size, flags 0, fs-verity algorithm, digest. */
function metacopyValue(digest: VerityDigest): string {
  const { id, digestSize } = VERITY_PARAMETERS[digestAlgorithm(digest)];
  return String.fromCharCode(0, 4 + digestSize, 0, id) + rawFromBytes(digestToBytes(digest));
}

/** Counts the xattrs of all inodes; once they are shared, knows each. */
export class XattrPool {
  readonly #names = new Map<string, NameValues>();
  readonly #isVersion2: boolean;

  constructor(isVersion2 = false) {
    this.#isVersion2 = isVersion2;
  }

  /** Counts one use of the value with this key. */
  use(name: string, key: string): void {
    let entry = this.#names.get(name);
    if (entry === undefined) {
      const { index, suffix } = splitXattrName(name, this.#isVersion2);
      const valueOf = KEYED.get(name) ?? ((key: string) => key);
      const bit = filterBit(index, suffix);
      entry = { full: name, index, suffix, filterBit: bit, valueOf, uses: new Map(), shared: new Map() };
      this.#names.set(name, entry);
    }
    entry.uses.set(key, (entry.uses.get(key) ?? 0) + 1);
  }

  /** What was counted, once `share` has placed it. */
  get(name: string, key: string): Xattr {
    const entry = this.#names.get(name)!;
    return entry.shared.get(key) ?? { name: entry, value: entry.valueOf(key), sharedOffset: -1 };
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
    const found: NamedValue[] = [];
    for (const name of this.#names.values()) {
      for (const [key, uses] of name.uses) if (uses > 1) found.push({ name, key, value: name.valueOf(key) });
      // A million values, most of which one inode has.
      name.uses.clear();
    }
    found.sort(this.#isVersion2 ? byNumberAndSuffix : byNameDescending);
    let sizeBytes = 0;
    const entries = found.map(({ name, key, value }) => {
      const xattr: Xattr = { name, value, sharedOffset: sizeBytes };
      name.shared.set(key, xattr);
      sizeBytes += xattrEntrySize(xattr);
      return xattr;
    });
    return { entries, sizeBytes };
  }
}

interface NamedValue {
  readonly name: NameValues;
  readonly key: string;
  readonly value: string;
}

function byNameDescending(a: NamedValue, b: NamedValue): number {
  return descending(a.name.full, b.name.full) || b.value.length - a.value.length || descending(a.value, b.value);
}

function byNumberAndSuffix(a: NamedValue, b: NamedValue): number {
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
