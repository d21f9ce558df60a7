/**
 * Records of layers: what is in each layer that was read and found right (`format/layer-record.ts`), under
 * `hostctl/layers/` by its diff id, so that another image with it needs no blob. Only ever a cache: one that is not as
 * it was written is none, it keeps no object, nothing fails for want of it, and it stays as long as an image that was
 * made of its layer.
 */

import * as fs from 'node:fs';
import { errnoOf, isHostctlError, isShortage } from '../errors.ts';
import {
  encodeLayerRecord,
  isLayerRecord,
  isOtherLayerRecord,
  MAX_LAYER_RECORD_BYTES,
  parseLayerRecord,
  type LayerContent,
} from '../format/layer-record.ts';
import { parseDiffId, type DiffId } from '../format/oci/digest.ts';
import {
  freeSpace,
  isDirectory,
  listNames,
  makeDirectories,
  readSmallFile,
  removeQuietly,
  temporaryName,
  writeAll,
} from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityAlgorithm } from '../tree/node.ts';
import { RECORDS } from './image-record.ts';
import type { Repository } from './repository.ts';

export const LAYERS = `${RECORDS}/layers`;
/** The names of records. */
export const LAYER_NAME = /^([0-9a-f]{64}|[0-9a-f]{128})$/;

/** What of the free space a record may take: where the space is tight, an image needs it more. */
const SHARE_OF_FREE = 1 / 64;

/** What a layer's record is called. */
export function layerName(diffId: string): string {
  return diffId.slice(diffId.indexOf(':') + 1);
}

function recordPath({ path }: Pick<Repository, 'path'>, diffId: DiffId): string {
  return `${path}/${LAYERS}/${layerName(diffId)}`;
}

/** Whether a layer has a record. Which objects are there is not looked at. */
export function hasLayerRecord(repository: Repository, diffId: DiffId): boolean {
  const { algorithm } = repository;
  return readWith(repository, diffId, (bytes) => isLayerRecord(bytes, { diffId, algorithm })) ?? false;
}

/** What is in a layer, if it was recorded. */
export function readLayerRecord(repository: Repository, diffId: DiffId): LayerContent | undefined {
  const { algorithm } = repository;
  return readWith(repository, diffId, (bytes) => parseLayerRecord(bytes, { diffId, algorithm }));
}

/** Paths of records that are not as they were written. Throws where they cannot be read for want of memory or files. */
export function damagedLayerRecords({ path, algorithm }: Pick<Repository, 'path' | 'algorithm'>): string[] {
  const directory = `${path}/${LAYERS}`;
  const names = listNames(directory).filter((name) => LAYER_NAME.test(name));
  return names
    .filter((name) => !isAsWritten(`${directory}/${name}`, name, algorithm))
    .map((name) => `${directory}/${name}`);
}

function isAsWritten(path: string, name: string, algorithm: VerityAlgorithm): boolean {
  const diffId = parseDiffId(`${name.length === 64 ? 'sha256' : 'sha512'}:${name}`, 'Layer record');
  try {
    const bytes = readSmallFile(path, MAX_LAYER_RECORD_BYTES);
    return bytes === undefined || isLayerRecord(bytes, { diffId, algorithm }) || isOtherLayerRecord(bytes);
  } catch (error) {
    if (isShortage(error) || (errnoOf(error) === undefined && !isHostctlError(error))) throw error;
    return false;
  }
}

function readWith<T>(repository: Repository, diffId: DiffId, read: (bytes: Uint8Array) => T): T | undefined {
  try {
    const bytes = readSmallFile(recordPath(repository, diffId), MAX_LAYER_RECORD_BYTES);
    return bytes === undefined ? undefined : read(bytes);
  } catch (error) {
    // Whatever is wrong with it, the layer itself says the same.
    if (isHostctlError(error, 'format-invalid', 'state-invalid') || errnoOf(error) !== undefined) return undefined;
    throw error;
  }
}

/** Takes a record away, which costs time at most. */
export function removeLayerRecord(repository: Repository, diffId: DiffId): void {
  fs.rmSync(recordPath(repository, diffId), { force: true, recursive: true });
}

/**
 * Takes down layers as they are read. A record gets its name only when what it speaks of is durable, and by the same
 * barrier it is durable itself.
 */
export class LayerRecorder {
  readonly #host: Host;
  readonly #repository: Repository;
  /** Written, and without a name. */
  readonly #files = new Map<DiffId, string>();

  constructor(host: Host, repository: Repository) {
    this.#host = host;
    this.#repository = repository;
  }

  /** Writes the record of a layer whose digests were right and whose objects are in the store. */
  add(diffId: DiffId, content: LayerContent): void {
    if (this.#files.has(diffId)) return;
    const { path, algorithm } = this.#repository;
    this.#attempt('take down a layer', () => {
      const maxBytes = Math.min(MAX_LAYER_RECORD_BYTES, freeSpace(path).freeBytes * SHARE_OF_FREE);
      const file = `${path}/${temporaryName('layer')}`;
      try {
        if (writeBounded(file, encodeLayerRecord({ diffId, algorithm }, content), maxBytes))
          this.#files.set(diffId, file);
        else removeQuietly(file);
      } catch (error) {
        removeQuietly(file);
        throw error;
      }
    });
  }

  /** Gives the records their names, after a barrier; returns the layers. */
  publish(): DiffId[] {
    const published: DiffId[] = [];
    this.#attempt('keep what is in a layer', () => {
      const { path } = this.#repository;
      if (this.#files.size > 0 && !isDirectory(`${path}/${LAYERS}`)) makeDirectories(path, LAYERS);
      for (const [diffId, file] of this.#files) {
        fs.renameSync(file, recordPath(this.#repository, diffId));
        this.#files.delete(diffId);
        published.push(diffId);
      }
    });
    return published;
  }

  /** Removes what got no name. */
  close(): void {
    for (const file of this.#files.values()) removeQuietly(file);
    this.#files.clear();
  }

  /** An image is as good without the records of its layers. */
  #attempt(what: string, body: () => void): void {
    try {
      body();
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      this.#host.log.debug(`Cannot ${what}: ${(error as Error).message}`);
    }
  }
}

/** Whether all of it fitted. */
function writeBounded(file: string, chunks: Iterable<Uint8Array>, maxBytes: number): boolean {
  const fd = fs.openSync(file, 'wx', 0o644);
  try {
    let bytes = 0;
    for (const chunk of chunks) {
      bytes += chunk.length;
      if (bytes > maxBytes) return false;
      writeAll(fd, chunk);
    }
    return true;
  } finally {
    fs.closeSync(fd);
  }
}
