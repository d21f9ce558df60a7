/**
 * Image configs (image-spec config.md; Docker's is the same for our purpose): platform, labels and the diff ids that
 * pin the decompressed layers.
 */

import { HostctlError } from '../../errors.ts';
import { parsePlatform, type Platform } from './descriptor.ts';
import { parseDiffId, type DiffId } from './digest.ts';
import { optionalObject, optionalString, optionalStringMap, requiredArray, requiredObject } from './fields.ts';
import { parseJsonObject, type JsonObject } from './json.ts';

export const MAX_CONFIG_BYTES = 8 << 20;

export interface ImageConfig {
  readonly platform: Platform;
  /** One for each layer of the manifest. */
  readonly diffIds: readonly DiffId[];
  readonly labels: ReadonlyMap<string, string>;
  /** When the image was made, as stated (RFC 3339 by the spec, not checked). */
  readonly created?: string;
}

/** Parses the config of a manifest with `layerCount` layers. */
export function parseImageConfig(bytes: Uint8Array, layerCount: number): ImageConfig {
  const document = parseJsonObject(bytes, 'Config', MAX_CONFIG_BYTES);
  const rootfs = requiredObject(document, 'rootfs', 'Config');
  if (optionalString(rootfs, 'type', 'Config: rootfs') !== 'layers') {
    throw new HostctlError('image-invalid', 'Config has a "rootfs" that is not of type "layers"');
  }
  const diffIds = requiredArray(rootfs, 'diff_ids', 'Config: rootfs').map((value, i) => {
    if (typeof value !== 'string')
      throw new HostctlError('image-invalid', `Config has a diff id ${i + 1} that is not a string`);
    return parseDiffId(value, `Config: diff id ${i + 1}`);
  });
  if (diffIds.length !== layerCount) {
    throw new HostctlError('image-invalid', `Config has ${diffIds.length} diff ids for ${layerCount} layers`);
  }
  const created = optionalString(document, 'created', 'Config');
  return {
    platform: parsePlatform(document, 'Config'),
    diffIds,
    labels: parseLabels(document),
    ...(created === undefined ? {} : { created }),
  };
}

function parseLabels(document: JsonObject): ReadonlyMap<string, string> {
  const config = document.get('config') === null ? undefined : optionalObject(document, 'config', 'Config');
  return config === undefined ? new Map() : optionalStringMap(config, 'Labels', 'Config: config');
}
