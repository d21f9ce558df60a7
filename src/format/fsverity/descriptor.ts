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

/** By algorithm. Every file needs one, and only its size and root hash differ from that of the file before. */
const drafts = new Map<number, Buffer>();
const { dataSize: SIZE_AT = 0, rootHash: ROOT_AT = 0 } = descriptorRecord.offsets;

/**
 * The descriptor of a file of `sizeBytes`, lent until the next call; `algorithmId` is the kernel's number, `rootHash` the
 * Merkle root as latin1.
 */
export function encodeDescriptor(algorithmId: number, sizeBytes: number, rootHash: string): Uint8Array {
  let bytes = drafts.get(algorithmId);
  if (bytes === undefined) {
    bytes = Buffer.alloc(descriptorRecord.size);
    descriptorRecord.encode(viewOf(bytes), 0, {
      version: 1,
      hashAlgorithm: algorithmId,
      logBlockSize: 12,
      saltSize: 0,
      dataSize: 0n,
      rootHash: new Uint8Array(0),
    });
    drafts.set(algorithmId, bytes);
  }
  bytes.writeUInt32LE(sizeBytes % 2 ** 32, SIZE_AT);
  bytes.writeUInt32LE(Math.floor(sizeBytes / 2 ** 32), SIZE_AT + 4);
  bytes.write(rootHash, ROOT_AT, 'latin1');
  return bytes;
}
