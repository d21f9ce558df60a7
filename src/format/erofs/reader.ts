/**
 * Composefs image back to the tree it was made from. The inverse of the writer, except that an inode with several names
 * takes its place at the first one in depth-first byte order. Safe on hostile images: typed errors, no recursion, time
 * and memory in proportion to the image.
 */

import { displayRaw, rawFromBytes, rawFromText, type RawName } from '../../tree/name.ts';
import type { Delta } from '../../tree/delta.ts';
import type { DirectoryNode, FileContent, LeafNode, Metadata } from '../../tree/node.ts';
import { MAX_INLINE, MAX_SYMLINK_TARGET } from '../../tree/validate.ts';
import type { ComposefsVersion } from './composefs.ts';
import { ErofsImage, refuseImage, type ImageEntry, type ImageInode, type ImageXattr } from './image.ts';
import { FILE_TYPES, type NodeKind } from './file-type.ts';
import { overlayDataOf } from './overlay-data.ts';
import { unescapeXattrName } from './xattr-name.ts';

/**
 * The tree in a composefs image of version 0, 1 or 2. File contents and xattr values are views of `bytes`. Throws
 * `format-invalid` naming record and offset, or `image-unsupported` for another format.
 */
export function readComposefsImage(bytes: Uint8Array): DirectoryNode {
  return new TreeReader(new ErofsImage(bytes)).read();
}

/** The same of an image that is a layer over another one: what it adds and what it hides. */
export function readComposefsDelta(bytes: Uint8Array): Delta {
  const reader = new TreeReader(new ErofsImage(bytes));
  return { root: reader.read(), hidden: reader.hidden, opaque: reader.opaque };
}

/**
 * One directory of the image, with everything below it and nothing else: reading `/etc` takes as long as `/etc` is
 * large. Undefined when there is no directory at `path`. Names outside it of inodes in it are not known here, and
 * damage outside it is not found. Throws as `readComposefsImage` does.
 */
export function readComposefsDirectory(bytes: Uint8Array, path: string): DirectoryNode | undefined {
  return new TreeReader(new ErofsImage(bytes)).readBelow(path.split('/').filter(Boolean).map(rawFromText));
}

/** The composefs version of an image. Throws as `readComposefsImage` does. */
export function imageVersion(bytes: Uint8Array): ComposefsVersion {
  return new ErofsImage(bytes).header.composefsVersion as ComposefsVersion;
}

/** A directory being read. */
interface Frame {
  readonly node: DirectoryNode;
  readonly entries: readonly ImageEntry[];
  readonly nid: number;
  next: number;
}

/** What a nid turned out to be. */
interface Seen {
  /** Undefined for a stub, which is no part of the tree. */
  readonly node: LeafNode | DirectoryNode | undefined;
  readonly fileType: number;
}

/** On a directory, with the value "y": nothing of lower layers shows in it. */
const OPAQUE = 'trusted.overlay.opaque';
/** On a regular file: it stands for a char device 0/0. */
const WHITEOUT_MARK = 'trusted.overlay.overlay.whiteout';

class TreeReader {
  readonly #image: ErofsImage;
  readonly #isVersion2: boolean;
  readonly #seen = new Map<number, Seen>();
  /** Stubs by the directory they stand in. */
  readonly hidden = new Map<DirectoryNode, Set<RawName>>();
  readonly opaque = new Set<DirectoryNode>();

  constructor(image: ErofsImage) {
    this.#image = image;
    this.#isVersion2 = image.header.composefsVersion === 2;
  }

  read(): DirectoryNode {
    const inode = this.#root();
    return this.#readTree(inode, inode.nid);
  }

  readBelow(names: readonly RawName[]): DirectoryNode | undefined {
    let inode = this.#root();
    let parentNid = inode.nid;
    for (const name of names) {
      const entry = this.#image.entries(inode).find((each) => each.name === name);
      if (entry === undefined || isDot(name)) return undefined;
      parentNid = inode.nid;
      inode = this.#image.inode(entry.nid);
      this.#checkType(entry, FILE_TYPES[inode.kind].direntType);
      if (inode.kind !== 'directory') return undefined;
    }
    return this.#readTree(inode, parentNid);
  }

  #root(): ImageInode {
    const inode = this.#image.inode(this.#image.rootNid);
    if (inode.kind !== 'directory') refuseImage('inode', inode.offset, `the root is a ${inode.kind}`);
    return inode;
  }

  #readTree(inode: ImageInode, parentNid: number): DirectoryNode {
    const root = this.#openDirectory(inode, parentNid);
    const stack = [root];
    for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
      const entry = frame.entries[frame.next++];
      if (entry === undefined) stack.pop();
      else {
        const child = this.#readEntry(frame, entry);
        if (child !== undefined) stack.push(child);
      }
    }
    return root.node;
  }

  /** Puts an entry into its directory; returns a frame when it is a directory itself. */
  #readEntry(frame: Frame, entry: ImageEntry): Frame | undefined {
    const seen = this.#seen.get(entry.nid);
    if (seen !== undefined) {
      this.#checkType(entry, seen.fileType);
      if (seen.node === undefined) return this.#hide(frame, entry);
      if (seen.node.kind === 'directory') this.#refuseEntry(entry, 'is another name of a directory');
      frame.node.entries.set(entry.name, { kind: 'hardlink', target: seen.node });
      return undefined;
    }
    const inode = this.#image.inode(entry.nid);
    this.#checkType(entry, FILE_TYPES[inode.kind].direntType);
    if (inode.kind === 'directory') {
      const child = this.#openDirectory(inode, frame.nid);
      frame.node.entries.set(entry.name, child.node);
      return child;
    }
    const node = this.#readLeaf(inode);
    this.#seen.set(entry.nid, { node, fileType: entry.fileType });
    if (node === undefined) return this.#hide(frame, entry);
    frame.node.entries.set(entry.name, node);
    return undefined;
  }

  #hide({ node }: Frame, { name }: ImageEntry): undefined {
    const names = this.hidden.get(node) ?? new Set();
    this.hidden.set(node, names.add(name));
  }

  /** Overlayfs believes the type in the entry, so it must be that of the inode. */
  #checkType(entry: ImageEntry, fileType: number): void {
    if (entry.fileType !== fileType) this.#refuseEntry(entry, `has file type ${entry.fileType}, not ${fileType}`);
  }

  #refuseEntry({ name, nid }: ImageEntry, problem: string): never {
    return refuseImage('inode', this.#image.offsetOf(nid), `entry "${displayRaw(name)}" ${problem}`);
  }

  #openDirectory(inode: ImageInode, parentNid: number): Frame {
    const entries = this.#image.entries(inode);
    const dots = entries.filter(({ name }) => isDot(name));
    if (dots.length !== 2 || dots[0]!.nid !== inode.nid || dots[1]!.nid !== parentNid) {
      refuseImage('inode', inode.offset, 'directory whose "." and ".." are missing or lead elsewhere');
    }
    const xattrs = this.#image.xattrs(inode);
    const node: DirectoryNode = { kind: 'directory', ...this.#metadata(inode, xattrs), entries: new Map() };
    if (xattrs.some(({ name, value }) => name === OPAQUE && rawFromBytes(value) === 'y')) this.opaque.add(node);
    this.#seen.set(inode.nid, { node, fileType: FILE_TYPES.directory.direntType });
    return { node, entries: entries.filter(({ name }) => !isDot(name)), nid: inode.nid, next: 0 };
  }

  /** Undefined for a stub. */
  #readLeaf(inode: ImageInode): LeafNode | undefined {
    const xattrs = this.#image.xattrs(inode);
    const common = { ...this.#metadata(inode, xattrs), nlink: inode.nlink };
    switch (inode.kind) {
      case 'file':
        if (!this.#isVersion2 && xattrs.some(({ name }) => name === WHITEOUT_MARK)) {
          return { kind: 'char', ...common, rdev: 0 };
        }
        return { kind: 'file', ...common, content: this.#fileContent(inode, xattrs) };
      case 'symlink':
        return { kind: 'symlink', ...common, target: this.#symlinkTarget(inode) };
      case 'char':
        // Version 2 has no stubs and leaves whiteouts as they are.
        if (inode.data !== 0 || this.#isVersion2) return { kind: 'char', ...common, rdev: inode.data };
        if (inode.nlink > 1) refuseImage('inode', inode.offset, `whiteout stub with ${inode.nlink} links`);
        return undefined;
      case 'block':
        return { kind: 'block', ...common, rdev: inode.data };
      case 'fifo':
      case 'socket':
        return { kind: inode.kind, ...common };
      case 'directory':
        return refuseImage('inode', inode.offset, 'directory where none can be');
    }
  }

  #fileContent(inode: ImageInode, xattrs: readonly ImageXattr[]): FileContent {
    const data = overlayDataOf(inode, xattrs);
    if (data !== undefined) return { kind: 'external', size: inode.size, ...data };
    if (inode.size > MAX_INLINE) refuseImage('inode', inode.offset, `inline content of ${inode.size} bytes`);
    return { kind: 'inline', bytes: this.#image.content(inode) };
  }

  #symlinkTarget(inode: ImageInode): RawName {
    const { size, offset } = inode;
    if (size < 1 || size > MAX_SYMLINK_TARGET) refuseImage('inode', offset, `symlink target of ${size} bytes`);
    const target = rawFromBytes(this.#image.content(inode));
    if (target.includes('\0')) refuseImage('inode', offset, 'symlink target with NUL');
    return target;
  }

  #metadata({ kind, mode, uid, gid, mtime }: ImageInode, xattrs: readonly ImageXattr[]): Metadata {
    return { mode, uid, gid, mtime, xattrs: treeXattrs(kind, xattrs, this.#isVersion2) };
  }
}

function isDot(name: RawName): boolean {
  return name === '.' || name === '..';
}

/** Names that the writer adds to whiteouts and the directories that hold them. */
const MARKS: ReadonlySet<string> = new Set([
  'trusted.overlay.overlay.whiteouts',
  'user.overlay.whiteout',
  'user.overlay.whiteouts',
]);

function treeXattrs(kind: NodeKind, xattrs: readonly ImageXattr[], isVersion2: boolean): Map<RawName, Uint8Array> {
  const own = new Map<RawName, Uint8Array>();
  for (const { name, value } of xattrs) {
    if (!isVersion2 && (MARKS.has(name) || (kind === 'file' && name === WHITEOUT_MARK))) continue;
    const given = unescapeXattrName(name);
    if (given !== undefined) own.set(given as RawName, value);
  }
  return own;
}
