/**
 * Carries an `/etc` merge out: what is local is copied, with all metadata, from the live directory into the `/etc` of
 * a new deployment that does not run yet. Nothing is written anywhere else, no symlink is followed on either side, and
 * a file is only taken over in a state in which it really was. Nothing is made durable here.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { DirectoryWalker, entryPath, removeEntry, selfPath, withDirectory } from '../sys/beneath.ts';
import { explainSystemError } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import type { DirectoryNode } from '../tree/node.ts';
import { splitEtcPath, type EtcLeaf } from './etc-diff.ts';
import type { EtcChange, EtcMergePlan } from './etc-merge.ts';
import { metadataOf } from './etc-scan.ts';
import { LinkedLeaves, setDirectoryAttributes, writeFile, writeSymlink } from './write-inode.ts';

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;
const READ_BYTES = 1 << 20;
/** A file that somebody is writing gets a second chance. */
const COPY_ATTEMPTS = 2;

/**
 * Applies `plan` to `newDirectory`, which holds the new image's default and nothing else: what an earlier attempt left
 * must be made anew. `localDirectory` is what the plan's local tree was scanned from. A file that was removed since is
 * left out, with a warning. Throws 'etc-conflict' when the plan has conflicts, or a file changes again and again while
 * it is copied; `newDirectory` is then of no use.
 */
export function applyEtcMerge(
  host: Host,
  plan: Pick<EtcMergePlan, 'changes' | 'conflicts'>,
  localDirectory: string,
  newDirectory: string,
): void {
  const [conflict] = plan.conflicts;
  if (conflict !== undefined) {
    throw new HostctlError('etc-conflict', `Cannot merge "/etc/${displayRaw(conflict.path)}": it ${conflict.reason}`);
  }
  const doing = `Cannot merge "${localDirectory}" into "${newDirectory}"`;
  try {
    withDirectory(localDirectory, (localFd) =>
      withDirectory(newDirectory, (newFd) => {
        refuseSame(localFd, newFd);
        new Merger(host, localFd, newFd).run(plan.changes);
      }),
    );
  } catch (error) {
    throw explain(error, doing);
  }
}

/** Merging a directory into itself would destroy it. */
function refuseSame(localFd: number, newFd: number): void {
  const [local, target] = [fs.fstatSync(localFd), fs.fstatSync(newFd)];
  if (local.dev === target.dev && local.ino === target.ino) {
    throw new HostctlError('internal', 'Both are the same directory');
  }
}

class Merger {
  readonly #host: Host;
  readonly #local: DirectoryWalker;
  readonly #target: DirectoryWalker;
  readonly #links: LinkedLeaves;
  /** Directories that get their attributes last, when nothing more is put into them. */
  readonly #directories: { readonly path: RawName; readonly node: DirectoryNode }[] = [];
  readonly #buffer = Buffer.allocUnsafe(READ_BYTES);

  constructor(host: Host, localFd: number, newFd: number) {
    this.#host = host;
    this.#local = new DirectoryWalker(localFd);
    this.#target = new DirectoryWalker(newFd);
    this.#links = new LinkedLeaves(newFd);
  }

  run(changes: readonly EtcChange[]): void {
    try {
      for (const change of changes) named(change.path, () => this.#apply(change));
      for (const { path, node } of this.#directories) {
        named(path, () => {
          const fd = this.#target.enter(path);
          setDirectoryAttributes(this.#host, fd, node);
          this.#host.syscalls.setMtime(selfPath(fd), node.mtime);
        });
      }
    } finally {
      this.#local.close();
      this.#target.close();
      this.#links.close();
    }
  }

  #apply(change: EtcChange): void {
    const { path } = change;
    if (change.kind === 'metadata') {
      this.#directories.push({ path, node: change.node });
      return;
    }
    const { parent, name } = splitEtcPath(path);
    const fd = this.#target.enter(parent);
    switch (change.kind) {
      case 'add':
        if (change.node.kind === 'directory') {
          fs.mkdirSync(entryPath(fd, name), 0o700);
          this.#directories.push({ path, node: change.node });
        } else {
          this.#addLeaf(fd, parent, name, change.node);
        }
        return;
      case 'replace':
        fs.unlinkSync(entryPath(fd, name));
        this.#addLeaf(fd, parent, name, change.node);
        return;
      case 'remove':
        removeEntry(fd, name);
    }
  }

  #addLeaf(fd: number, parent: RawName, name: RawName, node: EtcLeaf): void {
    if (this.#links.link(node, fd, name)) return;
    if (node.kind === 'symlink') writeSymlink(this.#host, fd, name, node);
    else if (!this.#copyFile(fd, parent, name)) return;
    this.#links.remember(node, parent, name);
  }

  /** Copies a regular file as it is now; false when it is gone. */
  #copyFile(fd: number, parent: RawName, name: RawName): boolean {
    for (let attempt = 1; ; attempt += 1) {
      const source = this.#openSource(parent, name);
      if (source === undefined) {
        const path = displayRaw(parent === '' ? name : (`${parent}/${name}` as RawName));
        this.#host.log.warn(`"/etc/${path}" was removed while it was being merged`);
        return false;
      }
      try {
        const before = fs.fstatSync(source.fd, { bigint: true });
        if (!before.isFile()) throw changed('it is no regular file any more');
        const pieces = readPieces(source.fd, Number(before.size), this.#buffer);
        writeFile(this.#host, fd, name, metadataOf(this.#host, before, source.path), pieces);
        if (isSame(before, source.path)) return true;
      } finally {
        fs.closeSync(source.fd);
      }
      if (attempt === COPY_ATTEMPTS) throw changed('it kept changing while it was being copied');
      fs.unlinkSync(entryPath(fd, name));
    }
  }

  #openSource(parent: RawName, name: RawName): { readonly fd: number; readonly path: Buffer } | undefined {
    try {
      const path = entryPath(this.#local.enter(parent), name);
      // Should it have become a fifo, opening it must not wait for a writer.
      return { fd: fs.openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK), path };
    } catch (error) {
      const code = errnoOf(error) ?? '';
      if (code === 'ENOENT') return undefined;
      if (['ELOOP', 'ENOTDIR', 'ENXIO'].includes(code)) throw changed('it is no regular file any more', error);
      throw error;
    }
  }
}

/** At most `sizeBytes`, so that a file that keeps growing has an end. Pieces share the buffer. */
function* readPieces(fd: number, sizeBytes: number, buffer: Buffer): Generator<Uint8Array> {
  for (let done = 0; done < sizeBytes;) {
    const count = fs.readSync(fd, buffer, 0, Math.min(buffer.length, sizeBytes - done), done);
    if (count === 0) return;
    yield buffer.subarray(0, count);
    done += count;
  }
}

/** Whether the name still leads to the same inode, and nobody wrote to it or changed its metadata. */
function isSame(before: fs.BigIntStats, path: Buffer): boolean {
  const after = fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return (
    after !== undefined &&
    (['dev', 'ino', 'size', 'mtimeNs', 'ctimeNs'] as const).every((field) => after[field] === before[field])
  );
}

function changed(how: string, cause?: unknown): HostctlError {
  return new HostctlError('etc-conflict', `It changed while it was being merged: ${how}`, {
    hint: 'Stop what writes to it, then run the command again',
    cause,
  });
}

function named(path: RawName, body: () => void): void {
  try {
    body();
  } catch (error) {
    throw explain(error, `Cannot merge "/etc/${displayRaw(path)}"`);
  }
}

function explain(error: unknown, doing: string): unknown {
  return error instanceof HostctlError ? withContext(doing, error) : explainSystemError(error, doing);
}
