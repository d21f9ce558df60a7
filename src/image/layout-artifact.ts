/**
 * Puts an artifact beside an image in an OCI layout: its blobs, and one more entry in `index.json`, which is replaced
 * as a whole. The image itself is not touched.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { formatArtifact, type ArtifactBlob, type NewArtifact } from '../format/oci/artifact.ts';
import { blobPath, type OciDigest } from '../format/oci/digest.ts';
import { parseIndex } from '../format/oci/index.ts';
import { MAX_MANIFEST_BYTES } from '../format/oci/manifest.ts';
import { mediaTypes } from '../format/oci/media-types.ts';
import { createFile, exists, makeDirectories, replaceFile, split, temporaryName } from '../sys/files.ts';
import { readLayoutFile } from './blob.ts';
import { SUBJECT_ANNOTATION } from './referrers.ts';

/** Takes the place of artifacts of the same type about the same image. Returns the digest of its manifest. */
export function writeLayoutArtifact(directory: string, artifact: NewArtifact): OciDigest {
  const { artifactType } = artifact;
  const { digest } = artifact.subject;
  const { manifest, blobs } = formatArtifact(artifact);
  for (const blob of [...blobs, manifest]) writeBlob(directory, blob);
  editIndex(directory, (entries) => [
    ...entries.filter(
      (entry) => entry['artifactType'] !== artifactType || entry.annotations?.[SUBJECT_ANNOTATION] !== digest,
    ),
    { ...manifest.descriptor, artifactType, annotations: { [SUBJECT_ANNOTATION]: digest } },
  ]);
  return manifest.descriptor.digest;
}

export interface IndexEntry {
  readonly annotations?: Readonly<Record<string, string>>;
  readonly [key: string]: unknown;
}

/** Replaces `index.json` as a whole. */
export function editIndex(directory: string, edit: (entries: readonly IndexEntry[]) => readonly IndexEntry[]): void {
  const path = `${directory}/index.json`;
  const bytes = readLayoutFile(path, MAX_MANIFEST_BYTES);
  // Only what passes for an index is read once more, with everything in it that is not ours to know.
  parseIndex(bytes, mediaTypes.ociIndex, 'File "index.json"');
  const document = JSON.parse(Buffer.from(bytes).toString('utf8')) as { readonly manifests: readonly IndexEntry[] };
  const text = JSON.stringify({ ...document, manifests: edit(document.manifests) });
  if (text.length > MAX_MANIFEST_BYTES) throw new HostctlError('image-unsupported', `"${path}" would be too large`);
  replaceFile(path, text);
}

/** Idempotent: what has the name is not written again. */
export function writeBlob(directory: string, { descriptor, bytes }: ArtifactBlob): void {
  const path = `${directory}/${blobPath(descriptor.digest)}`;
  const { directory: folder } = split(path);
  makeDirectories(directory, folder.slice(directory.length));
  if (exists(path)) return;
  const temporary = `${folder}/${temporaryName('blob')}`;
  createFile(temporary, bytes, 0o644);
  fs.renameSync(temporary, path);
}
