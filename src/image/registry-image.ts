/**
 * An image of a registry. The tag is looked up once; everything after that is asked for by digest, so that a tag that
 * moves meanwhile changes nothing. Layers come last, when they are wanted, into a cache of blobs.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { checkContent, type Descriptor, type Platform } from '../format/oci/descriptor.ts';
import { digestLike, type OciDigest } from '../format/oci/digest.ts';
import { describeDocument, MAX_MANIFEST_BYTES } from '../format/oci/manifest.ts';
import { formatImageReference, type ImageReference } from '../format/oci/reference.ts';
import { formatMebibytes } from '../format/size.ts';
import type { BlobCache } from '../store/blob-cache.ts';
import { freeSpace, listNames, removeQuietly } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { FetchedLayers, LayerBlobs } from './layer-blobs.ts';
import { copyLayers, inspectConfig, inspectManifest, type SkopeoSource } from './skopeo.ts';
import { resolveImage, withLayerFiles, type DocumentRequest, type ImageSource, type ResolvedImage } from './source.ts';

type RegistryReference = Extract<ImageReference, { readonly transport: 'docker' }>;

/** Digests by an algorithm that every registry has. */
const SHA256 = 'sha256:' as OciDigest;

/** Resolves an image for `platform`. Of the cache only what is there is read; nothing is written yet. */
export async function openRegistryImage(
  host: Host,
  reference: RegistryReference,
  platform: Platform,
  cache: BlobCache,
): Promise<ImageSource> {
  try {
    const documents = new Documents(host, reference, cache);
    const resolving = resolveImage(await documents.top(), platform);
    let step = resolving.next();
    while (step.done !== true) step = resolving.next(await documents.read(step.value));
    const resolved = step.value;
    const blobs = new RegistryLayers(host, {
      documents,
      cache,
      resolved,
      source: documents.by(resolved.manifestDigest),
    });
    return withLayerFiles(reference, resolved, ({ digest }) => cache.fileOf(digest), blobs);
  } catch (error) {
    throw withContext(`Cannot use "${formatImageReference(reference)}"`, error);
  }
}

/** Manifests, indexes and configs: from the cache where they lie there, else fetched and held. */
class Documents {
  readonly held = new Map<OciDigest, Uint8Array>();
  readonly #host: Host;
  readonly #reference: RegistryReference;
  readonly #cache: BlobCache;

  constructor(host: Host, reference: RegistryReference, cache: BlobCache) {
    this.#host = host;
    this.#reference = reference;
    this.#cache = cache;
  }

  /** What the reference leads to now. */
  async top(): Promise<Descriptor> {
    const { digest } = this.#reference;
    const known = digest === undefined ? undefined : this.#cached(digest, MAX_MANIFEST_BYTES);
    const bytes = known ?? (await inspectManifest(this.#host, this.#source(), MAX_MANIFEST_BYTES));
    const top = { ...describeDocument(bytes), digest: digestLike(digest ?? SHA256, bytes), annotations: new Map() };
    if (digest !== undefined && top.digest !== digest) {
      throw new HostctlError('digest-mismatch', `Manifest has the digest "${top.digest}" instead of "${digest}"`);
    }
    this.held.set(top.digest, bytes);
    return top;
  }

  async read({ descriptor, what, maxBytes, manifest }: DocumentRequest): Promise<Uint8Array> {
    const { digest, size } = descriptor;
    const known = this.held.get(digest) ?? this.#cached(digest, maxBytes);
    if (known !== undefined && known.length === size) return known;
    if (size > maxBytes) {
      throw new HostctlError('image-unsupported', `${what} has ${size} bytes, at most ${maxBytes} are read`);
    }
    const bytes =
      manifest === undefined
        ? await inspectManifest(this.#host, this.by(digest), maxBytes)
        : await inspectConfig(this.#host, this.by(manifest), maxBytes);
    checkContent(bytes, descriptor, what);
    this.held.set(digest, bytes);
    return bytes;
  }

  /** The image with this manifest, as skopeo knows it. */
  by(digest: OciDigest): SkopeoSource {
    return { name: `docker://${this.#reference.name}@${digest}`, failure: 'registry' };
  }

  #source(): SkopeoSource {
    const { name, tag, digest } = this.#reference;
    if (digest !== undefined) return this.by(digest);
    return { name: `docker://${name}:${tag ?? 'latest'}`, failure: 'registry' };
  }

  #cached(digest: OciDigest, maxBytes: number): Uint8Array | undefined {
    const bytes = this.#cache.read(digest, maxBytes);
    return bytes !== undefined && digestLike(digest, bytes) === digest ? bytes : undefined;
  }
}

interface RegistryLayersOptions {
  readonly documents: Documents;
  readonly cache: BlobCache;
  readonly resolved: ResolvedImage;
  readonly source: SkopeoSource;
}

class RegistryLayers implements LayerBlobs {
  readonly missingBytes: number;
  readonly #host: Host;
  readonly #options: RegistryLayersOptions;
  /** Each blob once, also where it is more than one layer. */
  readonly #layers: readonly Descriptor[];
  #fetched: Promise<FetchedLayers> | undefined;

  constructor(host: Host, options: RegistryLayersOptions) {
    const { cache, resolved } = options;
    this.#host = host;
    this.#options = options;
    this.#layers = [...new Map(resolved.layers.map(({ descriptor }) => [descriptor.digest, descriptor])).values()];
    this.missingBytes = sizeOf(this.#layers.filter(({ digest, size }) => !cache.has(digest, size)));
  }

  fetch(): Promise<FetchedLayers> {
    this.#fetched ??= this.#fetch();
    return this.#fetched;
  }

  release(): void {
    this.#options.cache.close();
  }

  async #fetch(): Promise<FetchedLayers> {
    const { cache, documents, source } = this.#options;
    await cache.open();
    for (const [digest, bytes] of documents.held) cache.put(digest, bytes);
    const missing: Descriptor[] = [];
    for (const layer of this.#layers) if (!(await cache.check(layer.digest, layer.size))) missing.push(layer);
    const fetchedBytes = sizeOf(missing);
    if (missing.length > 0) {
      checkRoom(cache, fetchedBytes);
      this.#host.log.info(
        `Fetching ${missing.length} of ${this.#layers.length} layers, ${formatMebibytes(fetchedBytes)}`,
      );
    }
    // Also where nothing is missing: what was fetched under another policy is not accepted for that.
    const layout = cache.makeWorkDirectory();
    try {
      await copyLayers(this.#host, source, { layout, blobs: cache.blobs }, () => this.#progress(missing, layout));
    } finally {
      removeQuietly(layout);
    }
    // The last look was before the last byte.
    this.#progress(missing, layout);
    for (const { digest, size } of missing) {
      if (!cache.has(digest, size))
        throw new HostctlError('registry', `Layer ${digest} did not come from "${source.name}"`);
    }
    return {
      fetchedLayers: missing.length,
      fetchedBytes,
      reusedLayers: this.#layers.length - missing.length,
      reusedBytes: sizeOf(this.#layers) - fetchedBytes,
    };
  }

  /** Bytes that have come: finished blobs, and what skopeo has of the others in files beside. */
  #progress(missing: readonly Descriptor[], layout: string): number {
    const { cache } = this.#options;
    const finished = sizeOf(missing.filter(({ digest, size }) => cache.has(digest, size)));
    const partial = listNames(layout)
      .filter((name) => name.startsWith('oci-put-blob'))
      .reduce((sum, name) => sum + (fs.statSync(`${layout}/${name}`, { throwIfNoEntry: false })?.size ?? 0), 0);
    const total = sizeOf(missing);
    const done = Math.min(finished + partial, total);
    if (total > 0) this.#host.progress({ step: 'Fetching layers', done, total, unit: 'bytes' });
    return done;
  }
}

/** Before the first byte comes. */
function checkRoom({ directory }: BlobCache, needed: number): void {
  const { freeBytes } = freeSpace(directory);
  if (needed <= freeBytes) return;
  throw new HostctlError(
    'no-space',
    `The file system of "${directory}" needs ${formatMebibytes(needed)} for layers but has ${formatMebibytes(freeBytes)} free; nothing was fetched`,
    { hint: 'Remove what nothing needs ("hostctl gc"), or enlarge the file system' },
  );
}

function sizeOf(layers: readonly Descriptor[]): number {
  return layers.reduce((sum, { size }) => sum + size, 0);
}
