/**
 * Where the contents of files go that are too large for the image. The flattener writes through this interface and
 * does not know whether objects are stored or only measured.
 */

import type { VerityAlgorithm, VerityDigest } from './node.ts';

export interface ObjectWriter {
  /** Takes the next bytes; the buffer may be reused by the caller afterwards. */
  write(chunk: Uint8Array): void;
  /** Ends the object: it now exists under the returned digest. */
  finish(): VerityDigest;
  /** Gives up and leaves nothing behind. Harmless after `finish`. */
  abort(): void;
}

export interface ObjectSink {
  readonly algorithm: VerityAlgorithm;
  /** Starts an object of exactly `sizeBytes` (> 0). */
  create(sizeBytes: number): ObjectWriter;
}
