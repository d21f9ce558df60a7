/**
 * What lies beside an image and speaks of it: seals and signatures, found by the digest of the manifest we hold. All of
 * it comes from where the image comes from and proves nothing by itself: absence, too, is the publisher's word or an
 * attacker's. One that is broken is passed over, so that it cannot stand in the way of another.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { MAX_ARTIFACT_BYTES, MAX_ARTIFACTS, parseArtifact, type Artifact } from '../format/oci/artifact.ts';
import type { Descriptor } from '../format/oci/descriptor.ts';
import { blobPath, type OciDigest } from '../format/oci/digest.ts';
import { parseIndex } from '../format/oci/index.ts';
import { REF_NAME_ANNOTATION } from '../format/oci/layout.ts';
import { MAX_MANIFEST_BYTES } from '../format/oci/manifest.ts';
import { mediaTypeRole, mediaTypes } from '../format/oci/media-types.ts';
import { readBlob, readLayoutFile } from './blob.ts';
import { RegistryRefused } from './registry/client.ts';

/** One artifact with everything it holds. */
export interface Referrer {
  readonly digest: OciDigest;
  readonly parts: readonly ReferrerPart[];
}

export interface ReferrerPart {
  readonly mediaType: string;
  readonly annotations: ReadonlyMap<string, string>;
  readonly bytes: Uint8Array;
}

/** Where an image comes from, asked for what speaks of it. At most 64 artifacts of 64 KiB are looked at. */
export interface Referrers {
  /** Artifacts of this type with our manifest as their subject. */
  ofType(artifactType: string): Promise<readonly Referrer[]>;
  /** The artifact that has this tag beside the image, whatever its subject. */
  tagged(tag: string): Promise<Referrer | undefined>;
}

/** Of places that are not asked: as if nothing spoke of the image, which a policy that wants a seal refuses. */
export const NO_REFERRERS: Referrers = {
  ofType: () => Promise.resolve([]),
  tagged: () => Promise.resolve(undefined),
};

/** Annotation of an entry in `index.json`: the manifest it speaks of. */
export const SUBJECT_ANNOTATION = 'vnd.hostctl.subject';

/** Those of an image in a layout. */
export function layoutReferrers(directory: string, manifestDigest: OciDigest): Referrers {
  const entries = (): readonly Descriptor[] =>
    parseIndex(readLayoutFile(`${directory}/index.json`, MAX_MANIFEST_BYTES), mediaTypes.ociIndex, 'File "index.json"');
  const read: ReadBlob = (descriptor, what) =>
    Promise.resolve(readBlob(`${directory}/${blobPath(descriptor.digest)}`, descriptor, what, MAX_ARTIFACT_BYTES));
  return {
    ofType: async (type) => {
      const fitting = entries().filter(
        ({ annotations }) => (annotations.get(SUBJECT_ANNOTATION) ?? manifestDigest) === manifestDigest,
      );
      return readReferrers(fitting, { type, subject: manifestDigest }, read);
    },
    tagged: async (tag) => {
      const entry = entries().find(({ annotations }) => annotations.get(REF_NAME_ANNOTATION) === tag);
      return entry === undefined ? undefined : readReferrer(entry, () => true, read);
    },
  };
}

/** Reads the manifest of an artifact, or a part of one, and compares it with its descriptor. */
export type ReadBlob = (descriptor: Descriptor, what: string, role: 'manifest' | 'part') => Promise<Uint8Array>;

/** Those of `entries` that are of this type and about this manifest, as they themselves say. */
export async function readReferrers(
  entries: readonly Descriptor[],
  { type, subject }: { readonly type: string; readonly subject: OciDigest },
  read: ReadBlob,
): Promise<readonly Referrer[]> {
  const found: Referrer[] = [];
  for (const entry of entries.filter(({ artifactType }) => artifactType === type).slice(0, MAX_ARTIFACTS)) {
    const isWanted = (artifact: Artifact): boolean => artifact.artifactType === type && artifact.subject === subject;
    const referrer = await readReferrer(entry, isWanted, read);
    if (referrer !== undefined) found.push(referrer);
  }
  return found;
}

/** Reads an artifact by its parts; undefined for one that is broken, too large, or not wanted. */
export async function readReferrer(
  entry: Descriptor,
  isWanted: (artifact: Artifact) => boolean,
  read: ReadBlob,
): Promise<Referrer | undefined> {
  if (mediaTypeRole(entry.mediaType).role !== 'manifest') return undefined;
  try {
    const artifact = parseArtifact(await read(entry, 'Artifact', 'manifest'));
    if (!isWanted(artifact)) return undefined;
    const parts: ReferrerPart[] = [];
    for (const layer of artifact.layers) {
      const { mediaType, annotations } = layer;
      parts.push({ mediaType, annotations, bytes: await read(layer, 'Part of the artifact', 'part') });
    }
    return { digest: entry.digest, parts };
  } catch (error) {
    // What a registry does not give is as good as not there; that it cannot be asked is another matter.
    if (error instanceof RegistryRefused) return undefined;
    if (error instanceof HostctlError && !isHostctlError(error, 'io', 'internal', 'registry', 'interrupted')) {
      return undefined;
    }
    throw error;
  }
}
