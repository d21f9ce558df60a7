/**
 * The media types of OCI and Docker images and what each one is to hostctl. Types compare without case and
 * parameters (RFC 6838); a type in no table is `unknown`, which an index may hold and a manifest may not.
 */

export type LayerCompression = 'none' | 'gzip' | 'zstd';

export type MediaTypeRole =
  | { readonly role: 'index' | 'manifest' | 'config' | 'schema1' | 'unknown' }
  | { readonly role: 'layer'; readonly compression: LayerCompression };

const oci = 'application/vnd.oci.image';
const docker = 'application/vnd.docker';

export const mediaTypes = {
  ociIndex: `${oci}.index.v1+json`,
  ociManifest: `${oci}.manifest.v1+json`,
  ociConfig: `${oci}.config.v1+json`,
  ociLayer: `${oci}.layer.v1.tar`,
  ociLayerGzip: `${oci}.layer.v1.tar+gzip`,
  ociLayerZstd: `${oci}.layer.v1.tar+zstd`,
  ociEmpty: 'application/vnd.oci.empty.v1+json',
  dockerIndex: `${docker}.distribution.manifest.list.v2+json`,
  dockerManifest: `${docker}.distribution.manifest.v2+json`,
  dockerSchema1: `${docker}.distribution.manifest.v1+prettyjws`,
  dockerConfig: `${docker}.container.image.v1+json`,
  dockerLayerGzip: `${docker}.image.rootfs.diff.tar.gzip`,
} as const;

const roles = new Map<string, MediaTypeRole>([
  [mediaTypes.ociIndex, { role: 'index' }],
  [mediaTypes.dockerIndex, { role: 'index' }],
  [mediaTypes.ociManifest, { role: 'manifest' }],
  [mediaTypes.dockerManifest, { role: 'manifest' }],
  [mediaTypes.ociConfig, { role: 'config' }],
  [mediaTypes.dockerConfig, { role: 'config' }],
  [`${docker}.distribution.manifest.v1+json`, { role: 'schema1' }],
  [mediaTypes.dockerSchema1, { role: 'schema1' }],
  [mediaTypes.ociLayer, { role: 'layer', compression: 'none' }],
  [mediaTypes.ociLayerGzip, { role: 'layer', compression: 'gzip' }],
  [mediaTypes.ociLayerZstd, { role: 'layer', compression: 'zstd' }],
  [`${oci}.layer.nondistributable.v1.tar`, { role: 'layer', compression: 'none' }],
  [`${oci}.layer.nondistributable.v1.tar+gzip`, { role: 'layer', compression: 'gzip' }],
  [`${oci}.layer.nondistributable.v1.tar+zstd`, { role: 'layer', compression: 'zstd' }],
  [mediaTypes.dockerLayerGzip, { role: 'layer', compression: 'gzip' }],
  [`${docker}.image.rootfs.diff.tar`, { role: 'layer', compression: 'none' }],
  [`${docker}.image.rootfs.diff.tar.zstd`, { role: 'layer', compression: 'zstd' }],
  [`${docker}.image.rootfs.foreign.diff.tar.gzip`, { role: 'layer', compression: 'gzip' }],
]);

/** The type without parameters, in lower case. */
export function bareMediaType(mediaType: string): string {
  return mediaType.split(';', 1)[0]!.trim().toLowerCase();
}

/** What a blob of this media type is. */
export function mediaTypeRole(mediaType: string): MediaTypeRole {
  return roles.get(bareMediaType(mediaType)) ?? { role: 'unknown' };
}
