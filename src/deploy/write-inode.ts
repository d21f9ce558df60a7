/**
 * Makes inodes on disk with everything that a node of a tree says about them. Each is made under a name that must be
 * free in an open directory, closed to others until its owner is set; capabilities and labels come after the owner,
 * because changing the owner drops them.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { DirectoryWalker, entryPath, selfPath } from '../sys/beneath.ts';
import { writeAll } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { rawToBytes, type RawName } from '../tree/name.ts';
import type { LeafNode, Metadata, SymlinkNode } from '../tree/node.ts';
import { isCarriedXattr, isLabelXattr } from './xattr-rules.ts';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = fs.constants;
const ACCESS_ACL = 'system.posix_acl_access' as RawName;

/** Makes a regular file. */
export function writeFile(
  host: Host,
  directoryFd: number,
  name: RawName,
  metadata: Metadata,
  content: Iterable<Uint8Array>,
): void {
  const path = entryPath(directoryFd, name);
  const fd = fs.openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    for (const chunk of content) writeAll(fd, chunk);
    fs.fchownSync(fd, metadata.uid, metadata.gid);
    dropInheritedAcl(host, path, metadata);
    fs.fchmodSync(fd, metadata.mode);
  } finally {
    fs.closeSync(fd);
  }
  setXattrs(host, path, metadata);
  host.syscalls.setMtime(path, metadata.mtime);
}

/** Makes a symlink. Its mode is the kernel's. */
export function writeSymlink(host: Host, directoryFd: number, name: RawName, node: SymlinkNode): void {
  const path = entryPath(directoryFd, name);
  fs.symlinkSync(Buffer.from(rawToBytes(node.target)), path);
  fs.lchownSync(path, node.uid, node.gid);
  setXattrs(host, path, node);
  host.syscalls.setMtime(path, node.mtime);
}

/**
 * Gives an open directory its owner, mode and xattrs, and takes away other xattrs than labels. To be done after its
 * entries are made: they would inherit its default ACL.
 */
export function setDirectoryAttributes(host: Host, fd: number, metadata: Metadata): void {
  fs.fchownSync(fd, metadata.uid, metadata.gid);
  dropXattrs(host, fd, (name) => !metadata.xattrs.has(name as RawName));
  fs.fchmodSync(fd, metadata.mode);
  setXattrs(host, selfPath(fd), metadata);
}

/** Takes away what an open directory inherited, so that its entries do not get it as well. */
export function dropXattrs(host: Host, fd: number, isChosen: (name: string) => boolean = () => true): void {
  const path = selfPath(fd);
  for (const name of host.syscalls.listXattrs(path).keys()) {
    if (isCarriedXattr(name) && !isLabelXattr(name) && isChosen(name)) host.syscalls.removeXattr(path, name);
  }
}

/** Where the inodes stand that were made below `rootFd`, for their further names. */
export class LinkedLeaves {
  readonly #places = new Map<LeafNode, { readonly directory: string; readonly name: RawName }>();
  readonly #walker: DirectoryWalker;

  constructor(rootFd: number) {
    this.#walker = new DirectoryWalker(rootFd);
  }

  remember(node: LeafNode, directory: string, name: RawName): void {
    this.#places.set(node, { directory, name });
  }

  /** Gives an inode made before one more name; false when it was not made yet. */
  link(node: LeafNode, directoryFd: number, name: RawName): boolean {
    const place = this.#places.get(node);
    if (place === undefined) return false;
    fs.linkSync(entryPath(this.#walker.enter(place.directory), place.name), entryPath(directoryFd, name));
    return true;
  }

  close(): void {
    this.#walker.close();
  }
}

/** The default ACL of the directory decides over new files until it is taken off them. */
function dropInheritedAcl(host: Host, path: Buffer, metadata: Metadata): void {
  if (metadata.xattrs.has(ACCESS_ACL)) return;
  try {
    host.syscalls.removeXattr(path, ACCESS_ACL);
  } catch (error) {
    // None there, or the file system has none at all.
    if (!['ENODATA', 'EOPNOTSUPP', 'ENOTSUP'].includes(errnoOf(error) ?? '')) throw error;
  }
}

function setXattrs(host: Host, path: Buffer, { xattrs }: Metadata): void {
  for (const [name, value] of xattrs) {
    try {
      host.syscalls.setXattr(path, name, value);
    } catch (error) {
      if (error instanceof HostctlError) throw error;
      throw new HostctlError(
        errnoOf(error) === 'ENOSPC' ? 'no-space' : 'io',
        `Cannot set the extended attribute "${name}" (${value.length} bytes): ${errnoOf(error) ?? String(error)}`,
        { cause: error },
      );
    }
  }
}
