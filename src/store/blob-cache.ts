/**
 * Blobs of container images that were fetched, each named by its digest: in the repository, where they spare the next
 * pull what it needs again, or in a scratch directory that ends with the command. Only ever a cache: no name here is
 * trusted without its content, nothing is made durable, and `gc` removes all of it that no running command holds.
 */

import * as fs from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { errnoOf, HostctlError, isHostctlError } from '../errors.ts';
import { algorithmOf, blobPath, OciHasher, parseOciDigest, type OciDigest } from '../format/oci/digest.ts';
import { MAX_CONFIG_BYTES, parseImageConfig } from '../format/oci/config.ts';
import { describeDocument, MAX_MANIFEST_BYTES, parseManifest } from '../format/oci/manifest.ts';
import {
  allocatedBytes,
  exists,
  fileChunks,
  isRegularFile,
  listNames,
  makeDirectories,
  readSmallFile,
  removeQuietly,
  split,
  temporaryName,
  TEMPORARY_NAME,
  writeAll,
} from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { takeLock } from '../sys/lock.ts';
import type { VerityDigest } from '../tree/node.ts';
import { readContents, type Contents } from './contents.ts';
import { RECORDS } from './image-record.ts';
import { objectFile, tryExclusive } from './repository.ts';

const NAME = `${RECORDS}/cache`;
/** On disk, not in memory as /tmp may be. */
const SCRATCH = '/var/tmp';
/** Blobs can hold what only root may read. */
const MODE = 0o700;
/** Behind the name of a blob of which not all is there. */
const PARTIAL = '.partial';
const NO_DIFF_IDS = { diffIds: [] };
const ALGORITHMS = ['sha256', 'sha512'] as const;

export interface CachedBlob {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

export class BlobCache {
  readonly directory: string;
  readonly #host: Host;
  readonly #repository: string | undefined;
  #unlock: (() => void) | undefined;

  /** @param repository - path of the repository; without one, a scratch directory */
  constructor(host: Host, repository: string | undefined) {
    this.#host = host;
    this.#repository = repository;
    this.directory = repository === undefined ? `${SCRATCH}/${temporaryName('hostctl')}` : `${repository}/${NAME}`;
  }

  /** Makes the directory and keeps others from removing what lies in it, until `close`. Idempotent. */
  async open(): Promise<void> {
    if (this.#unlock !== undefined) return;
    const { directory } = this;
    if (this.#repository === undefined) fs.mkdirSync(directory, { mode: MODE });
    else makeDirectories(makeDirectories(this.#repository, RECORDS), split(NAME).name, MODE);
    const options = { waitMs: this.#host.lockWaitMs, signal: this.#host.signal };
    this.#unlock = await takeLock(this.#host.syscalls, directory, 'shared', options);
    for (const algorithm of ALGORITHMS)
      fs.mkdirSync(`${directory}/blobs/${algorithm}`, { recursive: true, mode: MODE });
  }

  /** Nothing is read or written any more. Scratch goes; a repository's cache stays for the next command. */
  close(): void {
    if (this.#unlock === undefined) return;
    if (this.#repository === undefined) removeQuietly(this.directory);
    this.#unlock();
    this.#unlock = undefined;
  }

  /** Where the blob lies, or will. */
  fileOf(digest: OciDigest): string {
    return `${this.directory}/${blobPath(digest)}`;
  }

  /** The shared blob directory, in the layout of OCI's `blobs/`. */
  get blobs(): string {
    return `${this.directory}/blobs`;
  }

  /** A small blob, not yet compared with anything; undefined when there is none. */
  read(digest: OciDigest, maxBytes: number): Uint8Array | undefined {
    const size = this.#sizeOf(digest);
    return size === undefined || size > maxBytes ? undefined : readSmallFile(this.fileOf(digest), maxBytes);
  }

  /** Whether the blob is here in full length; of any length where none is given. */
  has(digest: OciDigest, size?: number): boolean {
    const found = this.#sizeOf(digest);
    return found !== undefined && (size === undefined || found === size);
  }

  /** Keeps a blob whose digest was checked. The caller has opened the cache. */
  put(digest: OciDigest, bytes: Uint8Array): void {
    const temporary = this.temporaryFile();
    const fd = fs.openSync(temporary, 'wx', 0o600);
    try {
      writeAll(fd, bytes);
    } finally {
      fs.closeSync(fd);
    }
    // What lies there may be damaged.
    fs.renameSync(temporary, this.fileOf(digest));
  }

  /** Removes the blob unless it is what its name says. Returns whether it is. */
  async check(digest: OciDigest, size?: number): Promise<boolean> {
    if (this.has(digest, size)) {
      const hasher = new OciHasher(algorithmOf(digest));
      for (const chunk of fileChunks(this.fileOf(digest))) {
        hasher.update(chunk);
        await nextTurn();
        if (this.#host.signal.aborted)
          throw new HostctlError('interrupted', 'Stopped checking what was fetched before');
      }
      if (hasher.digest() === digest) return true;
    }
    removeQuietly(this.fileOf(digest));
    return false;
  }

  /**
   * The file in which a blob grows, kept when it does not come to its end. Where another command is at it, a file of
   * this one's own.
   */
  openPartial(digest: OciDigest): { readonly file: string; close(): void } {
    const file = `${this.fileOf(digest)}${PARTIAL}`;
    const fd = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_NOFOLLOW, 0o600);
    // Locked, but perhaps finished and renamed meanwhile: then the name is another file's.
    const isOurs = this.#host.syscalls.tryLock(fd, 'exclusive') && isFile(file, fd);
    if (isOurs) return { file, close: () => fs.closeSync(fd) };
    fs.closeSync(fd);
    const own = this.temporaryFile();
    return { file: own, close: () => removeQuietly(own) };
  }

  /** What objects of the repository are known to hold. */
  contents(): Contents {
    return this.#repository === undefined ? new Map() : readContents(this.#repository);
  }

  /** Path of an object of the repository, if it is there. */
  objectOf(digest: VerityDigest | undefined): string | undefined {
    if (digest === undefined) return undefined;
    const path = objectFile({ objectsPath: `${this.#repository}/objects` }, digest);
    return isRegularFile(path) ? path : undefined;
  }

  /** Path of a file for one step; the caller removes it. */
  temporaryFile(): string {
    return `${this.directory}/${temporaryName('blob')}`;
  }

  /** A directory for one step; the caller removes it. */
  makeWorkDirectory(): string {
    const path = `${this.directory}/${temporaryName('pull')}`;
    fs.mkdirSync(path, { mode: MODE });
    return path;
  }

  /** Undefined also where it lies out of reach: a cache that only root may enter is none to others. */
  #sizeOf(digest: OciDigest): number | undefined {
    try {
      const stat = fs.lstatSync(this.fileOf(digest), { throwIfNoEntry: false });
      return stat?.isFile() === true ? stat.size : undefined;
    } catch (error) {
      if (errnoOf(error) === 'EACCES') return undefined;
      throw error;
    }
  }
}

function isFile(path: string, fd: number): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false })?.ino === fs.fstatSync(fd).ino;
}

/** Every blob of a repository's cache and what commands that died left in it; nothing while a command uses it. */
export function listCachedBlobs(host: Host, repository: string): CachedBlob[] {
  const directory = `${repository}/${NAME}`;
  if (!exists(directory)) return [];
  const paths = [
    ...ALGORITHMS.flatMap((algorithm) =>
      listNames(`${directory}/blobs/${algorithm}`).map((name) => `${directory}/blobs/${algorithm}/${name}`),
    ),
    ...listNames(directory)
      .filter((name) => TEMPORARY_NAME.test(name))
      .map((name) => `${directory}/${name}`),
  ];
  const list = (): CachedBlob[] => paths.map((path) => ({ name: split(path).name, path, bytes: allocatedBytes(path) }));
  return tryExclusive(host, directory, list) ?? [];
}

/** Names of the blobs that the image with this manifest was made from, as far as the cache has the manifest. */
export function blobsOfImage(repository: string, manifestDigest: string): string[] {
  const encoded = (digest: string): string => digest.slice(digest.indexOf(':') + 1);
  try {
    const path = `${repository}/${NAME}/${blobPath(parseOciDigest(manifestDigest, 'Manifest'))}`;
    const bytes = readSmallFile(path, MAX_MANIFEST_BYTES);
    if (bytes === undefined) return [];
    const { config, layers } = parseManifest(bytes, describeDocument(bytes).mediaType);
    const documents = [manifestDigest, config.digest];
    const configBytes = readSmallFile(`${repository}/${NAME}/${blobPath(config.digest)}`, MAX_CONFIG_BYTES);
    // Layers that came in parts lie there unpacked.
    const { diffIds } = configBytes === undefined ? NO_DIFF_IDS : parseImageConfig(configBytes, layers.length);
    return [...documents, ...layers.map(({ digest }) => digest), ...diffIds].map(encoded);
  } catch (error) {
    // Damaged, it keeps nothing: all there is to lose is time.
    if (isHostctlError(error)) return [];
    throw error;
  }
}

/** Removes a blob, unless a command that may read it runs. */
export function removeCachedBlob(host: Host, repository: string, path: string): void {
  try {
    tryExclusive(host, `${repository}/${NAME}`, () => fs.rmSync(path, { force: true, recursive: true }));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
