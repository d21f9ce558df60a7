/**
 * Puts an artifact beside an image in an OCI layout: its blobs, and one more entry in `index.json`, which is replaced
 * as a whole. The image itself is not touched.
 */

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { EMPTY_CONFIG, formatArtifact, type PlainDescriptor } from '../format/oci/artifact.ts';
import type { OciDigest } from '../format/oci/digest.ts';
import { parseIndex } from '../format/oci/index.ts';
import { MAX_MANIFEST_BYTES } from '../format/oci/manifest.ts';
import { mediaTypes } from '../format/oci/media-types.ts';
import { createFile, exists, makeDirectories, replaceFile, temporaryName } from '../sys/files.ts';
import { readLayoutFile } from './blob.ts';
import { SUBJECT_ANNOTATION } from './referrers.ts';

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

/** Takes the place of artifacts of the same type about the same image. Returns the digest of its manifest. */
export function writeLayoutArtifact(directory: string, { artifactType, subject, parts }: NewArtifact): OciDigest {
  const layers = parts.map(({ mediaType, bytes, annotations }) => ({
    ...writeBlob(directory, mediaType, bytes),
    ...(annotations === undefined ? {} : { annotations }),
  }));
  writeBlob(directory, mediaTypes.ociEmpty, EMPTY_CONFIG.bytes);
  const { mediaType, digest, size } = subject;
  const bytes = formatArtifact({ artifactType, subject: { mediaType, digest, size }, layers });
  const manifest = writeBlob(directory, mediaTypes.ociManifest, bytes);
  editIndex(directory, (entries) => [
    ...entries.filter(
      (entry) => entry['artifactType'] !== artifactType || entry.annotations?.[SUBJECT_ANNOTATION] !== digest,
    ),
    { ...manifest, artifactType, annotations: { [SUBJECT_ANNOTATION]: digest } },
  ]);
  return manifest.digest;
}

interface IndexEntry {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly [key: string]: unknown;
}

function editIndex(directory: string, edit: (entries: readonly IndexEntry[]) => readonly IndexEntry[]): void {
  const path = `${directory}/index.json`;
  const bytes = readLayoutFile(path, MAX_MANIFEST_BYTES);
  // Only what passes for an index is read once more, with everything in it that is not ours to know.
  parseIndex(bytes, mediaTypes.ociIndex, 'File "index.json"');
  const document = JSON.parse(Buffer.from(bytes).toString('utf8')) as { readonly manifests: readonly IndexEntry[] };
  const text = JSON.stringify({ ...document, manifests: edit(document.manifests) });
  if (text.length > MAX_MANIFEST_BYTES) throw new HostctlError('image-unsupported', `"${path}" would be too large`);
  replaceFile(path, text);
}

function writeBlob(directory: string, mediaType: string, bytes: Uint8Array): PlainDescriptor {
  const hex = createHash('sha256').update(bytes).digest('hex');
  const folder = makeDirectories(directory, 'blobs/sha256');
  if (!exists(`${folder}/${hex}`)) {
    const temporary = `${folder}/${temporaryName('blob')}`;
    createFile(temporary, bytes, 0o644);
    fs.renameSync(temporary, `${folder}/${hex}`);
  }
  return { mediaType, digest: `sha256:${hex}` as OciDigest, size: bytes.length };
}
