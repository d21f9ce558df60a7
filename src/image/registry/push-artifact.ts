/** Puts an artifact beside an image in a registry (distribution-spec 1.1, "Pushing Manifests with Subject"). */

import { HostctlError } from '../../errors.ts';
import {
  formatArtifact,
  type ArtifactBlob,
  type NewArtifact,
  type PlainDescriptor,
} from '../../format/oci/artifact.ts';
import type { OciDigest } from '../../format/oci/digest.ts';
import { parseIndex } from '../../format/oci/index.ts';
import { mediaTypes } from '../../format/oci/media-types.ts';
import type { RegistryClient } from './client.ts';
import { listedByTag, referrersTag } from './referrers.ts';

/**
 * The manifest comes last, when everything that it names is there. A registry that does not answer that it has put it
 * beside its subject gets it once more, under `fallbackTag`; without one, it is added to the list under the tag that the
 * specification has for that. Returns the digest of the manifest.
 */
export async function pushArtifact(
  client: RegistryClient,
  artifact: NewArtifact,
  fallbackTag: string | undefined,
): Promise<OciDigest> {
  const { manifest, blobs } = formatArtifact(artifact);
  for (const blob of blobs) await pushBlob(client, blob);
  const { digest, mediaType } = manifest.descriptor;
  const put = (reference: string) => putManifest(client, reference, mediaType, manifest.bytes);
  const headers = await put(digest);
  if (headers['oci-subject'] !== undefined) return digest;
  if (fallbackTag === undefined) await listByTag(client, artifact, manifest.descriptor);
  else await put(fallbackTag);
  return digest;
}

function putManifest(client: RegistryClient, reference: string, mediaType: string, body: Uint8Array) {
  return client.send({ method: 'PUT', path: `manifests/${reference}`, headers: { 'content-type': mediaType }, body });
}

/** What others put into the list at the same time may be lost, as the specification warns. */
async function listByTag(client: RegistryClient, artifact: NewArtifact, descriptor: PlainDescriptor): Promise<void> {
  const { artifactType, subject } = artifact;
  const entries = entriesIn(await listedByTag(client, subject.digest));
  const manifests = [...entries.filter(({ digest }) => digest !== descriptor.digest), { ...descriptor, artifactType }];
  const list = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests };
  const tag = referrersTag(subject.digest);
  await putManifest(client, tag, mediaTypes.ociIndex, Buffer.from(JSON.stringify(list)));
}

/** With everything in them that is not ours to know. Throws 'image-invalid' for what is no list: it stays there. */
function entriesIn(list: Uint8Array | undefined): readonly PlainDescriptor[] {
  if (list === undefined) return [];
  parseIndex(list, mediaTypes.ociIndex, 'List of referrers');
  return (JSON.parse(Buffer.from(list).toString('utf8')) as { readonly manifests: readonly PlainDescriptor[] })
    .manifests;
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
