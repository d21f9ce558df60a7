/** The two ways to read from a registry: by hostctl itself, or by skopeo where only that knows how. */

import * as fs from 'node:fs';
import { HostctlError, isHostctlError } from '../../errors.ts';
import type { Descriptor } from '../../format/oci/descriptor.ts';
import type { DiffId, OciDigest } from '../../format/oci/digest.ts';
import { mediaTypes } from '../../format/oci/media-types.ts';
import { chunkedLayer } from '../../format/zstd/chunked.ts';
import type { BlobCache } from '../../store/blob-cache.ts';
import type { Contents } from '../../store/contents.ts';
import { listNames, removeQuietly } from '../../sys/files.ts';
import type { Host } from '../../sys/host.ts';
import { NO_REFERRERS, type Referrers } from '../referrers.ts';
import { checkPolicy, copyLayers, inspectConfig, inspectManifest, type SkopeoSource } from '../skopeo.ts';
import { registryAccess } from './access.ts';
import { RegistryClient } from './client.ts';
import { downloadBlob } from './download.ts';
import { fetchPartialLayer } from './partial-layer.ts';
import { registryReferrers } from './referrers.ts';

/** Documents come unchecked, blobs checked. */
export interface RegistryReader {
  manifest(which: { readonly tag: string } | { readonly digest: OciDigest }, maxBytes: number): Promise<Uint8Array>;
  config(of: { readonly manifest: OciDigest; readonly config: OciDigest }, maxBytes: number): Promise<Uint8Array>;
  /**
   * Brings `missing` into the cache, of the layers of an image that the policy allows: each as its blob, or unpacked as a
   * blob with its diff id as digest. Returns how many bytes of layers came.
   */
  layers(image: ImageLayers, cache: BlobCache, onBytes: (bytes: number) => void): Promise<number>;
  /** What speaks of an image. */
  referrers(manifest: OciDigest): Referrers;
}

export interface ImageLayers {
  readonly manifest: OciDigest;
  readonly layers: readonly Descriptor[];
  readonly missing: readonly MissingLayer[];
}

export type MissingLayer = Descriptor & { readonly diffId: DiffId };

const PARALLEL = 3;
const NO_CONTENTS: Contents = new Map();
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
  return new NativeReader(host, new RegistryClient(host, endpoints), (image, cache) => skopeo.judge(image, cache));
}

/** For what only hostctl does itself. Throws 'host-unsupported' where only skopeo could. */
export function openClient(host: Host, name: string): RegistryClient {
  const endpoints = registryAccess(name);
  if (endpoints !== undefined) return new RegistryClient(host, endpoints);
  throw new HostctlError('host-unsupported', `How "${name}" is reached, only skopeo knows`, {
    hint: 'See docs/transports.md for what hostctl understands of registries.conf',
  });
}

/** Asks the registry itself. Whether the policy allows an image, `judge` says. */
export class NativeReader implements RegistryReader {
  readonly #host: Host;
  readonly #client: RegistryClient;
  readonly #judge: (image: ImageLayers, cache: BlobCache) => Promise<void>;

  constructor(host: Host, client: RegistryClient, judge: (image: ImageLayers, cache: BlobCache) => Promise<void>) {
    this.#host = host;
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

  referrers(manifest: OciDigest): Referrers {
    return registryReferrers(this.#client, manifest);
  }

  async layers(image: ImageLayers, cache: BlobCache, onBytes: (bytes: number) => void): Promise<number> {
    await this.#judge(image, cache);
    const contents = image.missing.some((layer) => chunkedLayer(layer)) ? cache.contents() : NO_CONTENTS;
    const arrived = new Map<OciDigest, number>();
    let transferred = 0;
    const queue = [...image.missing];
    let failed = false;
    const work = async (): Promise<void> => {
      for (let layer = queue.shift(); layer !== undefined && !failed; layer = queue.shift()) {
        const { digest } = layer;
        try {
          const onLayerBytes = (bytes: number): void => {
            arrived.set(digest, bytes);
            onBytes([...arrived.values()].reduce((sum, some) => sum + some, 0));
          };
          const { isComplete, bytes } = await this.#parts(layer, cache, contents);
          transferred += bytes;
          if (isComplete) {
            onLayerBytes(layer.size);
            continue;
          }
          await this.#layer(layer, cache, onLayerBytes);
          transferred += layer.size;
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
    return transferred;
  }

  /** Tries to do with parts of a layer. Whatever is against it, the whole layer is left to fetch. */
  async #parts(
    layer: MissingLayer,
    cache: BlobCache,
    contents: Contents,
  ): Promise<{ readonly isComplete: boolean; readonly bytes: number }> {
    const chunked = chunkedLayer(layer);
    if (chunked === undefined || contents.size === 0) return { isComplete: false, bytes: 0 };
    let bytes = 0;
    const sources = {
      client: this.#client,
      findObject: (sha256: string) => cache.objectOf(contents.get(sha256)),
      onBytes: (more: number) => void (bytes += more),
    };
    const target = cache.temporaryFile();
    try {
      const isComplete = await fetchPartialLayer(
        this.#host,
        { blob: layer, diffId: layer.diffId, chunked },
        sources,
        target,
      );
      if (isComplete) fs.renameSync(target, cache.fileOf(layer.diffId as string as OciDigest));
      return { isComplete, bytes };
    } catch (error) {
      if (!isHostctlError(error) || error.code === 'interrupted') throw error;
      this.#host.log.info(`Fetching layer ${layer.digest} whole: ${error.message}`);
      return { isComplete: false, bytes };
    } finally {
      removeQuietly(target);
    }
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

  /** skopeo cannot ask for them. */
  referrers(): Referrers {
    return NO_REFERRERS;
  }

  layers(image: ImageLayers, cache: BlobCache, onBytes: (bytes: number) => void): Promise<number> {
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
      return image.missing.reduce((sum, { size }) => sum + size, 0);
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
