/** The two ways to read from a registry: by hostctl itself, or by skopeo where only that knows how. */

import * as fs from 'node:fs';
import { HostctlError } from '../../errors.ts';
import type { Descriptor } from '../../format/oci/descriptor.ts';
import type { OciDigest } from '../../format/oci/digest.ts';
import { mediaTypes } from '../../format/oci/media-types.ts';
import type { BlobCache } from '../../store/blob-cache.ts';
import { listNames, removeQuietly } from '../../sys/files.ts';
import type { Host } from '../../sys/host.ts';
import { checkPolicy, copyLayers, inspectConfig, inspectManifest, type SkopeoSource } from '../skopeo.ts';
import { registryAccess } from './access.ts';
import { RegistryClient } from './client.ts';
import { downloadBlob } from './download.ts';

/** Documents come unchecked, blobs checked. */
export interface RegistryReader {
  manifest(which: { readonly tag: string } | { readonly digest: OciDigest }, maxBytes: number): Promise<Uint8Array>;
  config(of: { readonly manifest: OciDigest; readonly config: OciDigest }, maxBytes: number): Promise<Uint8Array>;
  /** Brings `missing` into the cache, of the layers of an image that the policy allows. */
  layers(image: ImageLayers, cache: BlobCache, onBytes: (bytes: number) => void): Promise<void>;
}

export interface ImageLayers {
  readonly manifest: OciDigest;
  readonly layers: readonly Descriptor[];
  readonly missing: readonly Descriptor[];
}

const PARALLEL = 3;
const ACCEPT = [
  mediaTypes.ociManifest,
  mediaTypes.ociIndex,
  mediaTypes.dockerManifest,
  mediaTypes.dockerIndex,
  mediaTypes.dockerSchema1,
].join(', ');

/** @param name - `host/path` */
export function openReader(host: Host, name: string): RegistryReader {
  const endpoints = registryAccess(name);
  const skopeo = new SkopeoReader(host, name);
  if (endpoints === undefined) return skopeo;
  return new NativeReader(new RegistryClient(host, endpoints), (image, cache) => skopeo.judge(image, cache));
}

/** Asks the registry itself. Whether the policy allows an image, `judge` says. */
export class NativeReader implements RegistryReader {
  readonly #client: RegistryClient;
  readonly #judge: (image: ImageLayers, cache: BlobCache) => Promise<void>;

  constructor(client: RegistryClient, judge: (image: ImageLayers, cache: BlobCache) => Promise<void>) {
    this.#client = client;
    this.#judge = judge;
  }

  manifest(which: { readonly tag: string } | { readonly digest: OciDigest }, maxBytes: number): Promise<Uint8Array> {
    const name = 'tag' in which ? which.tag : which.digest;
    return this.#client.document(`manifests/${name}`, { accept: ACCEPT }, maxBytes);
  }

  config({ config }: { readonly config: OciDigest }, maxBytes: number): Promise<Uint8Array> {
    return this.#client.document(`blobs/${config}`, {}, maxBytes);
  }

  async layers(image: ImageLayers, cache: BlobCache, onBytes: (bytes: number) => void): Promise<void> {
    await this.#judge(image, cache);
    const arrived = new Map<OciDigest, number>();
    const queue = [...image.missing];
    let failed = false;
    const work = async (): Promise<void> => {
      for (let layer = queue.shift(); layer !== undefined && !failed; layer = queue.shift()) {
        const { digest } = layer;
        try {
          await this.#layer(layer, cache, (bytes) => {
            arrived.set(digest, bytes);
            onBytes([...arrived.values()].reduce((sum, some) => sum + some, 0));
          });
        } catch (error) {
          failed = true;
          throw error;
        }
      }
    };
    // All come to their end before the first failure is told: nobody writes after that.
    const results = await Promise.allSettled(Array.from({ length: PARALLEL }, work));
    const broken = results.find((result) => result.status === 'rejected');
    if (broken !== undefined) throw broken.reason;
  }

  async #layer(layer: Descriptor, cache: BlobCache, onBytes: (bytes: number) => void): Promise<void> {
    const partial = cache.openPartial(layer.digest);
    try {
      await downloadBlob(this.#client, layer, partial.file, onBytes);
      fs.renameSync(partial.file, cache.fileOf(layer.digest));
    } finally {
      partial.close();
    }
  }
}

/** Has skopeo ask. */
export class SkopeoReader implements RegistryReader {
  readonly #host: Host;
  readonly #name: string;

  constructor(host: Host, name: string) {
    this.#host = host;
    this.#name = name;
  }

  manifest(which: { readonly tag: string } | { readonly digest: OciDigest }, maxBytes: number): Promise<Uint8Array> {
    const source =
      'tag' in which
        ? { name: `docker://${this.#name}:${which.tag}`, failure: 'registry' as const }
        : this.#by(which.digest);
    return inspectManifest(this.#host, source, maxBytes);
  }

  config({ manifest }: { readonly manifest: OciDigest }, maxBytes: number): Promise<Uint8Array> {
    return inspectConfig(this.#host, this.#by(manifest), maxBytes);
  }

  /** Throws 'policy-rejected' unless the policy allows the image. */
  judge({ manifest, layers }: ImageLayers, cache: BlobCache): Promise<void> {
    const digests = layers.map(({ digest }) => digest);
    return withWorkDirectory(cache, (scratch) => checkPolicy(this.#host, this.#by(manifest), digests, scratch));
  }

  layers(image: ImageLayers, cache: BlobCache, onBytes: (bytes: number) => void): Promise<void> {
    return withWorkDirectory(cache, async (layout) => {
      const look = (): number => {
        const bytes = arrivedBytes(image.missing, cache, layout);
        onBytes(bytes);
        return bytes;
      };
      await copyLayers(this.#host, this.#by(image.manifest), { layout, blobs: cache.blobs }, look);
      look();
      for (const { digest, size } of image.missing) {
        if (!cache.has(digest, size)) throw new HostctlError('registry', `Layer ${digest} did not come`);
      }
    });
  }

  #by(digest: OciDigest): SkopeoSource {
    return { name: `docker://${this.#name}@${digest}`, failure: 'registry' };
  }
}

/** Of skopeo's work: finished blobs, and what it has of the others in files beside. */
function arrivedBytes(missing: readonly Descriptor[], cache: BlobCache, layout: string): number {
  const finished = missing.filter(({ digest, size }) => cache.has(digest, size));
  const partial = listNames(layout).filter((name) => name.startsWith('oci-put-blob'));
  const sizes = [
    ...finished.map(({ size }) => size),
    ...partial.map((name) => fs.statSync(`${layout}/${name}`, { throwIfNoEntry: false })?.size ?? 0),
  ];
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function withWorkDirectory<T>(cache: BlobCache, body: (path: string) => Promise<T>): Promise<T> {
  const path = cache.makeWorkDirectory();
  try {
    return await body(path);
  } finally {
    removeQuietly(path);
  }
}
