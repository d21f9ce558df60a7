/**
 * File-system primitives that loop over short writes and never swallow a count or an error, and the durable steps
 * built from them. Everything is synchronous: a step is not interrupted by a signal handler half way.
 * Temporary names are recognisable (`.NAME.RANDOM.tmp`) so that what a crash leaves can be found and removed.
 */

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY, O_DIRECTORY } = fs.constants;

const CHUNK_BYTES = 1 << 20;
/** Unit of `st_blocks`, whatever the file system's own is. */
const SECTOR_BYTES = 512;

/** Matches the temporary names made by `temporaryName`. */
export const TEMPORARY_NAME = /^\..+\.[0-9a-f]{16}\.tmp$/;

export function temporaryName(name: string): string {
  return `.${name}.${randomBytes(8).toString('hex')}.tmp`;
}

/** Writes all of `bytes`, however often the kernel takes only a part; from where `fd` stands if not told from where. */
export function writeAll(fd: number, bytes: Uint8Array, position?: number): void {
  let done = 0;
  while (done < bytes.length) {
    const at = position === undefined ? null : position + done;
    const written = fs.writeSync(fd, bytes, done, bytes.length - done, at);
    if (written === 0) throw new HostctlError('io', `Cannot write to descriptor ${fd}: nothing was taken`);
    done += written;
  }
}

/** Makes the content and metadata of a file or the names in a directory durable. */
export function fsyncPath(path: string): void {
  const fd = fs.openSync(path, O_RDONLY | O_NOFOLLOW);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Creates `path`, which must not exist, with final content, mode and durable data. The name is not yet durable. */
export function createFile(path: string, content: string | Uint8Array | Iterable<Uint8Array>, mode: number): void {
  const fd = fs.openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  try {
    fs.fchmodSync(fd, mode);
    if (typeof content === 'string') writeAll(fd, Buffer.from(content));
    else if (content instanceof Uint8Array) writeAll(fd, content);
    else for (const chunk of content) writeAll(fd, chunk);
    fs.fsyncSync(fd);
    fs.closeSync(fd);
  } catch (error) {
    // The data is lost: never fsync again and go on. The first error is the one to report.
    closeQuietly(fd);
    removeQuietly(path);
    throw error;
  }
}

/**
 * Overwrites a file of this very length from its beginning, by one write unless the kernel takes only a part: the one
 * exception to the rule that nothing is written in place, for what a boot loader writes so too. Durable when it returns.
 */
export function overwriteFile(path: string, bytes: Uint8Array): void {
  const fd = fs.openSync(path, O_WRONLY | O_NOFOLLOW);
  try {
    writeAll(fd, bytes, 0);
    fs.fdatasyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Replaces a small state file by temporary file, fsync, rename, fsync of the directory. For journalled file systems
 * and files that no boot loader reads. The directory is opened first: a lack of descriptors must change nothing.
 */
export function replaceFile(path: string, bytes: Uint8Array | string, mode = 0o644): void {
  const { directory, name } = split(path);
  const temporary = `${directory}/${temporaryName(name)}`;
  const fd = fs.openSync(directory, O_RDONLY | O_DIRECTORY);
  try {
    createFile(temporary, bytes, mode);
    fs.renameSync(temporary, path);
    fs.fsyncSync(fd);
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Creates missing directories from `base` (which exists) down to `base/relative`, and makes them durable; also those
 * that are there already, since the command that made them may have died before it synced them. Innermost first: on FAT
 * the name of a directory leads nowhere until its first cluster is allocated on disk.
 */
export function makeDirectories(base: string, relative: string, mode = 0o755): string {
  const chain = [base === '' ? '/' : base];
  let path = base;
  for (const part of relative.split('/').filter(Boolean)) {
    path = `${path}/${part}`;
    chain.unshift(path);
    if (isDirectory(path)) continue;
    try {
      fs.mkdirSync(path, mode);
    } catch (error) {
      // Another command made it this moment.
      if (errnoOf(error) === 'EEXIST' && isDirectory(path)) continue;
      throw error;
    }
    // The umask must not decide who can read a host's state. Only where it did: on FAT a changed directory gets its name
    // on disk before its cluster.
    if ((mode & process.umask()) !== 0) fs.chmodSync(path, mode);
  }
  chain.forEach(fsyncPath);
  return path;
}

/** Reads a file of at most `maxBytes`, which must be a regular file; undefined when it does not exist. */
export function readSmallFile(path: string, maxBytes = 65536): Uint8Array | undefined {
  let fd: number;
  try {
    fd = fs.openSync(path, O_RDONLY | O_NOFOLLOW | fs.constants.O_NONBLOCK);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new HostctlError('state-invalid', `"${path}" is not a regular file`);
    if (stat.size > maxBytes) {
      throw new HostctlError('state-invalid', `"${path}" has ${stat.size} bytes, more than the ${maxBytes} allowed`);
    }
    return fs.readFileSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** The content of a file in pieces; each piece is overwritten by the next. */
export function* fileChunks(path: string): Generator<Uint8Array, void, undefined> {
  const fd = fs.openSync(path, O_RDONLY | O_NOFOLLOW);
  try {
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    for (;;) {
      const count = fs.readSync(fd, buffer, 0, buffer.length, null);
      if (count === 0) return;
      yield buffer.subarray(0, count);
    }
  } finally {
    fs.closeSync(fd);
  }
}

export function readSmallText(path: string, maxBytes?: number): string | undefined {
  const bytes = readSmallFile(path, maxBytes);
  return bytes === undefined ? undefined : Buffer.from(bytes).toString('utf8');
}

/** Names in a directory, sorted; empty when the directory does not exist. */
export function listNames(directory: string): string[] {
  try {
    return fs.readdirSync(directory).sort();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

export function isDirectory(path: string): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

export function isRegularFile(path: string): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** Whether anything has this name; a dangling symlink counts. */
export function exists(path: string): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Best-effort removal of our own temporary file while another error is on its way. */
export function removeQuietly(path: string): void {
  try {
    fs.rmSync(path, { recursive: true, force: true });
  } catch {
    // The error that brought us here says more; what is left has a temporary name and gc removes it.
  }
}

function closeQuietly(fd: number): void {
  try {
    fs.closeSync(fd);
  } catch {
    // See `createFile`: the first error is the one to report.
  }
}

/** Opens a directory for `flock`, `syncfs` or `fsync`. */
export function openDirectory(path: string): number {
  return fs.openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

export function split(path: string): { directory: string; name: string } {
  const slash = path.lastIndexOf('/');
  return { directory: slash === 0 ? '/' : slash < 0 ? '.' : path.slice(0, slash), name: path.slice(slash + 1) };
}

export interface FreeSpace {
  /** Without what is reserved for root. */
  readonly freeBytes: number;
  /** What a file's size is rounded up to. */
  readonly unitBytes: number;
  /** Infinity where the file system makes inodes as it needs them. */
  readonly freeInodes: number;
}

/** What is free on the file system at `path`. */
export function freeSpace(path: string): FreeSpace {
  const { bavail, bsize, files, ffree } = fs.statfsSync(path);
  return { freeBytes: bavail * bsize, unitBytes: bsize, freeInodes: files === 0 ? Infinity : ffree };
}

/** A system error as the error a user can act on; HostctlErrors pass unchanged. */
export function explainSystemError(error: unknown, doing: string): HostctlError {
  if (error instanceof HostctlError) return error;
  const code = errnoOf(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new HostctlError('no-space', `${doing}: no space left on the device`, {
      hint: 'Free space or enlarge the file system, then run the command again',
      cause: error,
    });
  }
  if (code === 'EROFS') {
    return new HostctlError('read-only', `${doing}: the file system is read-only`, {
      hint: 'Remount it writable, or choose another --sysroot or --boot',
      cause: error,
    });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return new HostctlError('not-root', `${doing}: permission denied`, { hint: 'Run as root', cause: error });
  }
  if (code !== undefined) {
    return new HostctlError('io', `${doing}: ${(error as Error).message}`, { cause: error });
  }
  return new HostctlError('internal', `${doing}: ${error instanceof Error ? error.message : String(error)}`, {
    cause: error,
  });
}

/** Tells file systems apart: two paths on one have the same. */
export function deviceOf(path: string): number {
  return fs.statSync(path).dev;
}

/** Bytes that a file, or a directory with everything below it, takes on its file system. Follows no symlink. */
export function allocatedBytes(path: string | Buffer): number {
  const stat = fs.lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 0;
  const own = stat.blocks * SECTOR_BYTES;
  if (!stat.isDirectory()) return own;
  const prefix = Buffer.concat([typeof path === 'string' ? Buffer.from(path) : path, Buffer.from('/')]);
  return fs.readdirSync(path, 'buffer').reduce((sum, name) => sum + allocatedBytes(Buffer.concat([prefix, name])), own);
}
