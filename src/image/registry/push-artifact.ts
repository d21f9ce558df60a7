/** Puts an artifact beside an image in a registry (distribution-spec 1.1, "Pushing Manifests with Subject"). */

import { HostctlError } from '../../errors.ts';
import { formatArtifact, type ArtifactBlob, type NewArtifact } from '../../format/oci/artifact.ts';
import type { OciDigest } from '../../format/oci/digest.ts';
import type { RegistryClient } from './client.ts';

/**
 * The manifest comes last, when everything that it names is there. A registry that does not answer that it has put it
 * beside its subject gets it once more, under `fallbackTag`. Returns the digest of the manifest.
 */
export async function pushArtifact(
  client: RegistryClient,
  artifact: NewArtifact,
  fallbackTag: string,
): Promise<OciDigest> {
  const { manifest, blobs } = formatArtifact(artifact);
  for (const blob of blobs) await pushBlob(client, blob);
  const { digest, mediaType } = manifest.descriptor;
  const put = (reference: string) =>
    client.send({
      method: 'PUT',
      path: `manifests/${reference}`,
      headers: { 'content-type': mediaType },
      body: manifest.bytes,
    });
  const headers = await put(digest);
  if (headers['oci-subject'] === undefined) await put(fallbackTag);
  return digest;
}

async function pushBlob(client: RegistryClient, { descriptor, bytes }: ArtifactBlob): Promise<void> {
  const { location } = await client.send({ method: 'POST', path: 'blobs/uploads/' });
  if (location === undefined) throw new HostctlError('registry', 'The registry does not say where a blob is to go');
  await client.send({
    method: 'PUT',
    path: `${location}${location.includes('?') ? '&' : '?'}digest=${encodeURIComponent(descriptor.digest)}`,
    headers: { 'content-type': 'application/octet-stream' },
    body: bytes,
  });
}
