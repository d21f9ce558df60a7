/**
 * The fs-verity descriptor: the 256 bytes whose hash is a file's verity digest. Layout as in the kernel's
 * `struct fsverity_descriptor`, with 4096-byte blocks, no salt and no signature.
 */

import { fixedBytes, record, u64, u8, viewOf, zero } from '../bytes/record.ts';

export const descriptorRecord = record('fs-verity descriptor', {
  version: u8,
  hashAlgorithm: u8,
  logBlockSize: u8,
  saltSize: u8,
  signatureSize: zero(4),
  dataSize: u64,
  rootHash: fixedBytes(64),
  salt: zero(32),
  reserved: zero(144),
});

/** The descriptor of a file of `sizeBytes`; `algorithmId` is the kernel's number, `rootHash` the Merkle root. */
export function encodeDescriptor(algorithmId: number, sizeBytes: number, rootHash: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(descriptorRecord.size);
  descriptorRecord.encode(viewOf(bytes), 0, {
    version: 1,
    hashAlgorithm: algorithmId,
    logBlockSize: 12,
    saltSize: 0,
    dataSize: BigInt(sizeBytes),
    rootHash,
  });
  return bytes;
}
