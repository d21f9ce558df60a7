/**
 * Objects: files named by the fs-verity digest of their content, written once and never changed.
 *
 * An object is published at once under its name, before it is durable, and one barrier at the end makes all of them
 * durable; a dirty marker stands from before the first one until after the barrier, so that nothing published by a
 * command that died is trusted for its name alone. With fs-verity on, the kernel's measurement is enough.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { fsverityDigest, VerityHasher } from '../format/fsverity/digest.ts';
import type { DiffId } from '../format/oci/digest.ts';
import { isDirectory, openDirectory, removeQuietly, split, temporaryName, writeAll } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { ObjectSink, ObjectWriter } from '../tree/objects.ts';
import type { VerityDigest } from '../tree/node.ts';
import { digestOfFile } from './file-digest.ts';
import { createDirtyMarker, deadMarkers, type DirtyMarker } from './markers.ts';
import { objectFile, type ObjectPlace } from './repository.ts';

/** Content up to this size is held in memory until its digest is known, so that a known object is not written. */
const BUFFERED_BYTES = 256 * 1024;
/** So much is published before it is written back. */
const WRITE_BACK_BYTES = 256 << 20;
const { O_RDONLY, O_RDWR, O_NOFOLLOW } = fs.constants;
/** Not in Node's constants: __O_TMPFILE | O_DIRECTORY, the same on every architecture Node runs on. */
const O_TMPFILE = 0o20000000 | fs.constants.O_DIRECTORY;
const OBJECT_MODE = 0o644;
const ETXTBSY_TRIES = 200;

export interface ObjectCounts {
  writtenObjects: number;
  writtenBytes: number;
  reusedObjects: number;
}

/** An `ObjectSink` that stores. Open it, write through it, then `barrier()`; `close()` in any case. */
export class ObjectStore implements ObjectSink {
  readonly algorithm: ObjectPlace['algorithm'];
  readonly counts: ObjectCounts = { writtenObjects: 0, writtenBytes: 0, reusedObjects: 0 };
  /** Every object this run published, for taking them back when it fails. */
  readonly published = new Set<VerityDigest>();
  /** Images this run made mountable, likewise. */
  readonly newImages = new Set<VerityDigest>();
  /** Layers this run recorded, likewise. */
  readonly newLayers = new Set<DiffId>();
  readonly #host: Host;
  readonly #place: ObjectPlace;
  /** Whether a directory of objects that is there was made by this run: then it holds only what is in `published`. */
  readonly #directories = new Map<string, boolean>();
  readonly #buffer = Buffer.allocUnsafe(BUFFERED_BYTES);
  /** Known to be damaged: these are written again whatever stands under their names. */
  readonly #distrusted: ReadonlySet<string>;
  /** A dead command left doubt: names alone prove nothing. */
  readonly #suspicious: boolean;
  /** Whether new files come without some bits of `OBJECT_MODE`; unknown before the first. */
  #isMasked: boolean | undefined;
  /** Open from before the first write: the barrier then hears of every write that failed since. */
  readonly #barrierFd: number;
  /** Published since what there was began to be written back, and whether that goes on. */
  #newBytes = 0;
  #isWritingBack = false;
  #marker: DirtyMarker | undefined;

  /** The caller holds the shared repository lock until its image is committed. */
  constructor(host: Host, place: ObjectPlace, distrusted: ReadonlySet<string> = new Set()) {
    this.#host = host;
    this.#distrusted = distrusted;
    this.#place = place;
    this.algorithm = place.algorithm;
    this.#suspicious = deadMarkers(host.syscalls, place.markersPath).length > 0;
    this.#barrierFd = openDirectory(place.objectsPath);
  }

  create(sizeBytes: number): ObjectWriter {
    return sizeBytes <= BUFFERED_BYTES ? this.#bufferedWriter(sizeBytes) : this.#streamingWriter(sizeBytes);
  }

  /** Stores bytes that are in memory. */
  put(bytes: Uint8Array): VerityDigest {
    const digest = fsverityDigest(this.algorithm, bytes);
    if (!this.#isPresent(digest, bytes.length)) this.#publish(digest, bytes.length, (fd) => writeAll(fd, bytes));
    else this.counts.reusedObjects += 1;
    return digest;
  }

  /** Whether an object is here and may be trusted, by the same look that spares writing it. */
  has(digest: VerityDigest, sizeBytes: number): boolean {
    return this.#isPresent(digest, sizeBytes);
  }

  /**
   * Makes everything published so far durable, then takes the dirty marker away. What was found here and reused counts
   * too: another command, alive or dead, may have published it without having come to its own barrier.
   */
  barrier(): void {
    this.#host.syscalls.syncfs(this.#barrierFd, this.#place.objectsPath);
    this.#marker?.release();
    this.#marker = undefined;
  }

  /** Ends the use of the store. Without a `barrier()` before, the marker stays and says that there is doubt. */
  close(): void {
    fs.closeSync(this.#barrierFd);
    this.#marker?.abandon();
    this.#marker = undefined;
  }

  #bufferedWriter(sizeBytes: number): ObjectWriter {
    // One small object is open at a time: entries of a layer follow each other.
    const buffer = this.#buffer;
    let length = 0;
    return {
      write: (chunk) => {
        if (length + chunk.length > sizeBytes) throw overlong(sizeBytes);
        buffer.set(chunk, length);
        length += chunk.length;
      },
      finish: () => {
        if (length !== sizeBytes) throw tooShort(length, sizeBytes);
        return this.put(buffer.subarray(0, length));
      },
      abort: () => undefined,
    };
  }

  #streamingWriter(sizeBytes: number): ObjectWriter {
    const hasher = new VerityHasher(this.algorithm);
    const file = this.#openUnnamed(this.#objectDirectory('00'));
    let length = 0;
    return {
      write: (chunk) => {
        length += chunk.length;
        if (length > sizeBytes) throw overlong(sizeBytes);
        hasher.update(chunk);
        writeAll(file.fd, chunk);
      },
      finish: () => {
        try {
          if (length !== sizeBytes) throw tooShort(length, sizeBytes);
          const digest = hasher.digest();
          if (this.#isPresent(digest, sizeBytes)) {
            this.counts.reusedObjects += 1;
            file.discard();
          } else {
            this.#nameObject(file, digest, sizeBytes);
          }
          return digest;
        } catch (error) {
          file.discard();
          throw error;
        }
      },
      abort: () => file.discard(),
    };
  }

  #publish(digest: VerityDigest, sizeBytes: number, fill: (fd: number) => void): void {
    const file = this.#openUnnamed(this.#objectDirectory(digest.slice(0, 2)));
    try {
      fill(file.fd);
      this.#nameObject(file, digest, sizeBytes);
    } catch (error) {
      file.discard();
      throw error;
    }
  }

  /**
   * Whether the object is there and may be trusted. A damaged one is as good as absent, and is replaced. In a directory
   * that this run made nothing is looked for; what another command puts there meanwhile is met when the name is taken.
   */
  #isPresent(digest: VerityDigest, sizeBytes: number): boolean {
    if (this.published.has(digest)) return true;
    if (this.#distrusted.has(digest) || this.#directories.get(digest.slice(0, 2)) === true) return false;
    return this.#isStored(digest, sizeBytes);
  }

  #isStored(digest: VerityDigest, sizeBytes: number): boolean {
    const path = objectFile(this.#place, digest);
    const stat = fs.lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isFile() !== true || stat.size !== sizeBytes) return false;
    if (!this.#place.hasVerity && !this.#suspicious) return true;
    let fd: number;
    try {
      fd = fs.openSync(path, O_RDONLY | O_NOFOLLOW);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
    try {
      if (!this.#place.hasVerity) return digestOfFile(fd, this.algorithm) === digest;
      const measured = this.#host.syscalls.measureVerity(fd);
      // Without fs-verity where the file system has it, a command died between the two steps, or someone copied it in.
      return measured.kind === 'enabled' && measured.digestHex === digest;
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Gives a filled file its verity and its name. Somebody else's equal object is as good. */
  #nameObject(file: UnnamedFile, digest: VerityDigest, sizeBytes: number): void {
    this.#objectDirectory(digest.slice(0, 2));
    const target = objectFile(this.#place, digest);
    if (this.#place.hasVerity) file.protect(this.algorithm);
    if (file.link(target)) {
      this.#notePublished(digest, sizeBytes);
      return;
    }
    if (!this.#distrusted.has(digest) && this.#isStored(digest, sizeBytes)) {
      this.counts.reusedObjects += 1;
      return;
    }
    // A damaged object stands under the name: the whole one takes its place by rename, readers keep the old inode.
    // Only a directory cannot be replaced so; under this name it is nobody's.
    if (isDirectory(target)) fs.rmSync(target, { recursive: true });
    file.replace(target);
    this.#notePublished(digest, sizeBytes);
  }

  #notePublished(digest: VerityDigest, sizeBytes: number): void {
    this.published.add(digest);
    this.counts.writtenObjects += 1;
    this.counts.writtenBytes += sizeBytes;
    this.#newBytes += sizeBytes;
    if (this.#newBytes >= WRITE_BACK_BYTES && !this.#isWritingBack) this.#startWriteBack();
  }

  /** Has the disk work while the processors do, so that the barrier finds little to wait for. */
  #startWriteBack(): void {
    // Each descriptor hears of a write error once: the one of the barrier is left alone.
    const fd = openDirectory(this.#place.objectsPath);
    this.#newBytes = 0;
    this.#isWritingBack = true;
    this.#host.syscalls.startSyncfs(fd, () => {
      fs.closeSync(fd);
      this.#isWritingBack = false;
    });
  }

  /** `objects/xx`, made when missing. The dirty marker is durable before anything is created. */
  #objectDirectory(prefix: string): string {
    this.#marker ??= createDirtyMarker(this.#host.syscalls, this.#place.markersPath);
    const path = `${this.#place.objectsPath}/${prefix}`;
    if (this.#directories.has(prefix)) return path;
    let isNew = true;
    try {
      fs.mkdirSync(path, 0o755);
      fs.chmodSync(path, 0o755);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      isNew = false;
    }
    this.#directories.set(prefix, isNew);
    return path;
  }

  #openUnnamed(directory: string): UnnamedFile {
    const file = openUnnamed(this.#host, directory);
    // The mask of the process is the same for all of them.
    this.#isMasked ??= (fs.fstatSync(file.fd).mode & 0o7777) !== OBJECT_MODE;
    if (this.#isMasked) fs.fchmodSync(file.fd, OBJECT_MODE);
    return file;
  }
}

/** A file without a final name: unnamed where the system calls allow, else under a temporary name. */
interface UnnamedFile {
  readonly fd: number;
  /** Closes it for writing and turns fs-verity on. */
  protect(algorithm: ObjectPlace['algorithm']): void;
  /** Gives it its name; false when the name is taken. */
  link(target: string): boolean;
  /** Takes the name from whoever has it. */
  replace(target: string): void;
  /** Closes and forgets it. Harmless after `link` or `replace`. */
  discard(): void;
}

function openUnnamed(host: Host, directory: string): UnnamedFile {
  const { syscalls } = host;
  const temporary = syscalls.canLinkUnnamed ? undefined : `${directory}/${temporaryName('object')}`;
  let fd =
    temporary === undefined
      ? fs.openSync(directory, O_TMPFILE | O_RDWR, OBJECT_MODE)
      : fs.openSync(temporary, 'wx+', OBJECT_MODE);
  let open = true;
  let named = false;

  function finish(): void {
    named = true;
    open = false;
    fs.closeSync(fd);
  }

  return {
    get fd() {
      return fd;
    },
    protect(algorithm) {
      // fs-verity needs a descriptor for reading and none for writing.
      const readable = fs.openSync(temporary ?? `/proc/self/fd/${fd}`, O_RDONLY);
      fs.closeSync(fd);
      fd = readable;
      enableVerity(host, fd, algorithm);
    },
    link(target) {
      try {
        if (temporary === undefined) syscalls.linkFd(fd, target);
        else fs.linkSync(temporary, target);
      } catch (error) {
        if (errnoOf(error) === 'EEXIST') return false;
        throw error;
      }
      if (temporary !== undefined) fs.unlinkSync(temporary);
      finish();
      return true;
    },
    replace(target) {
      if (temporary !== undefined) {
        fs.renameSync(temporary, target);
      } else {
        const { directory: parent, name } = split(target);
        const between = `${parent}/${temporaryName(name)}`;
        syscalls.linkFd(fd, between);
        fs.renameSync(between, target);
      }
      finish();
    },
    discard() {
      if (!open) return;
      open = false;
      fs.closeSync(fd);
      if (temporary !== undefined && !named) removeQuietly(temporary);
    },
  };
}

/**
 * Turns fs-verity on. A child that is just being started holds copies of our descriptors until it has become its
 * program, which makes the file busy for a moment.
 */
function enableVerity(host: Host, fd: number, algorithm: ObjectPlace['algorithm']): void {
  for (let attempt = 0; ; attempt += 1) {
    try {
      host.syscalls.enableVerity(fd, algorithm);
      return;
    } catch (error) {
      if (errnoOf(error) !== 'ETXTBSY' || attempt >= ETXTBSY_TRIES) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

function overlong(sizeBytes: number): HostctlError {
  return new HostctlError('size-mismatch', `An object of ${sizeBytes} bytes was given more`);
}

function tooShort(length: number, sizeBytes: number): HostctlError {
  return new HostctlError('size-mismatch', `An object of ${sizeBytes} bytes was given only ${length}`);
}
