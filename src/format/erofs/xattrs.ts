/**
 * The xattrs of a whole image: how many inodes use each name and value, and from that the table of shared xattrs. Only
 * what is shared is held. Values are latin1 strings, which are small, compare as bytes and work as map keys.
 */

import { rawFromBytes, writeRaw } from '../../tree/name.ts';
import type { ExternalContent, VerityDigest } from '../../tree/node.ts';
import { roundUp } from '../bytes/align.ts';
import { VERITY_PARAMETERS } from '../fsverity/algorithm.ts';
import { digestAlgorithm, objectPath } from '../fsverity/digest.ts';
import { MAX_SHARED_REFERENCES, xattrEntry, xattrHeader } from './layout.ts';
import { filterBit, splitXattrName } from './xattr-name.ts';

export interface XattrName {
  readonly full: string;
  readonly index: number;
  readonly suffix: string;
  /** Mask for the name filter. */
  readonly filterBit: number;
  readonly form: ValueForm;
}

export interface Xattr {
  readonly name: XattrName;
  /** What its value is made of, by the form of its name. */
  readonly key: string;
  /** Offset in the shared table, or -1. */
  readonly sharedOffset: number;
}

/** How the values of a name come of their keys, which are what the tree holds anyway. */
interface ValueForm {
  /** Bytes. */
  sizeOf(key: string): number;
  write(bytes: Buffer, at: number, key: string): void;
}

/** The value itself. */
const PLAIN: ValueForm = { sizeOf: (value) => value.length, write: (bytes, at, value) => writeRaw(bytes, value, at) };

const METACOPY = 'trusted.overlay.metacopy';
const REDIRECT = 'trusted.overlay.redirect';

/** Out of the digest and the path of an object. */
const FORMS: ReadonlyMap<string, ValueForm> = new Map([
  [
    METACOPY,
    {
      sizeOf: (digest) => (digest === '' ? 0 : 4 + digest.length / 2),
      // Version 0, total size, flags 0, fs-verity algorithm, digest.
      write(bytes, at, digest) {
        if (digest === '') return;
        const { id, digestSize } = VERITY_PARAMETERS[digestAlgorithm(digest as VerityDigest)];
        bytes[at] = 0;
        bytes[at + 1] = 4 + digestSize;
        bytes[at + 2] = 0;
        bytes[at + 3] = id;
        bytes.write(digest, at + 4, 'hex');
      },
    },
  ],
  [
    REDIRECT,
    {
      sizeOf: (path) => 1 + path.length,
      write(bytes, at, path) {
        bytes[at] = 0x2f;
        bytes.write(path, at + 1, 'latin1');
      },
    },
  ],
]);

interface NameValues extends XattrName {
  /** Keys of all values, and of those that several inodes have, until the shared ones are placed. */
  readonly seen: Set<string>;
  readonly several: Set<string>;
  readonly shared: Map<string, Xattr>;
}

/** Counts the xattrs of all inodes; once they are shared, knows each. */
export class XattrPool {
  readonly #names = new Map<string, NameValues>();
  /** Digests of objects that lie where objects do: counted by these, and not once more by their paths. */
  readonly #objects = new Set<VerityDigest>();
  readonly #severalObjects = new Set<VerityDigest>();
  readonly #isVersion2: boolean;

  constructor(isVersion2 = false) {
    this.#isVersion2 = isVersion2;
  }

  /** Counts one use of the value with this key. */
  use(name: string, key: string): void {
    const { seen, several } = this.#entry(name);
    const before = seen.size;
    if (seen.add(key).size === before) several.add(key);
  }

  /** Counts what sends overlayfs to an object. */
  useObject({ digest, path }: ExternalContent): void {
    if (digest !== undefined && path !== undefined && isObjectPath(path, digest)) {
      const before = this.#objects.size;
      if (this.#objects.add(digest).size === before) this.#severalObjects.add(digest);
      return;
    }
    this.use(METACOPY, digest ?? '');
    if (path !== undefined) this.use(REDIRECT, path);
  }

  #entry(name: string): NameValues {
    let entry = this.#names.get(name);
    if (entry === undefined) {
      const { index, suffix } = splitXattrName(name, this.#isVersion2);
      const form = FORMS.get(name) ?? PLAIN;
      const bit = filterBit(index, suffix);
      entry = {
        full: name,
        index,
        suffix,
        filterBit: bit,
        form,
        seen: new Set(),
        several: new Set(),
        shared: new Map(),
      };
      this.#names.set(name, entry);
    }
    return entry;
  }

  /** What was counted, once `share` has placed it. */
  get(name: string, key: string): Xattr {
    return xattrOf(this.#names.get(name)!, key);
  }

  /** The same for what sends overlayfs to an object, by name. */
  ofObject({ digest, path }: ExternalContent): Xattr[] {
    const metacopy = xattrOf(this.#names.get(METACOPY)!, digest ?? '');
    return path === undefined ? [metacopy] : [metacopy, xattrOf(this.#names.get(REDIRECT)!, path)];
  }

  /** Whether any inode has an xattr of this name. */
  has(name: string): boolean {
    return this.#names.has(name);
  }

  /** Gives both names what the digests of objects say about them. */
  #settleObjects(): void {
    if (this.#objects.size === 0) return;
    const [metacopy, redirect] = [this.#entry(METACOPY), this.#entry(REDIRECT)];
    for (const digest of this.#severalObjects) {
      metacopy.several.add(digest);
      redirect.several.add(objectPath(digest));
    }
    // Few trees have objects elsewhere too; what those name may also be named here.
    for (const digest of metacopy.seen) if (this.#objects.has(digest as VerityDigest)) metacopy.several.add(digest);
    for (const path of redirect.seen) {
      const digest = path.slice(0, 2) + path.slice(3);
      if (path[2] === '/' && this.#objects.has(digest as VerityDigest)) redirect.several.add(path);
    }
    this.#objects.clear();
  }

  /**
   * Places everything used twice or more into the shared table and returns the table in its order: names descending,
   * then longer values first, then values descending; in version 2 ascending by prefix number, suffix and value.
   */
  share(): { readonly entries: readonly Xattr[]; readonly sizeBytes: number } {
    this.#settleObjects();
    const found: NamedValue[] = [];
    for (const name of this.#names.values()) {
      for (const key of name.several) found.push({ name, key, value: valueOf(name.form, key) });
      // A million values, most of which one inode has.
      name.seen.clear();
    }
    found.sort(this.#isVersion2 ? byNumberAndSuffix : byNameDescending);
    let sizeBytes = 0;
    const entries = found.map(({ name, key }) => {
      const xattr: Xattr = { name, key, sharedOffset: sizeBytes };
      name.shared.set(key, xattr);
      sizeBytes += xattrEntrySize(xattr);
      return xattr;
    });
    return { entries, sizeBytes };
  }
}

/** Without making the path anew: this is asked of every file. */
function isObjectPath(path: string, digest: string): boolean {
  return (
    path.length === digest.length + 1 &&
    path[2] === '/' &&
    path.startsWith(digest.slice(0, 2)) &&
    path.endsWith(digest.slice(2))
  );
}

function xattrOf(entry: NameValues, key: string): Xattr {
  return entry.shared.get(key) ?? { name: entry, key, sharedOffset: -1 };
}

function valueOf(form: ValueForm, key: string): string {
  const bytes = Buffer.alloc(form.sizeOf(key));
  form.write(bytes, 0, key);
  return rawFromBytes(bytes);
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
  return roundUp(xattrEntry.size + xattr.name.suffix.length + xattr.name.form.sizeOf(xattr.key), 4);
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
export function xattrAreaSize(xattrs: readonly Xattr[], maxShared = MAX_SHARED_REFERENCES): number {
  if (xattrs.length === 0) return 0;
  let size = xattrHeader.size;
  let shared = 0;
  for (const xattr of xattrs) {
    const isReference = xattr.sharedOffset >= 0 && shared < maxShared;
    if (isReference) shared++;
    size += isReference ? 4 : xattrEntrySize(xattr);
  }
  return size;
}
