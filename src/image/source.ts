/**
 * Opens a container image: from a reference to the manifest, its config and the files of its layers. Every JSON
 * document is parsed only after its size and digest were found right, and only blobs that the manifest names are ever
 * opened.
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
import { readBlob, readLayoutFile } from './blob.ts';
import type { LayerSource } from './layers.ts';

export interface ImageSource {
  readonly reference: ImageReference;
  readonly manifestDigest: OciDigest;
  readonly manifest: Manifest;
  /** The documents as they were read, byte for byte. */
  readonly manifestBytes: Uint8Array;
  readonly config: ImageConfig;
  readonly configBytes: Uint8Array;
  /** The base first. */
  readonly layers: readonly LayerSource[];
}

const MAX_INDEX_DEPTH = 8;
const MAX_DOCUMENTS = 1000;

/**
 * Opens an image for `host`. Only `oci:` is read, in place; other transports are refused with 'image-unsupported'.
 * Throws 'image-not-found', 'image-invalid', 'image-unsupported', 'size-mismatch' or 'digest-mismatch'.
 */
export function openImageSource(reference: ImageReference, host: Platform): ImageSource {
  if (reference.transport !== 'oci') {
    throw new HostctlError('image-unsupported', `Cannot read images by "${reference.transport}:"`, {
      hint: 'Copy the image into an OCI layout first (skopeo copy SOURCE oci:DIR:TAG) and use oci:DIR:TAG.',
    });
  }
  try {
    return new LayoutOpener(reference.path, host).open(reference, reference.tag);
  } catch (error) {
    throw withContext(`Cannot use "${formatImageReference(reference)}"`, error);
  }
}

/** A manifest with its config, as found in the layout. */
interface Candidate {
  readonly descriptor: Descriptor;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly config: ImageConfig;
  readonly configBytes: Uint8Array;
}

class LayoutOpener {
  readonly #directory: string;
  readonly #host: Platform;
  /** Digests of indexes that were looked through: a few levels naming the same child make an endless walk. */
  readonly #visited = new Set<OciDigest>();
  /** Platforms of images that were passed over. */
  readonly #others = new Set<string>();
  #documents = 0;

  constructor(directory: string, host: Platform) {
    this.#directory = directory;
    this.#host = host;
  }

  open(reference: ImageReference, tag: string | undefined): ImageSource {
    checkOciLayout(readLayoutFile(`${this.#directory}/oci-layout`, MAX_LAYOUT_FILE_BYTES));
    const indexBytes = readLayoutFile(`${this.#directory}/index.json`, MAX_MANIFEST_BYTES);
    const chosen = chooseByTag(parseIndex(indexBytes, mediaTypes.ociIndex, 'File "index.json"'), tag);
    const found = this.#find(chosen, 0);
    if (found === undefined) {
      const others = [...this.#others].slice(0, 20).join(', ');
      const has = others === '' ? '' : `, only for ${others}`;
      throw new HostctlError('image-unsupported', `Image is not made for ${formatPlatform(this.#host)}${has}`);
    }
    const { descriptor, manifest, manifestBytes, config, configBytes } = found;
    const layers = this.#layers(manifest, config);
    return { reference, manifestDigest: descriptor.digest, manifest, manifestBytes, config, configBytes, layers };
  }

  /** The image that a descriptor leads to on this host, or undefined if there is none. */
  #find(descriptor: Descriptor, depth: number): Candidate | undefined {
    const { role } = mediaTypeRole(descriptor.mediaType);
    if (role === 'manifest') return this.#manifest(descriptor);
    if (role === 'schema1') {
      throw new HostctlError('image-unsupported', `Manifest ${descriptor.digest} is of Docker schema 1`, {
        hint: 'Push the image again with a current tool.',
      });
    }
    if (depth >= MAX_INDEX_DEPTH)
      throw new HostctlError('image-unsupported', `Indexes are nested deeper than ${MAX_INDEX_DEPTH}`);
    if (this.#visited.has(descriptor.digest)) return undefined;
    this.#visited.add(descriptor.digest);
    const bytes = this.#document(descriptor, `Index ${descriptor.digest}`, MAX_MANIFEST_BYTES);
    const entries = parseIndex(bytes, descriptor.mediaType);
    for (const entry of entries) {
      if (entry.platform !== undefined && isImageEntry(entry)) this.#passOver(entry.platform);
    }
    for (const entry of entriesForPlatform(entries, this.#host)) {
      const found = this.#find(entry, depth + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #manifest(descriptor: Descriptor): Candidate | undefined {
    const manifestBytes = this.#document(descriptor, `Manifest ${descriptor.digest}`, MAX_MANIFEST_BYTES);
    const manifest = parseManifest(manifestBytes, descriptor.mediaType);
    const configBytes = this.#document(manifest.config, `Config ${manifest.config.digest}`, MAX_CONFIG_BYTES);
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

  #document(descriptor: Descriptor, what: string, maxBytes: number): Uint8Array {
    this.#documents++;
    if (this.#documents > MAX_DOCUMENTS)
      throw new HostctlError('image-unsupported', `Image has more than ${MAX_DOCUMENTS} documents`);
    return embeddedContent(descriptor, what) ?? readBlob(this.#path(descriptor), descriptor, what, maxBytes);
  }

  #layers(manifest: Manifest, config: ImageConfig): LayerSource[] {
    const count = manifest.layers.length;
    return manifest.layers.map((descriptor, i) => {
      const diffId = config.diffIds[i]!;
      if (descriptor.compression !== 'none' && (diffId as string) === descriptor.digest) {
        throw new HostctlError(
          'image-invalid',
          `Layer ${i + 1} of ${count} has a diff id that is the digest of its compressed blob`,
        );
      }
      // A blob embedded in its descriptor must be the one that lies in the layout.
      embeddedContent(descriptor, `Layer ${i + 1} of ${count}`);
      return { number: i + 1, count, descriptor, diffId, blobFile: this.#path(descriptor) };
    });
  }

  #path(descriptor: Descriptor): string {
    return `${this.#directory}/${blobPath(descriptor.digest)}`;
  }
}
