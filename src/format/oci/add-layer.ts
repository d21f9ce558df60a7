/**
 * An image with one layer more: its manifest and config as they were, but for what a further layer changes. Pure.
 */

import { HostctlError } from '../../errors.ts';
import { blobOf, type ArtifactBlob, type PlainDescriptor } from './artifact.ts';
import { bareMediaType, mediaTypes } from './media-types.ts';

export interface ImageDocuments {
  readonly manifestType: string;
  readonly manifestBytes: Uint8Array;
  readonly configBytes: Uint8Array;
}

/** What the config's history says of a layer. */
export interface LayerHistory {
  readonly created_by: string;
}

export interface ExtendedImage {
  readonly manifest: ArtifactBlob;
  readonly config: ArtifactBlob;
  readonly layer: ArtifactBlob;
}

/** Digests of the whole tree that manifest and config state, which is another one with each layer; of what boots it is not. */
const STALE = /^(composefs\.merged\.(?!bootable\.)|containers\.composefs\.fsverity$)/;

/**
 * @param tar - the layer, which is not compressed
 * Throws 'image-unsupported' for a manifest that is not OCI's.
 */
export function addLayer(image: ImageDocuments, tar: Uint8Array, history: LayerHistory): ExtendedImage {
  if (bareMediaType(image.manifestType) !== mediaTypes.ociManifest) {
    throw new HostctlError('image-unsupported', `Cannot add a layer to an image of type "${image.manifestType}"`, {
      hint: 'Copy it with "skopeo copy --format oci"',
    });
  }
  const layer = blobOf(mediaTypes.ociLayer, tar);
  // Both have been parsed, and are read once more with everything in them that is not ours to know.
  const config = JSON.parse(Buffer.from(image.configBytes).toString('utf8')) as ConfigDocument;
  const newConfig = blobOf(
    mediaTypes.ociConfig,
    jsonBytes({
      ...config,
      ...(config.config?.Labels ? { config: { ...config.config, Labels: withoutStale(config.config.Labels) } } : {}),
      rootfs: { ...config.rootfs, diff_ids: [...config.rootfs.diff_ids, layer.descriptor.digest] },
      ...(config.history === undefined ? {} : { history: [...config.history, history] }),
    }),
  );
  const manifest = JSON.parse(Buffer.from(image.manifestBytes).toString('utf8')) as ManifestDocument;
  const newManifest = {
    ...manifest,
    config: pointedTo(manifest.config, newConfig.descriptor),
    layers: [...manifest.layers, layer.descriptor],
    ...(manifest.annotations === undefined ? {} : { annotations: withoutStale(manifest.annotations) }),
  };
  return { manifest: blobOf(image.manifestType, jsonBytes(newManifest)), config: newConfig, layer };
}

/** A descriptor that names another document from now on; it may have held a copy of the old one. */
export function pointedTo(descriptor: AnyDescriptor, to: Partial<PlainDescriptor>): AnyDescriptor {
  const { annotations, ...rest } = descriptor;
  // What is undefined is not written.
  return { ...rest, data: undefined, ...(annotations && { annotations: withoutStale(annotations) }), ...to };
}

interface AnyDescriptor {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly [key: string]: unknown;
}

function withoutStale(values: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(values).filter(([name]) => !STALE.test(name)));
}

interface ConfigDocument {
  readonly config?: { readonly Labels?: Readonly<Record<string, string>> | null };
  readonly rootfs: { readonly diff_ids: readonly string[] };
  readonly history?: readonly unknown[];
}

interface ManifestDocument {
  readonly config: AnyDescriptor;
  readonly layers: readonly unknown[];
  readonly annotations?: Readonly<Record<string, string>>;
}

function jsonBytes(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}
