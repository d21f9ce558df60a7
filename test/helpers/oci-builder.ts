/**
 * OCI layouts on disk, right or wrong in any way: `ociLayout(scratchDir(), { layers: [{ tar: tar([…]) }] })`. What is
 * not given is made to fit; `edit` hooks change documents before they are written and named.
 */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

export type Compression = 'none' | 'gzip' | 'zstd';
export type Json = Record<string, unknown>;

export interface LayerSpec {
  readonly tar: Uint8Array;
  readonly compression?: Compression;
  /** The blob, if it shall not be the compressed tar. */
  readonly blob?: Uint8Array;
  readonly mediaType?: string;
  readonly diffId?: string;
  readonly digest?: string;
  readonly size?: number;
  readonly annotations?: Record<string, string>;
}

export interface LayoutSpec {
  readonly layers: readonly LayerSpec[];
  readonly architecture?: string;
  readonly os?: string;
  readonly labels?: Record<string, string>;
  readonly tag?: string;
  readonly docker?: boolean;
  readonly editConfig?: (config: Json) => unknown;
  readonly editManifest?: (manifest: Json) => unknown;
  readonly editIndex?: (index: Json) => unknown;
  /** Content of `oci-layout`. */
  readonly layoutFile?: string;
}

export interface BuiltLayout {
  readonly directory: string;
  readonly manifestDigest: string;
  readonly manifest: Descriptor;
  readonly config: Descriptor;
}

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Record<string, string>;
  readonly platform?: Json;
}

const oci = 'application/vnd.oci.image';
const docker = 'application/vnd.docker';

export const layerTypes: Readonly<Record<Compression, string>> = {
  none: `${oci}.layer.v1.tar`,
  gzip: `${oci}.layer.v1.tar+gzip`,
  zstd: `${oci}.layer.v1.tar+zstd`,
};

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export function compress(bytes: Uint8Array, compression: Compression): Uint8Array {
  if (compression === 'gzip') return gzipSync(bytes, { level: 1 });
  if (compression === 'zstd') return zstd(bytes);
  return bytes;
}

export function zstd(bytes: Uint8Array, args: readonly string[] = []): Buffer {
  return execFileSync('zstd', ['-qc', ...args], { input: bytes, maxBuffer: 1 << 30 });
}

/** Writes a layout with one image and says what is in it. */
export function ociLayout(directory: string, spec: LayoutSpec): BuiltLayout {
  const layers = spec.layers.map((layer) => writeLayer(directory, layer));
  const config = writeJson(directory, {
    mediaType: spec.docker === true ? `${docker}.container.image.v1+json` : `${oci}.config.v1+json`,
    value: edited(spec.editConfig, {
      architecture: spec.architecture ?? 'amd64',
      os: spec.os ?? 'linux',
      config: { Labels: spec.labels ?? {} },
      rootfs: { type: 'layers', diff_ids: spec.layers.map((layer) => layer.diffId ?? sha256(layer.tar)) },
      history: [{ created_by: 'a step without a layer', empty_layer: true }],
    }),
  });
  const manifestType = spec.docker === true ? `${docker}.distribution.manifest.v2+json` : `${oci}.manifest.v1+json`;
  const manifest = writeJson(directory, {
    mediaType: manifestType,
    value: edited(spec.editManifest, { schemaVersion: 2, mediaType: manifestType, config, layers }),
  });
  const tagged = spec.tag === undefined ? manifest : { ...manifest, annotations: refName(spec.tag) };
  writeIndex(directory, edited(spec.editIndex, { schemaVersion: 2, manifests: [tagged] }));
  writeFileSync(`${directory}/oci-layout`, spec.layoutFile ?? '{"imageLayoutVersion":"1.0.0"}');
  return { directory, manifestDigest: manifest.digest, manifest, config };
}

export function refName(tag: string): Record<string, string> {
  return { 'org.opencontainers.image.ref.name': tag };
}

export function writeIndex(directory: string, index: unknown): void {
  writeFileSync(`${directory}/index.json`, typeof index === 'string' ? index : JSON.stringify(index));
}

/** Writes a document as a blob; a string is written as it is. */
export function writeJson(directory: string, { mediaType, value }: { mediaType: string; value: unknown }): Descriptor {
  const bytes = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
  return { mediaType, digest: writeBlob(directory, bytes), size: bytes.length };
}

/** Writes a blob under its digest, or under another one. */
export function writeBlob(directory: string, bytes: Uint8Array, digest = sha256(bytes)): string {
  mkdirSync(`${directory}/blobs/sha256`, { recursive: true });
  writeFileSync(`${directory}/blobs/${digest.replace(':', '/')}`, bytes);
  return digest;
}

function writeLayer(directory: string, layer: LayerSpec): Descriptor {
  const compression = layer.compression ?? 'gzip';
  const blob = layer.blob ?? compress(layer.tar, compression);
  return {
    mediaType: layer.mediaType ?? layerTypes[compression],
    digest: writeBlob(directory, blob, layer.digest),
    size: layer.size ?? blob.length,
    ...(layer.annotations === undefined ? {} : { annotations: layer.annotations }),
  };
}

function edited(edit: ((document: Json) => unknown) | undefined, document: Json): unknown {
  return edit === undefined ? document : edit(document);
}
