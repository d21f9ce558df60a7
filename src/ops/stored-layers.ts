/**
 * The layers of an image that is put into a repository: out of their records where they have one there, else out of
 * their blobs, and then they are recorded.
 */

import { chunkedLayer } from '../format/zstd/chunked.ts';
import type { DiffId } from '../format/oci/digest.ts';
import type { BuiltTree } from '../image/build.ts';
import { lackingLayers, readKnownLayers, type KnownLayers, type ObjectLookup } from '../image/known-layers.ts';
import type { ImageSource } from '../image/source.ts';
import { readContents, recordingSink, writeContents } from '../store/contents.ts';
import { hasLayerRecord, LayerRecorder } from '../store/layer-records.ts';
import type { ObjectStore } from '../store/objects.ts';
import type { Repository } from '../store/repository.ts';
import type { FetchedLayers } from '../image/layer-blobs.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';
import { externalFiles } from '../tree/walk.ts';
import { readTrees, type ReadTreesOptions } from './build.ts';

/**
 * Brings the layers that have no record, without a lock. One that has a record and cannot do without its blob after all
 * is fetched when that turns out.
 */
export function fetchUnknown(repository: Repository, source: ImageSource): Promise<FetchedLayers> {
  return source.blobs.fetch((diffId) => hasLayerRecord(repository, diffId));
}

/** The trees of an image by as few blobs as possible, and what was known without them. */
export async function readTreesHere(
  host: Host,
  { repository, lookup, source, sink }: LayersHere,
  options: Omit<ReadTreesOptions, 'known'>,
): Promise<BuiltTree & { readonly known: KnownLayers }> {
  const unusable = new Set<DiffId>();
  for (;;) {
    const known = readKnownLayers(repository, source.layers, lookup, unusable);
    const built = await readTrees(host, source, sink, { ...options, known });
    const trees = [built.tree, ...(built.base === undefined ? [] : [built.base])];
    const lacking = lackingLayers(known, trees, lookup);
    if (lacking.length === 0) return { ...built, known };
    for (const { number, count, diffId } of lacking) {
      host.log.debug(`Read layer ${number} of ${count} after all: objects of it are missing`);
      unusable.add(diffId);
    }
  }
}

export interface LayersHere {
  readonly repository: Repository;
  readonly lookup: ObjectLookup;
  readonly source: ImageSource;
  /** Where files go that are read. */
  readonly sink: ObjectSink;
}

/** The layers of one image on their way into the repository. */
export class StoredLayers {
  readonly #host: Host;
  readonly #repository: Repository;
  readonly #source: ImageSource;
  readonly #objects: ObjectStore;
  readonly #recorder: LayerRecorder;
  /** Which object holds what, where layers can be fetched in parts: so that the next image needs less. */
  readonly #contents: Map<string, VerityDigest> | undefined;

  constructor(host: Host, repository: Repository, source: ImageSource, objects: ObjectStore) {
    this.#host = host;
    this.#repository = repository;
    this.#source = source;
    this.#objects = objects;
    this.#recorder = new LayerRecorder(host, repository);
    const isChunked = source.layers.some(({ descriptor }) => chunkedLayer(descriptor) !== undefined);
    this.#contents = isChunked ? new Map() : undefined;
  }

  async readTrees(options: Pick<ReadTreesOptions, 'baseLayers'> = {}): Promise<BuiltTree> {
    const objects = this.#objects;
    const sink = this.#contents === undefined ? objects : recordingSink(objects, this.#contents);
    const here = { repository: this.#repository, lookup: objects, source: this.#source, sink };
    const { known, ...built } = await readTreesHere(this.#host, here, {
      ...options,
      onRead: ({ diffId }, content) => this.#recorder.add(diffId, content),
    });
    for (const { presentFiles } of known.values()) objects.counts.reusedObjects += presentFiles;
    if (this.#contents !== undefined && known.size > 0) takeOverContents(this.#repository, built, this.#contents);
    return built;
  }

  /** Keeps what was found out for the image, which was committed. */
  keep(digest: VerityDigest): void {
    for (const diffId of this.#recorder.publish()) this.#objects.newLayers.add(diffId);
    if (this.#contents !== undefined) writeContents(this.#repository.path, digest, this.#contents);
  }

  /** To be called in any case. */
  close(): void {
    this.#recorder.close();
  }
}

/** Of contents that did not pass this time another image knows it. */
function takeOverContents({ path }: Repository, { tree }: BuiltTree, contents: Map<string, VerityDigest>): void {
  const objects = new Map(externalFiles(tree));
  for (const [sha256, object] of readContents(path)) if (objects.has(object)) contents.set(sha256, object);
}

/** Runs `body` with the layers of an image that it stores. */
export async function withStoredLayers<T>(
  host: Host,
  repository: Repository,
  source: ImageSource,
  objects: ObjectStore,
  body: (layers: StoredLayers) => Promise<T>,
): Promise<T> {
  const layers = new StoredLayers(host, repository, source, objects);
  try {
    return await body(layers);
  } finally {
    layers.close();
  }
}
