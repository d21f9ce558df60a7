/**
 * Reads a directory of the running system into a tree, so that it can be compared with an image's. Follows no symlink
 * and survives names that come and go while it reads; contents are told apart by their verity digest, as in an image.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { objectPath } from '../format/fsverity/digest.ts';
import { digestOfFile } from '../store/file-digest.ts';
import { entryPath, openSubdirectory, selfPath, withDirectory } from '../sys/beneath.ts';
import { explainSystemError } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { compareRaw, displayRaw, rawFromBytes, type RawName } from '../tree/name.ts';
import type { DirectoryNode, FileContent, LeafNode, Metadata, VerityAlgorithm } from '../tree/node.ts';
import { INLINE_LIMIT } from '../tree/validate.ts';
import { isCarriedXattr } from './xattr-rules.ts';

/** A name went, or became something else, between being listed and being opened: as if it had not been listed. */
const GONE = ['ENOENT', 'ENOTDIR', 'ELOOP', 'EISDIR', 'ENXIO'];

/**
 * Reads the directory at `path` and everything below it. Sockets, fifos and devices are left out. Names of one inode
 * are hard links in the tree; link counts are of names below `path`. A file that is being written is read as it
 * happens to be. Throws 'io', 'not-root' or 'image-invalid', naming the file.
 */
export function scanDirectory(host: Host, path: string, algorithm: VerityAlgorithm): DirectoryNode {
  const doing = `Cannot read "${path}"`;
  try {
    return withDirectory(path, (rootFd) => scanOpen(host, rootFd, algorithm));
  } catch (error) {
    throw error instanceof HostctlError ? withContext(doing, error) : explainSystemError(error, doing);
  }
}

/** A directory being read: it is done when it has no more names. */
interface Frame {
  readonly fd: number;
  readonly path: string;
  readonly node: DirectoryNode;
  readonly rest: RawName[];
}

function scanOpen(host: Host, rootFd: number, algorithm: VerityAlgorithm): DirectoryNode {
  const inodes = new Map<string, LeafNode>();
  const root = readFrame(host, rootFd, '');
  const frames: Frame[] = [root];
  try {
    for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
      const name = frame.rest.pop();
      if (name === undefined) {
        frames.pop();
        if (frame !== root) fs.closeSync(frame.fd);
        continue;
      }
      const path = frame.path === '' ? name : `${frame.path}/${name}`;
      try {
        const child = scanEntry(host, frame, name, path, inodes, algorithm);
        if (child !== undefined) frames.push(child);
      } catch (error) {
        if (GONE.includes(errnoOf(error) ?? '')) continue;
        const doing = `Cannot read "${displayRaw(path as RawName)}"`;
        throw error instanceof HostctlError ? withContext(doing, error) : explainSystemError(error, doing);
      }
    }
  } finally {
    for (const frame of frames) if (frame !== root) fs.closeSync(frame.fd);
  }
  return root.node;
}

/** Adds one entry to the directory of `frame`; returns the frame of a directory, which has yet to be read. */
function scanEntry(
  host: Host,
  frame: Frame,
  name: RawName,
  path: string,
  inodes: Map<string, LeafNode>,
  algorithm: VerityAlgorithm,
): Frame | undefined {
  const at = entryPath(frame.fd, name);
  const stat = fs.lstatSync(at, { bigint: true });
  if (stat.isDirectory()) {
    const child = readFrame(host, openSubdirectory(frame.fd, name), path);
    frame.node.entries.set(name, child.node);
    return child;
  }
  if (!stat.isFile() && !stat.isSymbolicLink()) return undefined;
  const inode = `${stat.dev}:${stat.ino}`;
  const known = inodes.get(inode);
  if (known !== undefined) {
    known.nlink += 1;
    frame.node.entries.set(name, { kind: 'hardlink', target: known });
    return undefined;
  }
  const metadata = metadataOf(host, stat, at);
  let node: LeafNode;
  if (stat.isFile()) {
    const content = readContent(at, algorithm);
    if (content === undefined) return undefined;
    node = { kind: 'file', ...metadata, content, nlink: 1 };
  } else {
    node = { kind: 'symlink', ...metadata, target: rawFromBytes(fs.readlinkSync(at, 'buffer')), nlink: 1 };
  }
  frame.node.entries.set(name, node);
  if (stat.nlink > 1n) inodes.set(inode, node);
  return undefined;
}

/** Takes over `fd`. */
function readFrame(host: Host, fd: number, path: string): Frame {
  try {
    const metadata = metadataOf(host, fs.fstatSync(fd, { bigint: true }), selfPath(fd));
    const rest = fs.readdirSync(selfPath(fd), 'buffer').map(rawFromBytes).sort(compareRaw).reverse();
    return { fd, path, node: { kind: 'directory', ...metadata, entries: new Map() }, rest };
  } catch (error) {
    if (path !== '') fs.closeSync(fd);
    throw error;
  }
}

/** What an inode says of itself; only xattrs that go along with a copy. */
export function metadataOf(host: Host, stat: fs.BigIntStats, path: Buffer): Metadata {
  const xattrs = new Map<RawName, Uint8Array>();
  for (const [name, value] of host.syscalls.listXattrs(path)) {
    if (isCarriedXattr(name)) xattrs.set(name as RawName, value);
  }
  return {
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtime: timestamp(stat.mtimeNs),
    xattrs,
  };
}

function timestamp(nanoseconds: bigint): Metadata['mtime'] {
  const nsec = ((nanoseconds % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return { sec: (nanoseconds - nsec) / 1_000_000_000n, nsec: Number(nsec) };
}

/** Undefined when it is no file any more. */
function readContent(path: Buffer, algorithm: VerityAlgorithm): FileContent | undefined {
  // Should it have become a fifo in between, opening it must not wait for a writer.
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK);
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) return undefined;
    const { size } = stat;
    if (size <= INLINE_LIMIT) return { kind: 'inline', bytes: readSmall(fd) };
    const digest = digestOfFile(fd, algorithm, size);
    return { kind: 'external', size, digest, path: objectPath(digest) };
  } finally {
    fs.closeSync(fd);
  }
}

function readSmall(fd: number): Uint8Array {
  const buffer = Buffer.alloc(INLINE_LIMIT);
  const count = fs.readSync(fd, buffer, 0, buffer.length, 0);
  return buffer.subarray(0, count);
}
