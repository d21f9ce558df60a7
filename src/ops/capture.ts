/** A sink that keeps the content of one object and only measures the others. */

import { HostctlError } from '../errors.ts';
import { measuringSink } from '../image/ingest.ts';
import type { FileContent, VerityAlgorithm } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';

/** Held in memory: what is larger is better pulled than read this way. */
const MAX_BYTES = 256 * 2 ** 20;

export function capturingSink(
  algorithm: VerityAlgorithm,
  wanted: Extract<FileContent, { kind: 'external' }>,
): { readonly sink: ObjectSink; chunks(): Iterable<Uint8Array> } {
  if (wanted.size > MAX_BYTES) {
    throw new HostctlError('image-unsupported', `A file of ${wanted.size} bytes is not read out of its layers`, {
      hint: 'Store the image with "hostctl image pull" and use its digest',
    });
  }
  const measuring = measuringSink(algorithm);
  let found: readonly Uint8Array[] | undefined;
  return {
    sink: {
      algorithm,
      create(sizeBytes) {
        const writer = measuring.create(sizeBytes);
        if (sizeBytes !== wanted.size || found !== undefined) return writer;
        const chunks: Uint8Array[] = [];
        return {
          write(chunk) {
            chunks.push(Uint8Array.from(chunk));
            writer.write(chunk);
          },
          finish() {
            const digest = writer.finish();
            if (digest === wanted.digest) found = chunks;
            return digest;
          },
          abort: () => writer.abort(),
        };
      },
    },
    chunks() {
      if (found !== undefined) return found;
      throw new HostctlError('image-invalid', 'The image changed while it was read');
    },
  };
}
