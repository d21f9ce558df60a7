/**
 * Image indexes (image-spec image-index.md; Docker manifest lists) and the choice of the entry for a platform. Types
 * hostctl does not know are no error in an index; they are only never chosen.
 */

import { HostctlError } from '../../errors.ts';
import { parseDescriptor, type Descriptor, type Platform } from './descriptor.ts';
import { checkSchemaVersion, requiredArray } from './fields.ts';
import { parseJsonObject } from './json.ts';
import { checkStatedType, MAX_MANIFEST_BYTES } from './manifest.ts';
import { mediaTypeRole } from './media-types.ts';

const MAX_ENTRIES = 1000;

/** Parses an index; `mediaType` is what its descriptor says, or the OCI type for a layout's `index.json`. */
export function parseIndex(bytes: Uint8Array, mediaType: string, what = 'Index'): readonly Descriptor[] {
  const document = parseJsonObject(bytes, what, MAX_MANIFEST_BYTES);
  checkSchemaVersion(document, what);
  checkStatedType(document, what, mediaType);
  if (document.has('layers') || document.has('config')) {
    throw new HostctlError('image-invalid', `${what} has "layers" or "config" too, so it could be read as a manifest`);
  }
  const entries = requiredArray(document, 'manifests', what);
  if (entries.length > MAX_ENTRIES) {
    throw new HostctlError(
      'image-unsupported',
      `${what} has ${entries.length} entries, at most ${MAX_ENTRIES} are read`,
    );
  }
  return entries.map((entry, i) => parseDescriptor(entry, `Entry ${i + 1} of the ${what.toLowerCase()}`));
}

/** Whether an entry of an index can lead to an image at all. */
export function isImageEntry(entry: Descriptor): boolean {
  const { role } = mediaTypeRole(entry.mediaType);
  const { platform } = entry;
  const isAttestation =
    entry.annotations.get('vnd.docker.reference.type') === 'attestation-manifest' ||
    (platform?.os === 'unknown' && platform.architecture === 'unknown');
  // Seals and signatures lie beside the image they speak of.
  const isArtifact = entry.artifactType !== undefined && mediaTypeRole(entry.artifactType).role !== 'config';
  return (role === 'index' || role === 'manifest' || role === 'schema1') && !isAttestation && !isArtifact;
}

/**
 * The entries to try for `host`, best first: those whose platform fits, an exact variant before lower ones, each in
 * the order of the index. Only when none states a fitting platform, those without one.
 */
export function entriesForPlatform(entries: readonly Descriptor[], host: Platform): readonly Descriptor[] {
  const images = entries.filter(isImageEntry);
  const ranked = images.flatMap((entry) => {
    const rank = entry.platform === undefined ? undefined : platformDistance(entry.platform, host);
    return rank === undefined ? [] : [{ entry, rank }];
  });
  if (ranked.length === 0) return images.filter((entry) => entry.platform === undefined);
  return ranked.toSorted((a, b) => a.rank - b.rank).map(({ entry }) => entry);
}

/**
 * How far `image` is below what `host` can run: 0 for the same variant, more for older ones, undefined when it does
 * not run there.
 */
export function platformDistance(image: Platform, host: Platform): number | undefined {
  if (image.os !== host.os || image.architecture !== host.architecture) return undefined;
  const imageVariant = image.variant ?? DEFAULT_VARIANTS.get(image.architecture);
  const hostVariant = host.variant ?? DEFAULT_VARIANTS.get(host.architecture);
  if (imageVariant === hostVariant) return 0;
  const imageLevel = variantLevel(imageVariant);
  const hostLevel = variantLevel(hostVariant);
  if (imageLevel === undefined || hostLevel === undefined || imageLevel > hostLevel) return undefined;
  return hostLevel - imageLevel;
}

/** What an absent variant means. */
const DEFAULT_VARIANTS = new Map([
  ['amd64', 'v1'],
  ['arm64', 'v8'],
  ['arm', 'v7'],
]);

/** `v7` as 7, `v8.2` as 8.2; each level runs the lower ones. */
function variantLevel(variant: string | undefined): number | undefined {
  const match = /^v([0-9]{1,2}(?:\.[0-9])?)$/.exec(variant ?? '');
  return match === null ? undefined : Number(match[1]);
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}
