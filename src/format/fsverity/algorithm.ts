/**
 * What differs between the two fs-verity hash algorithms: the kernel's number and the digest size.
 */

import type { VerityAlgorithm } from '../../tree/node.ts';

export interface VerityParameters {
  /** The kernel's `FS_VERITY_HASH_ALG_*`. */
  readonly id: number;
  /** Bytes. */
  readonly digestSize: number;
}

export const VERITY_PARAMETERS: Readonly<Record<VerityAlgorithm, VerityParameters>> = {
  sha256: { id: 1, digestSize: 32 },
  sha512: { id: 2, digestSize: 64 },
};

/** The algorithm with the kernel's number `id`, or undefined. */
export function verityAlgorithmById(id: number): VerityAlgorithm | undefined {
  return id === 1 ? 'sha256' : id === 2 ? 'sha512' : undefined;
}
