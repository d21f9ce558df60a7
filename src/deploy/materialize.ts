/**
 * Writes a tree, or the part of one below a directory, to disk: the first `/etc` and `/var` of a deployment. Every
 * name gets the owner, mode, time, xattrs and links that the tree gives it. Nothing is made durable here: the caller
 * syncs the file system once when all is written.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { parseVerityDigest, VerityHasher } from '../format/fsverity/digest.ts';
import { objectFile, type Repository } from '../store/repository.ts';
import { entryPath, openSubdirectory, removeEntry, selfPath, withDirectory } from '../sys/beneath.ts';
import { explainSystemError, split } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { compareRaw, displayRaw, rawFromText, type RawName } from '../tree/name.ts';
import { inodeOf, type DirectoryNode, type FileNode, type LeafNode, type TreeEntry } from '../tree/node.ts';
import { dropXattrs, LinkedLeaves, setDirectoryAttributes, writeFile, writeSymlink } from './write-inode.ts';

/** Gives the bytes of a file, all at once or in pieces; a piece is used before the next one is asked for. */
export type ContentSource = (file: FileNode) => Uint8Array | Iterable<Uint8Array>;

const READ_BYTES = 1 << 20;

/**
 * Writes `directory` and everything below it as `target`, which must not exist in an existing directory. Devices,
 * fifos and sockets are left out. A hard link whose other name lies outside `directory` becomes a file of its own. Takes `target` away again
 * when it fails; a crash leaves what was written. Needs root unless every node belongs to the caller.
 */
export function materializeTree(host: Host, directory: DirectoryNode, target: string, contentOf: ContentSource): void {
  const doing = `Cannot write "${target}"`;
  try {
    fs.mkdirSync(target, 0o700);
  } catch (error) {
    throw explainSystemError(error, doing);
  }
  try {
    withDirectory(target, (rootFd) => {
      dropXattrs(host, rootFd);
      writeEntries(host, directory, rootFd, contentOf);
      setDirectoryAttributes(host, rootFd, directory);
      host.syscalls.setMtime(selfPath(rootFd), directory.mtime);
    });
  } catch (error) {
    removeTarget(target);
    throw error instanceof HostctlError ? withContext(doing, error) : explainSystemError(error, doing);
  }
}

/** Best effort while another error is on its way, which says more. */
function removeTarget(target: string): void {
  const { directory, name } = split(target);
  try {
    withDirectory(directory, (fd) => removeEntry(fd, rawFromText(name)));
  } catch {
    // What is left stands in a deployment that no entry names; gc removes it.
  }
}

/** A directory being written: it is finished when it has no more entries. */
interface Frame {
  readonly fd: number;
  readonly path: string;
  readonly node: DirectoryNode;
  readonly rest: (readonly [RawName, TreeEntry])[];
}

function writeEntries(host: Host, root: DirectoryNode, rootFd: number, contentOf: ContentSource): void {
  const links = new LinkedLeaves(rootFd);
  const frames: Frame[] = [frameOf(root, rootFd, '')];
  try {
    for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
      const next = frame.rest.pop();
      if (next === undefined) {
        frames.pop();
        if (frame.fd !== rootFd) finishDirectory(host, frame);
        continue;
      }
      const [name, entry] = next;
      const node = inodeOf(entry);
      const path = frame.path === '' ? name : `${frame.path}/${name}`;
      try {
        if (node.kind === 'directory') {
          fs.mkdirSync(entryPath(frame.fd, name), 0o700);
          frames.push(frameOf(node, openSubdirectory(frame.fd, name), path));
        } else if (!links.link(node, frame.fd, name)) {
          if (writeLeaf(host, frame.fd, name, node, contentOf)) links.remember(node, frame.path, name);
        }
      } catch (error) {
        throw explain(error, path);
      }
    }
  } finally {
    links.close();
    for (const { fd } of frames) if (fd !== rootFd) fs.closeSync(fd);
  }
}

function frameOf(node: DirectoryNode, fd: number, path: string): Frame {
  return { fd, path, node, rest: [...node.entries].sort(([a], [b]) => compareRaw(b, a)) };
}

function finishDirectory(host: Host, { fd, node, path }: Frame): void {
  try {
    setDirectoryAttributes(host, fd, node);
    host.syscalls.setMtime(selfPath(fd), node.mtime);
  } catch (error) {
    throw explain(error, path);
  } finally {
    fs.closeSync(fd);
  }
}

/** Makes the inode; false when there is nothing to make. */
function writeLeaf(host: Host, fd: number, name: RawName, node: LeafNode, contentOf: ContentSource): boolean {
  switch (node.kind) {
    case 'file': {
      const content = contentOf(node);
      writeFile(host, fd, name, node, content instanceof Uint8Array ? [content] : content);
      return true;
    }
    case 'symlink':
      writeSymlink(host, fd, name, node);
      return true;
    case 'block':
    case 'char':
    case 'fifo':
    case 'socket':
      // Metadata of the image, never made on the host: a device node is a way into it.
      return false;
  }
}

function explain(error: unknown, path: string): unknown {
  const doing = `Cannot write "${displayRaw(path as RawName)}"`;
  return error instanceof HostctlError ? withContext(doing, error) : explainSystemError(error, doing);
}

/**
 * The content of files of an image in `repository`. What comes out has been checked once the last piece is taken:
 * throws 'corrupt', naming the object, when it is missing, has another size or another digest than the image says.
 * Pieces share one buffer.
 */
export function repositoryContent(repository: Repository): (file: FileNode) => Iterable<Uint8Array> {
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  return ({ content }) => {
    if (content.kind === 'inline') return [content.bytes];
    if (content.digest === undefined) {
      throw new HostctlError('image-invalid', 'Cannot read a file whose content the image gives no verity digest for');
    }
    return readObject(repository, parseVerityDigest(content.digest, repository.algorithm), content.size, buffer);
  };
}

function* readObject(repository: Repository, digest: string, size: number, buffer: Buffer): Generator<Uint8Array> {
  const fd = openObject(repository, digest);
  try {
    // Also with fs-verity on: the kernel vouches for what the file measures to, not that it has the right name.
    const hasher = new VerityHasher(repository.algorithm);
    for (;;) {
      const count = readPiece(fd, digest, buffer);
      if (count === 0) break;
      hasher.update(buffer.subarray(0, count));
      if (hasher.sizeBytes > size) throw damaged(digest, `it has more than ${size} bytes`);
      yield buffer.subarray(0, count);
    }
    if (hasher.sizeBytes !== size) throw damaged(digest, `it has ${hasher.sizeBytes} bytes, not ${size}`);
    if (hasher.digest() !== digest) throw damaged(digest, 'its content is another');
  } finally {
    fs.closeSync(fd);
  }
}

function openObject(repository: Repository, digest: string): number {
  try {
    return fs.openSync(objectFile(repository, digest), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? '')) throw damaged(digest, 'it is missing', error);
    throw error;
  }
}

function readPiece(fd: number, digest: string, buffer: Buffer): number {
  try {
    return fs.readSync(fd, buffer, 0, buffer.length, null);
  } catch (error) {
    // What fs-verity and a broken disk both answer.
    if (errnoOf(error) === 'EIO') throw damaged(digest, 'it cannot be read', error);
    throw error;
  }
}

function damaged(digest: string, how: string, cause?: unknown): HostctlError {
  return new HostctlError('corrupt', `The object ${digest} is damaged: ${how}`, {
    hint: 'Deploy or pull the image again; a damaged object is then replaced',
    cause,
  });
}
