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
  const read = (entry: Descriptor, isWanted: (artifact: Artifact) => boolean): Referrer | undefined =>
    readReferrer(entry, isWanted, (descriptor, what) =>
      readBlob(`${directory}/${blobPath(descriptor.digest)}`, descriptor, what, MAX_ARTIFACT_BYTES),
    );
  return {
    ofType: (type) => {
      const fitting = entries().filter(
        ({ artifactType, annotations }) =>
          artifactType === type && (annotations.get(SUBJECT_ANNOTATION) ?? manifestDigest) === manifestDigest,
      );
      const isOurs = ({ artifactType, subject }: Artifact): boolean =>
        artifactType === type && subject === manifestDigest;
      return Promise.resolve(fitting.slice(0, MAX_ARTIFACTS).flatMap((entry) => read(entry, isOurs) ?? []));
    },
    tagged: (tag) => {
      const entry = entries().find(({ annotations }) => annotations.get(REF_NAME_ANNOTATION) === tag);
      return Promise.resolve(entry === undefined ? undefined : read(entry, () => true));
    },
  };
}

/** Reads an artifact by its parts; undefined for one that is broken, too large, or not wanted. */
function readReferrer(
  entry: Descriptor,
  isWanted: (artifact: Artifact) => boolean,
  readPart: (descriptor: Descriptor, what: string) => Uint8Array,
): Referrer | undefined {
  if (mediaTypeRole(entry.mediaType).role !== 'manifest') return undefined;
  try {
    const artifact = parseArtifact(readPart(entry, 'Artifact'));
    if (!isWanted(artifact)) return undefined;
    return {
      digest: entry.digest,
      parts: artifact.layers.map((layer) => ({
        mediaType: layer.mediaType,
        annotations: layer.annotations,
        bytes: readPart(layer, 'Part of the artifact'),
      })),
    };
  } catch (error) {
    if (error instanceof HostctlError && !isHostctlError(error, 'io', 'internal')) return undefined;
    throw error;
  }
}
