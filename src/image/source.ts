/**
 * Resolves a container image: from what a reference leads to, through indexes, to the manifest for this host, its
 * config and its layers. Every JSON document is parsed only after its size and digest were found right, and only blobs
 * that the manifest names are ever opened. Where documents come from is the caller's: the resolver asks for them.
 */

import { HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { MAX_CONFIG_BYTES, parseImageConfig, type ImageConfig } from '../format/oci/config.ts';
import { embeddedContent, type Descriptor, type Platform } from '../format/oci/descriptor.ts';
import { blobPath, type OciDigest } from '../format/oci/digest.ts';
import { entriesForPlatform, formatPlatform, isImageEntry, parseIndex, platformDistance } from '../format/oci/index.ts';
import { checkOciLayout, chooseByTag, MAX_LAYOUT_FILE_BYTES } from '../format/oci/layout.ts';
import { MAX_MANIFEST_BYTES, parseManifest, type Manifest } from '../format/oci/manifest.ts';
import { mediaTypeRole, mediaTypes } from '../format/oci/media-types.ts';
import { formatImageReference, type ImageReference } from '../format/oci/reference.ts';
import { LAYERS_IN_PLACE, type LayerBlobs } from './layer-blobs.ts';
import { readBlob, readLayoutFile } from './blob.ts';
import type { LayerSource } from './decode-layer.ts';
import { layoutReferrers, NO_REFERRERS, type Referrers } from './referrers.ts';

export interface ImageSource {
  readonly reference: ImageReference;
  readonly manifestDigest: OciDigest;
  readonly manifestType: string;
  readonly manifest: Manifest;
  /** The documents as they were read, byte for byte. */
  readonly manifestBytes: Uint8Array;
  readonly config: ImageConfig;
  readonly configBytes: Uint8Array;
  /** The base first. */
  readonly layers: readonly LayerSource[];
  /** The entries there were to choose from, if the reference leads to an index. */
  readonly choice: readonly IndexChoice[];
  readonly blobs: LayerBlobs;
  /** Seals and signatures of it. */
  readonly referrers: Referrers;
}

/** An entry of an index, and why it was taken or not. */
export interface IndexChoice {
  readonly digest: OciDigest;
  readonly platform: string | undefined;
  readonly verdict: 'chosen' | 'other-platform' | 'not-the-best' | 'no-image';
}

/** What the resolver asks for. */
export interface DocumentRequest {
  readonly descriptor: Descriptor;
  /** For messages. */
  readonly what: string;
  readonly maxBytes: number;
  /** The manifest whose config this is; undefined for a manifest or an index. */
  readonly manifest?: OciDigest;
}

/** Yields requests and gets the documents, checked by the descriptor. */
export type Resolving<T> = Generator<DocumentRequest, T, Uint8Array>;

export type ResolvedImage = Omit<ImageSource, 'reference' | 'blobs' | 'layers' | 'referrers'> & {
  readonly layers: readonly ResolvedLayer[];
};

export type ResolvedLayer = Omit<LayerSource, 'blobFile' | 'plainFile'>;

const MAX_INDEX_DEPTH = 8;
const MAX_DOCUMENTS = 1000;

/**
 * Opens an image of a layout, in place, for `host`. Throws 'image-not-found', 'image-invalid', 'image-unsupported',
 * 'size-mismatch' or 'digest-mismatch'.
 */
export function openImageSource(reference: ImageReference, host: Platform): ImageSource {
  if (reference.transport !== 'oci') {
    throw new HostctlError('internal', `"${reference.transport}:" is not read in place`);
  }
  const { path, tag } = reference;
  const fileOf = ({ digest }: Descriptor): string => `${path}/${blobPath(digest)}`;
  try {
    checkOciLayout(readLayoutFile(`${path}/oci-layout`, MAX_LAYOUT_FILE_BYTES));
    const indexBytes = readLayoutFile(`${path}/index.json`, MAX_MANIFEST_BYTES);
    const top = chooseByTag(parseIndex(indexBytes, mediaTypes.ociIndex, 'File "index.json"'), tag);
    const resolving = resolveImage(top, host);
    let step = resolving.next();
    while (step.done !== true) {
      const { descriptor, what, maxBytes } = step.value;
      step = resolving.next(readBlob(fileOf(descriptor), descriptor, what, maxBytes));
    }
    const filesOf = ({ descriptor }: ResolvedLayer): { blobFile: string } => ({ blobFile: fileOf(descriptor) });
    const source = withLayerFiles(reference, step.value, filesOf, LAYERS_IN_PLACE);
    return { ...source, referrers: layoutReferrers(path, source.manifestDigest) };
  } catch (error) {
    throw withContext(`Cannot use "${formatImageReference(reference)}"`, error);
  }
}

/** A resolved image whose layers lie, or will lie, in files; what speaks of it is for the place that it comes from. */
export function withLayerFiles(
  reference: ImageReference,
  resolved: ResolvedImage,
  filesOf: (layer: ResolvedLayer) => Pick<LayerSource, 'blobFile' | 'plainFile'>,
  blobs: LayerBlobs,
): ImageSource {
  const layers = resolved.layers.map((layer) => ({ ...layer, ...filesOf(layer) }));
  return { ...resolved, reference, layers, blobs, referrers: NO_REFERRERS };
}

export interface ResolveOptions {
  /** Whether layers named by their diff ids are plain, whatever their media types say. */
  readonly isUnpacked?: boolean;
}

/** From the descriptor that a reference leads to, to the image for `host`. */
export function resolveImage(top: Descriptor, host: Platform, options: ResolveOptions = {}): Resolving<ResolvedImage> {
  return new Resolver(host, options).resolve(top);
}

/** A manifest with its config, as found on the way. */
interface Candidate {
  readonly descriptor: Descriptor;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly config: ImageConfig;
  readonly configBytes: Uint8Array;
}

class Resolver {
  readonly #host: Platform;
  readonly #isUnpacked: boolean;
  /** Digests of indexes that were looked through: a few levels naming the same child make an endless walk. */
  readonly #visited = new Set<OciDigest>();
  /** Platforms of images that were passed over. */
  readonly #others = new Set<string>();
  readonly #choice: IndexChoice[] = [];
  #documents = 0;

  constructor(host: Platform, { isUnpacked = false }: ResolveOptions) {
    this.#host = host;
    this.#isUnpacked = isUnpacked;
  }

  *resolve(top: Descriptor): Resolving<ResolvedImage> {
    const found = yield* this.#find(top, 0);
    if (found === undefined) {
      const others = [...this.#others].slice(0, 20).join(', ');
      const has = others === '' ? '' : `, only for ${others}`;
      throw new HostctlError('image-unsupported', `Image is not made for ${formatPlatform(this.#host)}${has}`);
    }
    const { descriptor, manifest, manifestBytes, config, configBytes } = found;
    const layers = this.#layers(manifest, config);
    const choice = this.#choice.map((entry) =>
      entry.digest === descriptor.digest ? { ...entry, verdict: 'chosen' as const } : entry,
    );
    return {
      manifestDigest: descriptor.digest,
      manifestType: descriptor.mediaType,
      manifest,
      manifestBytes,
      config,
      configBytes,
      layers,
      choice,
    };
  }

  /** The image that a descriptor leads to on this host, or undefined if there is none. */
  *#find(descriptor: Descriptor, depth: number): Resolving<Candidate | undefined> {
    const { role } = mediaTypeRole(descriptor.mediaType);
    if (role === 'manifest') return yield* this.#manifest(descriptor);
    if (role === 'schema1') {
      throw new HostctlError('image-unsupported', `Manifest ${descriptor.digest} is of Docker schema 1`, {
        hint: 'Push the image again with a current tool.',
      });
    }
    if (depth >= MAX_INDEX_DEPTH)
      throw new HostctlError('image-unsupported', `Indexes are nested deeper than ${MAX_INDEX_DEPTH}`);
    if (this.#visited.has(descriptor.digest)) return undefined;
    this.#visited.add(descriptor.digest);
    const bytes = yield* this.#document({
      descriptor,
      what: `Index ${descriptor.digest}`,
      maxBytes: MAX_MANIFEST_BYTES,
    });
    const entries = parseIndex(bytes, descriptor.mediaType);
    for (const entry of entries) {
      if (entry.platform !== undefined && isImageEntry(entry)) this.#passOver(entry.platform);
    }
    const fitting = entriesForPlatform(entries, this.#host);
    this.#note(entries, fitting);
    for (const entry of fitting) {
      const found = yield* this.#find(entry, depth + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  *#manifest(descriptor: Descriptor): Resolving<Candidate | undefined> {
    const manifestBytes = yield* this.#document({
      descriptor,
      what: `Manifest ${descriptor.digest}`,
      maxBytes: MAX_MANIFEST_BYTES,
    });
    const manifest = parseManifest(manifestBytes, descriptor.mediaType);
    const configBytes = yield* this.#document({
      descriptor: manifest.config,
      what: `Config ${manifest.config.digest}`,
      maxBytes: MAX_CONFIG_BYTES,
      manifest: descriptor.digest,
    });
    const config = parseImageConfig(configBytes, manifest.layers.length);
    if (platformDistance(config.platform, this.#host) === undefined) {
      const { platform } = descriptor;
      if (platform !== undefined && platformDistance(platform, this.#host) !== undefined) {
        throw new HostctlError('image-invalid', `Index and config of ${descriptor.digest} state different platforms`);
      }
      this.#passOver(config.platform);
      return undefined;
    }
    return { descriptor, manifest, manifestBytes, config, configBytes };
  }

  #passOver(platform: Platform): void {
    this.#others.add(JSON.stringify(formatPlatform(platform).slice(0, 100)));
  }

  #note(entries: readonly Descriptor[], fitting: readonly Descriptor[]): void {
    for (const entry of entries) {
      const { digest, platform } = entry;
      const verdict = fitting.includes(entry) ? 'not-the-best' : isImageEntry(entry) ? 'other-platform' : 'no-image';
      const shown = platform === undefined ? undefined : formatPlatform(platform);
      this.#choice.push({ digest, platform: shown, verdict });
    }
  }

  *#document(request: DocumentRequest): Resolving<Uint8Array> {
    this.#documents++;
    if (this.#documents > MAX_DOCUMENTS)
      throw new HostctlError('image-unsupported', `Image has more than ${MAX_DOCUMENTS} documents`);
    return embeddedContent(request.descriptor, request.what) ?? (yield request);
  }

  #layers(manifest: Manifest, config: ImageConfig): ResolvedImage['layers'] {
    const count = manifest.layers.length;
    return manifest.layers.map((descriptor, i) => {
      const diffId = config.diffIds[i]!;
      const isPlain = (diffId as string) === descriptor.digest;
      if (isPlain && this.#isUnpacked) {
        return { number: i + 1, count, descriptor: { ...descriptor, compression: 'none' as const }, diffId };
      }
      if (isPlain && descriptor.compression !== 'none') {
        throw new HostctlError(
          'image-invalid',
          `Layer ${i + 1} of ${count} has a diff id that is the digest of its compressed blob`,
        );
      }
      // A blob embedded in its descriptor must be the one that lies in the layout.
      embeddedContent(descriptor, `Layer ${i + 1} of ${count}`);
      return { number: i + 1, count, descriptor, diffId };
    });
  }
}
