/**
 * What lies beside an image in a registry: by the referrers API of distribution-spec 1.1, or where there is none, by the
 * tags that the specification and cosign have in its place.
 */

import { HostctlError } from '../../errors.ts';
import { MAX_ARTIFACT_BYTES } from '../../format/oci/artifact.ts';
import { checkContent, type Descriptor } from '../../format/oci/descriptor.ts';
import { digestLike, type OciDigest } from '../../format/oci/digest.ts';
import { parseIndex } from '../../format/oci/index.ts';
import { describeDocument, MAX_MANIFEST_BYTES } from '../../format/oci/manifest.ts';
import { mediaTypes } from '../../format/oci/media-types.ts';
import { readReferrer, readReferrers, type ReadBlob, type Referrers } from '../referrers.ts';
import { RegistryRefused, type RegistryClient } from './client.ts';

const ACCEPT_INDEX = { accept: mediaTypes.ociIndex };
const ACCEPT_MANIFEST = { accept: mediaTypes.ociManifest };
/** An algorithm that every registry has. */
const SHA256 = 'sha256:' as OciDigest;

export function registryReferrers(client: RegistryClient, manifestDigest: OciDigest): Referrers {
  const read: ReadBlob = async (descriptor, what, role) => {
    if (descriptor.size > MAX_ARTIFACT_BYTES) {
      throw new HostctlError('image-unsupported', `${what} has more than ${MAX_ARTIFACT_BYTES} bytes`);
    }
    const place = role === 'manifest' ? 'manifests' : 'blobs';
    const headers = role === 'manifest' ? ACCEPT_MANIFEST : {};
    const bytes = await client.document(`${place}/${descriptor.digest}`, headers, MAX_ARTIFACT_BYTES);
    checkContent(bytes, descriptor, what);
    return bytes;
  };
  return {
    async ofType(type) {
      const asked = `referrers/${manifestDigest}?artifactType=${encodeURIComponent(type)}`;
      const bytes =
        (await ifGiven(client.document(asked, ACCEPT_INDEX, MAX_MANIFEST_BYTES))) ??
        (await listedByTag(client, manifestDigest));
      return bytes === undefined ? [] : readReferrers(entriesOf(bytes), { type, subject: manifestDigest }, read);
    },
    async tagged(tag) {
      const bytes = await ifGiven(client.document(`manifests/${tag}`, ACCEPT_MANIFEST, MAX_ARTIFACT_BYTES));
      if (bytes === undefined) return undefined;
      const digest = digestLike(SHA256, bytes);
      const entry = { ...describeDocument(bytes), digest, annotations: new Map<string, string>() };
      return readReferrer(
        entry,
        () => true,
        (descriptor, what, role) => (role === 'manifest' ? Promise.resolve(bytes) : read(descriptor, what, role)),
      );
    },
  };
}

/** The tag that stands for a digest, to which others add what it is a tag of. */
export function referrersTag(digest: OciDigest): string {
  return digest.replace(':', '-').slice(0, 128);
}

/** The list that a registry without the API has under that tag, unchecked; undefined where there is none. */
export async function listedByTag(client: RegistryClient, digest: OciDigest): Promise<Uint8Array | undefined> {
  return ifGiven(client.document(`manifests/${referrersTag(digest)}`, ACCEPT_INDEX, MAX_MANIFEST_BYTES));
}

/** Undefined where the registry says no: it has none, or not this way to ask. */
async function ifGiven(document: Promise<Uint8Array>): Promise<Uint8Array | undefined> {
  try {
    return await document;
  } catch (error) {
    if (error instanceof RegistryRefused && error.status >= 400 && error.status < 500) return undefined;
    throw error;
  }
}

/** None where what is there is no list: it comes from whoever may write there. */
function entriesOf(bytes: Uint8Array): readonly Descriptor[] {
  try {
    return parseIndex(bytes, mediaTypes.ociIndex, 'List of referrers');
  } catch (error) {
    if (error instanceof HostctlError) return [];
    throw error;
  }
}
