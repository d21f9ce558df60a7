/**
 * What speaks of an image in an archive of an OCI layout (`oci-archive:`). skopeo copies the image alone, so the small
 * files of the archive, among them all that an artifact can be made of, are unpacked beside it, and read there.
 */

import * as fs from 'node:fs';
import { isHostctlError } from '../errors.ts';
import { MAX_ARTIFACT_BYTES } from '../format/oci/artifact.ts';
import type { OciDigest } from '../format/oci/digest.ts';
import { MAX_MANIFEST_BYTES } from '../format/oci/manifest.ts';
import { TarReader } from '../format/tar/reader.ts';
import { fileChunks, split, writeAll } from '../sys/files.ts';
import { layoutReferrers, type Referrers } from './referrers.ts';

const INDEX = 'index.json';
const BLOB = /^blobs\/sha(?:256|512)\/[0-9a-f]{64,128}$/;
/** Of everything that is unpacked: what 64 artifacts may have, and as much again of the image's own. */
const MAX_BYTES = 128 << 20;

/** @param directory - for what is unpacked, once somebody asks; the caller removes it */
export function archiveReferrers(file: string, directory: string, manifestDigest: OciDigest): Referrers {
  let referrers: Referrers | undefined;
  const open = (): Referrers => {
    referrers ??= (unpackSmallFiles(file, directory), layoutReferrers(directory, manifestDigest));
    return referrers;
  };
  return { ofType: async (type) => open().ofType(type), tagged: async (tag) => open().tagged(tag) };
}

/** An archive that is compressed, or broken where skopeo did not look, is left where it ends to be one. */
function unpackSmallFiles(file: string, directory: string): void {
  fs.mkdirSync(directory);
  fs.writeFileSync(`${directory}/${INDEX}`, '{"schemaVersion":2,"manifests":[]}');
  let fd: number | undefined;
  let total = 0;
  const close = (): void => {
    if (fd !== undefined) fs.closeSync(fd);
    fd = undefined;
  };
  const reader = new TarReader({
    entry({ type, name, size }) {
      const path = name.replace(/^\.\//, '');
      const most = path === INDEX ? MAX_MANIFEST_BYTES : BLOB.test(path) ? MAX_ARTIFACT_BYTES : -1;
      if (type !== 'file' || size > most || total + size > MAX_BYTES) return;
      total += size;
      fs.mkdirSync(split(`${directory}/${path}`).directory, { recursive: true });
      fd = fs.openSync(`${directory}/${path}`, 'w', 0o600);
    },
    data(chunk) {
      if (fd !== undefined) writeAll(fd, chunk);
    },
    entryEnd: close,
  });
  try {
    for (const chunk of fileChunks(file)) reader.push(chunk);
  } catch (error) {
    if (!isHostctlError(error, 'image-invalid', 'image-unsupported')) throw error;
  } finally {
    close();
  }
}
