/**
 * The file-system model that everything meets in: layers are flattened into it, the EROFS writer lays it out, the
 * EROFS reader and the dump parser produce it. Pure data.
 *
 * Hard links: a finished tree holds each inode at exactly one name; every further name is a `hardlink` entry that
 * refers to that node object. The name that carries the inode decides where the writer places it
 * (`format/erofs/plan.ts`); trees of our own making choose the first name in depth-first byte order.
 */

import type { RawName } from './name.ts';

export type VerityAlgorithm = 'sha256' | 'sha512';

/** fs-verity digest, lower-case hex: 64 digits for sha256, 128 for sha512. Made by `format/fsverity/digest.ts` only. */
export type VerityDigest = string & { readonly __brand: 'VerityDigest' };

export interface Timestamp {
  /** Seconds since the epoch, signed 64 bit. */
  readonly sec: bigint;
  /** 0…999,999,999. */
  readonly nsec: number;
}

/** What every inode has. */
export interface Metadata {
  /** Permission bits only (07777); the type is the node's `kind`. */
  mode: number;
  uid: number;
  gid: number;
  mtime: Timestamp;
  /** Full xattr name to value. Insertion order carries no meaning. Nodes may share one, so it is replaced, never changed. */
  xattrs: ReadonlyMap<RawName, Uint8Array>;
}

/** What almost all nodes have: a million maps of their own would take more memory than the nodes. */
export const NO_XATTRS: ReadonlyMap<RawName, Uint8Array> = new Map();

export interface DirectoryNode extends Metadata {
  readonly kind: 'directory';
  /** Insertion order carries no meaning; consumers sort by bytes. Never holds "." or "..". */
  readonly entries: Map<RawName, TreeEntry>;
}

/** Content of a regular file: in the image, or in an object. */
export type FileContent =
  | { readonly kind: 'inline'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'external';
      /** Bytes, > 0. */
      readonly size: number;
      /** Absent: the file mounts without verification (a dump can say so; a flattened image never does). */
      readonly digest?: VerityDigest;
      /** Path in the object store, normally `xx/rest`. Absent: metacopy without redirect. */
      readonly path?: RawName;
      /** The content, for the few files that a transform of the tree reads (the SELinux policy). */
      readonly bytes?: Uint8Array;
    };

export type ExternalContent = Extract<FileContent, { kind: 'external' }>;

export interface FileNode extends Metadata {
  readonly kind: 'file';
  /** Empty files are inline with zero bytes. */
  content: FileContent;
  nlink: number;
}

export interface SymlinkNode extends Metadata {
  readonly kind: 'symlink';
  /** 1…4095 bytes. */
  readonly target: RawName;
  nlink: number;
}

export interface DeviceNode extends Metadata {
  readonly kind: 'block' | 'char';
  /** The kernel's 32-bit encoding (`new_encode_dev`). */
  readonly rdev: number;
  nlink: number;
  /** Size a dump line stated; it is never stored, but can force the extended inode form. */
  readonly statedSize?: bigint;
}

export interface SpecialNode extends Metadata {
  readonly kind: 'fifo' | 'socket';
  nlink: number;
  /** As in `DeviceNode`. */
  readonly statedSize?: bigint;
}

/** An inode that may have several names. */
export type LeafNode = FileNode | SymlinkNode | DeviceNode | SpecialNode;
export type TreeNode = DirectoryNode | LeafNode;

/** A further name of an inode that has its place elsewhere in the tree. */
export interface HardlinkEntry {
  readonly kind: 'hardlink';
  readonly target: LeafNode;
}

export type TreeEntry = TreeNode | HardlinkEntry;

/** Of an empty file. */
export const NO_CONTENT: FileContent = { kind: 'inline', bytes: new Uint8Array(0) };

/** Bytes of a file. */
export function contentSize(content: FileContent): number {
  return content.kind === 'inline' ? content.bytes.length : content.size;
}

/** The inode an entry names. */
export function inodeOf(entry: TreeEntry): TreeNode {
  return entry.kind === 'hardlink' ? entry.target : entry;
}

/** Gives one inode what another has beside its content; xattrs are shared then. */
export function copyMetadata(from: Metadata, to: Metadata): void {
  to.mode = from.mode;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mtime = from.mtime;
  to.xattrs = from.xattrs;
}

/** `(major, minor)` in the kernel's 32-bit `dev_t` encoding. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** What `encodeDevice` made one number of. */
export function decodeDevice(rdev: number): { readonly major: number; readonly minor: number } {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}
