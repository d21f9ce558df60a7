/**
 * Artifacts: manifests that hold no image but something about one, their `subject` (image-spec manifest.md, "Guidelines
 * for Artifact Usage"). Seals and signatures are kept so.
 */

import { hash } from 'node:crypto';
import { parseDescriptor, type Descriptor } from './descriptor.ts';
import type { OciDigest } from './digest.ts';
import { checkSchemaVersion, optionalString, optionalStringMap, requiredArray } from './fields.ts';
import { parseJsonObject } from './json.ts';
import { mediaTypes } from './media-types.ts';

export interface Artifact {
  /** The stated type, or that of the config where there is none. */
  readonly artifactType: string;
  readonly subject: OciDigest | undefined;
  readonly layers: readonly Descriptor[];
  readonly annotations: ReadonlyMap<string, string>;
}

/** What everything about an image is held to: documents, and what they hold. */
export const MAX_ARTIFACT_BYTES = 65536;
/** And how many of them are looked at. */
export const MAX_ARTIFACTS = 64;
const MAX_LAYERS = 16;

export function parseArtifact(bytes: Uint8Array): Artifact {
  const document = parseJsonObject(bytes, 'Artifact', MAX_ARTIFACT_BYTES);
  checkSchemaVersion(document, 'Artifact');
  const config = parseDescriptor(document.get('config'), 'Config of the artifact');
  const subject = document.get('subject');
  return {
    artifactType: optionalString(document, 'artifactType', 'Artifact') ?? config.mediaType,
    subject: subject === undefined ? undefined : parseDescriptor(subject, 'Subject of the artifact').digest,
    layers: requiredArray(document, 'layers', 'Artifact')
      .slice(0, MAX_LAYERS)
      .map((layer, i) => parseDescriptor(layer, `Layer ${i + 1} of the artifact`)),
    annotations: optionalStringMap(document, 'annotations', 'Artifact'),
  };
}

/** What a descriptor says of content that is at hand. */
export interface PlainDescriptor {
  readonly mediaType: string;
  readonly digest: OciDigest;
  readonly size: number;
}

/** The config of every artifact, which is only there because a manifest must have one. */
export const EMPTY_CONFIG = {
  bytes: Buffer.from('{}'),
  descriptor: {
    mediaType: mediaTypes.ociEmpty,
    digest: 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a' as OciDigest,
    size: 2,
  },
} as const;

/** An artifact that is to be. */
export interface NewArtifact {
  readonly artifactType: string;
  /** The image's manifest. */
  readonly subject: PlainDescriptor;
  readonly parts: readonly {
    readonly mediaType: string;
    readonly bytes: Uint8Array;
    readonly annotations?: Readonly<Record<string, string>>;
  }[];
}

export interface ArtifactBlob {
  readonly descriptor: PlainDescriptor;
  readonly bytes: Uint8Array;
}

/** An artifact's manifest, and the blobs that it names. */
export function formatArtifact(artifact: NewArtifact): {
  readonly manifest: ArtifactBlob;
  readonly blobs: readonly ArtifactBlob[];
} {
  const { artifactType, parts } = artifact;
  const { mediaType, digest, size } = artifact.subject;
  const blobs = parts.map((part) => blobOf(part.mediaType, part.bytes));
  const text = JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    artifactType,
    config: EMPTY_CONFIG.descriptor,
    layers: blobs.map(({ descriptor }, index) => {
      const annotations = parts[index]?.annotations;
      return { ...descriptor, ...(annotations === undefined ? {} : { annotations }) };
    }),
    subject: { mediaType, digest, size },
  });
  return { manifest: blobOf(mediaTypes.ociManifest, Buffer.from(text)), blobs: [...blobs, EMPTY_CONFIG] };
}

/** Content with what a descriptor says of it. */
export function blobOf(mediaType: string, bytes: Uint8Array): ArtifactBlob {
  const digest = `sha256:${hash('sha256', bytes, 'hex')}` as OciDigest;
  return { descriptor: { mediaType, digest, size: bytes.length }, bytes };
}
