/** What a signature over a file's fs-verity digest is made over, by the kernel's rule for built-in signatures. */

import type { VerityDigest } from '../../tree/node.ts';
import { VERITY_PARAMETERS } from './algorithm.ts';
import { digestAlgorithm } from './digest.ts';

const MAGIC = Buffer.from('FSVerity', 'latin1');

/** `struct fsverity_formatted_digest`: magic, number of the hash and size of the digest (le16 both), digest. */
export function formattedDigest(digest: VerityDigest): Uint8Array {
  const { id, digestSize } = VERITY_PARAMETERS[digestAlgorithm(digest)];
  const numbers = Buffer.alloc(4);
  numbers.writeUInt16LE(id, 0);
  numbers.writeUInt16LE(digestSize, 2);
  return Buffer.concat([MAGIC, numbers, Buffer.from(digest, 'hex')]);
}
