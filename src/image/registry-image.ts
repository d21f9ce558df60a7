/**
 * An image of a registry. The tag is looked up once; everything after that is asked for by digest, so that a tag that
 * moves meanwhile changes nothing. Layers come last, when they are wanted, into a cache of blobs.
 */

import { HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { checkContent, type Descriptor, type Platform } from '../format/oci/descriptor.ts';
import { digestLike, type DiffId, type OciDigest } from '../format/oci/digest.ts';
import { describeDocument, MAX_MANIFEST_BYTES } from '../format/oci/manifest.ts';
import { formatImageReference, type ImageReference } from '../format/oci/reference.ts';
import { formatMebibytes } from '../format/size.ts';
import type { BlobCache } from '../store/blob-cache.ts';
import { freeSpace } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { FetchedLayers, LayerBlobs } from './layer-blobs.ts';
import type { MissingLayer, RegistryReader } from './registry/reader.ts';
import {
  resolveImage,
  withLayerFiles,
  type DocumentRequest,
  type ImageSource,
  type ResolvedImage,
  type ResolvedLayer,
} from './source.ts';

export type RegistryReference = Extract<ImageReference, { readonly transport: 'docker' }>;

/** An algorithm that every registry has. */
const SHA256 = 'sha256:' as OciDigest;
const DEFAULT_TAG = 'latest';
/** How often progress is told, at least for each so many bytes. */
const PROGRESS_BYTES = 1 << 20;

export interface RegistryImageOptions {
  readonly reader: RegistryReader;
  readonly platform: Platform;
  readonly cache: BlobCache;
}

/** Resolves an image for `platform`. Of the cache only what is there is read; nothing is written yet. */
export async function openRegistryImage(
  host: Host,
  reference: RegistryReference,
  { reader, platform, cache }: RegistryImageOptions,
): Promise<ImageSource> {
  try {
    const documents = new Documents(reference, reader, cache);
    const resolving = resolveImage(await documents.top(), platform);
    let step = resolving.next();
    while (step.done !== true) step = resolving.next(await documents.read(step.value));
    const blobs = new RegistryLayers(host, { documents, reader, cache, resolved: step.value });
    const filesOf = ({ descriptor, diffId }: ResolvedLayer): { blobFile: string; plainFile: string } => ({
      blobFile: cache.fileOf(descriptor.digest),
      plainFile: cache.fileOf(plainDigest(diffId)),
    });
    const source = withLayerFiles(reference, step.value, filesOf, blobs);
    return { ...source, referrers: reader.referrers(source.manifestDigest) };
  } catch (error) {
    throw withContext(`Cannot use "${formatImageReference(reference)}"`, error);
  }
}

/** Manifests, indexes and configs: from the cache where they lie there, else fetched and held. */
class Documents {
  readonly held = new Map<OciDigest, Uint8Array>();
  readonly #reference: RegistryReference;
  readonly #reader: RegistryReader;
  readonly #cache: BlobCache;

  constructor(reference: RegistryReference, reader: RegistryReader, cache: BlobCache) {
    this.#reference = reference;
    this.#reader = reader;
    this.#cache = cache;
  }

  /** What the reference leads to now. */
  async top(): Promise<Descriptor> {
    const { digest, tag = DEFAULT_TAG } = this.#reference;
    const known = digest === undefined ? undefined : this.#cached(digest, MAX_MANIFEST_BYTES);
    const which = digest === undefined ? { tag } : { digest };
    const bytes = known ?? (await this.#reader.manifest(which, MAX_MANIFEST_BYTES));
    const found = digestLike(digest ?? SHA256, bytes);
    if (digest !== undefined && found !== digest) {
      throw new HostctlError('digest-mismatch', `Manifest has the digest "${found}" instead of "${digest}"`);
    }
    this.held.set(found, bytes);
    return { ...describeDocument(bytes), digest: found, annotations: new Map() };
  }

  async read({ descriptor, what, maxBytes, manifest }: DocumentRequest): Promise<Uint8Array> {
    const { digest, size } = descriptor;
    if (size > maxBytes) {
      throw new HostctlError('image-unsupported', `${what} has ${size} bytes, at most ${maxBytes} are read`);
    }
    const known = this.held.get(digest) ?? this.#cached(digest, maxBytes);
    const bytes =
      known ??
      (manifest === undefined
        ? await this.#reader.manifest({ digest }, maxBytes)
        : await this.#reader.config({ manifest, config: digest }, maxBytes));
    checkContent(bytes, descriptor, what);
    this.held.set(digest, bytes);
    return bytes;
  }

  #cached(digest: OciDigest, maxBytes: number): Uint8Array | undefined {
    const bytes = this.#cache.read(digest, maxBytes);
    return bytes !== undefined && digestLike(digest, bytes) === digest ? bytes : undefined;
  }
}

interface RegistryLayersOptions {
  readonly documents: Documents;
  readonly reader: RegistryReader;
  readonly cache: BlobCache;
  readonly resolved: ResolvedImage;
}

class RegistryLayers implements LayerBlobs {
  missingBytes = 0;
  readonly #host: Host;
  readonly #options: RegistryLayersOptions;
  /** Each blob once, also where it is more than one layer. */
  readonly #layers: readonly MissingLayer[];
  /** Blobs that lie here, as they should be. */
  readonly #here = new Set<OciDigest>();
  #fetched: FetchedLayers | undefined;

  constructor(host: Host, options: RegistryLayersOptions) {
    this.#host = host;
    this.#options = options;
    const layers = options.resolved.layers.map(({ descriptor, diffId }) => ({ ...descriptor, diffId }));
    this.#layers = [...new Map(layers.map((layer) => [layer.digest, layer])).values()];
  }

  async fetch(isKnown: (diffId: DiffId) => boolean = () => false): Promise<FetchedLayers> {
    const wanted = this.#layers.filter(({ digest, diffId }) => !this.#here.has(digest) && !isKnown(diffId));
    if (this.#fetched === undefined || wanted.length > 0) this.#fetched = await this.#fetch(wanted, this.#fetched);
    return this.#fetched;
  }

  release(): void {
    this.#options.cache.close();
  }

  async #fetch(wanted: readonly MissingLayer[], before: FetchedLayers | undefined): Promise<FetchedLayers> {
    const { cache, documents, reader, resolved } = this.#options;
    if (before === undefined) await cache.open();
    for (const [digest, bytes] of documents.held) cache.put(digest, bytes);
    const missing: MissingLayer[] = [];
    for (const layer of wanted) {
      const { digest, size, diffId } = layer;
      if (!(await cache.check(digest, size)) && !(await cache.check(plainDigest(diffId)))) missing.push(layer);
    }
    const total = sizeOf(missing);
    if (missing.length > 0) {
      checkRoom(cache, total);
      this.#host.log.info(`Fetching ${missing.length} of ${this.#layers.length} layers, ${formatMebibytes(total)}`);
    }
    // Also where nothing is missing: what was fetched under another policy is not accepted for that.
    const image = { manifest: resolved.manifestDigest, layers: this.#layers, missing };
    const transferred = await reader.layers(image, cache, this.#progress(total));
    const saved = Math.max(0, total - transferred);
    if (saved > 0) {
      this.#host.log.info(
        `Fetched ${formatMebibytes(transferred)} of layers; ${formatMebibytes(saved)} were here already`,
      );
    }
    for (const { digest } of wanted) this.#here.add(digest);
    this.missingBytes += total;
    const fetchedLayers = missing.length + (before?.fetchedLayers ?? 0);
    return {
      fetchedLayers,
      fetchedBytes: transferred + (before?.fetchedBytes ?? 0),
      savedBytes: saved + (before?.savedBytes ?? 0),
      reusedLayers: this.#layers.length - fetchedLayers,
      reusedBytes: sizeOf(this.#layers) - this.missingBytes,
    };
  }

  #progress(total: number): (bytes: number) => void {
    let told = -Infinity;
    return (bytes) => {
      const done = Math.min(bytes, total);
      if (total === 0 || (done - told < PROGRESS_BYTES && done < total)) return;
      told = done;
      this.#host.progress({ step: 'Fetching layers', done, total, unit: 'bytes' });
    };
  }
}

/** What a layer is called that lies in the cache unpacked. */
function plainDigest(diffId: DiffId): OciDigest {
  return diffId as string as OciDigest;
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
