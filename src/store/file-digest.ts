/** The fs-verity digest of an open file, read in a buffer that stays: memory is the same for any size and any number. */

import * as fs from 'node:fs';
import { VerityHasher } from '../format/fsverity/digest.ts';
import type { VerityAlgorithm, VerityDigest } from '../tree/node.ts';

const READ_BYTES = 1 << 20;
/** One in each thread: nothing else runs while a file is read. */
let buffer: Buffer | undefined;

/**
 * The digest of what can be read from `fd`, from its start. `sizeBytes` is what it is said to hold: where that much was
 * read no end is looked for, which most files would spend a second call on.
 */
export function digestOfFile(fd: number, algorithm: VerityAlgorithm, sizeBytes = fs.fstatSync(fd).size): VerityDigest {
  buffer ??= Buffer.allocUnsafeSlow(READ_BYTES);
  const hasher = new VerityHasher(algorithm);
  for (;;) {
    const count = fs.readSync(fd, buffer, 0, READ_BYTES, hasher.sizeBytes);
    if (count === 0) break;
    hasher.update(buffer.subarray(0, count));
    if (hasher.sizeBytes === sizeBytes) break;
  }
  return hasher.digest();
}
