/**
 * A directory on this host as a tree, as mkcomposefs takes one: every name becomes an inode of its own (hard links are
 * not detected), files of up to 64 bytes are kept, larger ones go into the object sink. Symlinks are never followed.
 */

import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import type { BigIntStats } from 'node:fs';

import { errnoOf, HostctlError } from '../errors.ts';
import { kindOfMode, MODE_PERMISSION_MASK } from '../format/erofs/file-type.ts';
import { objectPath } from '../format/fsverity/digest.ts';
import { displayRaw, rawFromBytes, rawFromText, rawToBytes, type RawName } from '../tree/name.ts';
import type { DirectoryNode, FileContent, Metadata, Timestamp, TreeNode } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';
import { INLINE_LIMIT } from '../tree/validate.ts';

export interface ReadDirectoryOptions {
  /** Every mtime becomes 0.0. */
  readonly useEpoch?: boolean;
  /** Leave out block and char devices, whiteouts among them. */
  readonly skipDevices?: boolean;
  /** Which xattrs to take; `user` is those of the user namespace. Default all. */
  readonly xattrs?: 'all' | 'user' | 'none';
  /** The xattrs of a path, not following a symlink. Not called for `none`. */
  readonly listXattrs: (path: Buffer) => ReadonlyMap<string, Uint8Array>;
}

const COPY_BUFFER_BYTES = 256 * 1024;
const NANOSECONDS = 1_000_000_000n;
const EPOCH: Timestamp = { sec: 0n, nsec: 0 };

/** The tree below `path`. Throws `io` naming the path for what cannot be read or changes while it is. */
export function readDirectoryTree(path: string, sink: ObjectSink, options: ReadDirectoryOptions): DirectoryNode {
  const reader = new DirectoryReader(sink, options);
  const top = rawFromText(path);
  const root = reader.readNode(top);
  if (root?.kind !== 'directory') throw new HostctlError('io', `Cannot read "${path}": it is no directory`);
  const queue = [{ path: top, directory: root }];
  for (const { path: parent, directory } of queue) {
    for (const name of listNames(parent)) {
      const child = `${parent}/${name}` as RawName;
      const node = reader.readNode(child);
      if (node === undefined) continue;
      directory.entries.set(name, node);
      if (node.kind === 'directory') queue.push({ path: child, directory: node });
    }
  }
  return root;
}

class DirectoryReader {
  readonly #sink: ObjectSink;
  readonly #options: ReadDirectoryOptions;
  readonly #buffer = Buffer.allocUnsafeSlow(COPY_BUFFER_BYTES);

  constructor(sink: ObjectSink, options: ReadDirectoryOptions) {
    this.#sink = sink;
    this.#options = options;
  }

  /** Undefined for what the options leave out. A directory comes without entries. */
  readNode(path: RawName): TreeNode | undefined {
    const stat = reading(path, () => lstatSync(bytesOf(path), { bigint: true }));
    const kind = kindOfMode(Number(stat.mode));
    if (kind === undefined) throw new HostctlError('io', `Cannot read "${displayRaw(path)}": unknown file type`);
    if (this.#options.skipDevices === true && (kind === 'char' || kind === 'block')) return undefined;
    const metadata = this.#metadata(path, stat);
    switch (kind) {
      case 'directory':
        return { kind, ...metadata, entries: new Map() };
      case 'file':
        return { kind, ...metadata, nlink: 1, content: this.#content(path, Number(stat.size)) };
      case 'symlink': {
        const target = reading(path, () => readlinkSync(bytesOf(path), { encoding: 'buffer' }));
        return { kind, ...metadata, nlink: 1, target: rawFromBytes(target) };
      }
      case 'char':
      case 'block':
        return { kind, ...metadata, nlink: 1, rdev: Number(BigInt.asUintN(32, stat.rdev)) };
      case 'fifo':
      case 'socket':
        return { kind, ...metadata, nlink: 1 };
    }
  }

  #metadata(path: RawName, { mode, uid, gid, mtimeNs }: BigIntStats): Metadata {
    return {
      mode: Number(mode) & MODE_PERMISSION_MASK,
      uid: Number(uid),
      gid: Number(gid),
      mtime: this.#options.useEpoch === true ? EPOCH : timestamp(mtimeNs),
      xattrs: this.#xattrs(path),
    };
  }

  #xattrs(path: RawName): Map<RawName, Uint8Array> {
    const { xattrs: wanted = 'all', listXattrs } = this.#options;
    const kept = new Map<RawName, Uint8Array>();
    if (wanted === 'none') return kept;
    for (const [name, value] of reading(path, () => listXattrs(bytesOf(path)))) {
      if (wanted === 'all' || name.startsWith('user.')) kept.set(name as RawName, value);
    }
    return kept;
  }

  #content(path: RawName, size: number): FileContent {
    if (size === 0) return { kind: 'inline', bytes: new Uint8Array(0) };
    if (size <= INLINE_LIMIT) {
      const pieces: Uint8Array[] = [];
      this.#pump(path, size, (piece) => pieces.push(piece.slice()));
      return { kind: 'inline', bytes: new Uint8Array(Buffer.concat(pieces)) };
    }
    const writer = this.#sink.create(size);
    try {
      this.#pump(path, size, (piece) => writer.write(piece));
      const digest = writer.finish();
      return { kind: 'external', size, digest, path: objectPath(digest) };
    } finally {
      writer.abort();
    }
  }

  /** Hands over the content of a file piece by piece: exactly `size` bytes of the regular file found before. */
  #pump(path: RawName, size: number, take: (piece: Uint8Array) => void): void {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const fd = reading(path, () => openSync(bytesOf(path), flags));
    try {
      if (!fstatSync(fd).isFile()) throw changed(path);
      let left = size;
      for (;;) {
        const length = reading(path, () => readSync(fd, this.#buffer, 0, COPY_BUFFER_BYTES, null));
        if (length > left || (length === 0 && left > 0)) throw changed(path);
        if (length === 0) return;
        take(this.#buffer.subarray(0, length));
        left -= length;
      }
    } finally {
      closeSync(fd);
    }
  }
}

function listNames(path: RawName): RawName[] {
  return reading(path, () => readdirSync(bytesOf(path), { encoding: 'buffer' })).map(rawFromBytes);
}

function bytesOf(path: RawName): Buffer {
  return Buffer.from(rawToBytes(path));
}

/** Nanoseconds since the epoch, rounded towards the past for times before it. */
function timestamp(nanoseconds: bigint): Timestamp {
  const nsec = ((nanoseconds % NANOSECONDS) + NANOSECONDS) % NANOSECONDS;
  return { sec: (nanoseconds - nsec) / NANOSECONDS, nsec: Number(nsec) };
}

function changed(path: RawName): HostctlError {
  return new HostctlError('io', `Cannot read "${displayRaw(path)}": it changes while it is read`);
}

function reading<T>(path: RawName, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new HostctlError('io', `Cannot read "${displayRaw(path)}": ${errnoOf(error) ?? 'failed'}`, { cause: error });
  }
}
