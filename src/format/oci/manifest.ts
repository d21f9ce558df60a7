/**
 * Image manifests (image-spec manifest.md; Docker schema 2). A parsed manifest names a config and at least one layer
 * of types hostctl can read; anything else is refused here, before a blob is opened.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, rawFromText } from '../../tree/name.ts';
import { parseDescriptor, type Descriptor } from './descriptor.ts';
import { checkSchemaVersion, optionalString, optionalStringMap, requiredArray } from './fields.ts';
import { parseJsonObject, type JsonObject } from './json.ts';
import { bareMediaType, mediaTypeRole, mediaTypes, type LayerCompression } from './media-types.ts';

/** What registries guarantee to take, for a manifest or an index. */
export const MAX_MANIFEST_BYTES = 4 << 20;
const MAX_LAYERS = 512;
const MAX_LAYER_BYTES = 64 * 2 ** 30;

export interface LayerDescriptor extends Descriptor {
  readonly compression: LayerCompression;
}

export interface Manifest {
  readonly config: Descriptor;
  /** The base first; never empty. */
  readonly layers: readonly LayerDescriptor[];
  readonly annotations: ReadonlyMap<string, string>;
}

/** Parses the manifest that a descriptor of `mediaType` led to. */
export function parseManifest(bytes: Uint8Array, mediaType: string): Manifest {
  const document = parseJsonObject(bytes, 'Manifest', MAX_MANIFEST_BYTES);
  checkSchemaVersion(document, 'Manifest');
  checkStatedType(document, 'Manifest', mediaType);
  if (document.has('manifests')) {
    throw new HostctlError('image-invalid', 'Manifest has "manifests" too, so it could be read as an index');
  }
  const config = parseDescriptor(document.get('config'), 'Config of the manifest');
  if (mediaTypeRole(config.mediaType).role !== 'config') {
    const stated = optionalString(document, 'artifactType', 'Manifest') ?? config.mediaType;
    throw new HostctlError('image-unsupported', `Manifest is not an image but "${shown(stated)}"`);
  }
  return {
    config,
    layers: parseLayers(document),
    annotations: optionalStringMap(document, 'annotations', 'Manifest'),
  };
}

/**
 * Media type and size of a document that no descriptor led to: what it says it is, or what it looks like. Throws
 * 'image-unsupported' for what can lead to no image.
 */
export function describeDocument(bytes: Uint8Array): Pick<Descriptor, 'mediaType' | 'size'> {
  const document = parseJsonObject(bytes, 'Manifest', MAX_MANIFEST_BYTES);
  const stated = optionalString(document, 'mediaType', 'Manifest');
  const looksLike = document.get('schemaVersion') === 1 ? mediaTypes.dockerSchema1 : undefined;
  const mediaType = stated ?? looksLike ?? (document.has('manifests') ? mediaTypes.ociIndex : mediaTypes.ociManifest);
  const { role } = mediaTypeRole(mediaType);
  if (role === 'index' || role === 'manifest' || role === 'schema1') return { mediaType, size: bytes.length };
  throw new HostctlError('image-unsupported', `Manifest is not an image but "${shown(mediaType)}"`);
}

/** A document that states its own media type must state the one it was reached by (CVE-2021-41190). */
export function checkStatedType(document: JsonObject, what: string, mediaType: string): void {
  const stated = optionalString(document, 'mediaType', what);
  if (stated !== undefined && bareMediaType(stated) !== bareMediaType(mediaType)) {
    throw new HostctlError(
      'image-invalid',
      `${what} says it is "${shown(stated)}", its descriptor "${shown(mediaType)}"`,
    );
  }
}

function parseLayers(document: JsonObject): LayerDescriptor[] {
  const values = requiredArray(document, 'layers', 'Manifest');
  if (values.length === 0) throw new HostctlError('image-unsupported', 'Manifest has no layers');
  if (values.length > MAX_LAYERS) {
    throw new HostctlError('image-unsupported', `Manifest has ${values.length} layers, at most ${MAX_LAYERS} are read`);
  }
  return values.map((value, i) => {
    const where = `Layer ${i + 1} of ${values.length}`;
    const layer = parseDescriptor(value, where);
    const type = mediaTypeRole(layer.mediaType);
    if (type.role !== 'layer') {
      throw new HostctlError('image-unsupported', `${where} has the media type "${shown(layer.mediaType)}"`);
    }
    if (layer.size > MAX_LAYER_BYTES) {
      throw new HostctlError(
        'image-unsupported',
        `${where} has ${layer.size} bytes, at most ${MAX_LAYER_BYTES} are read`,
      );
    }
    return { ...layer, compression: type.compression };
  });
}

function shown(text: string): string {
  return displayRaw(rawFromText(text.slice(0, 200)));
}
