/** fs-verity digests (4096-byte blocks, no salt) from the kernel's documentation, the plain way: whole file, level by level. */

import { createHash } from 'node:crypto';

const BLOCK = 4096;

/** The same buffer is asked for again and again while crash states are tried. */
const known = new WeakMap<Buffer, Map<string, string>>();

/** Lower-case hex digest of a file's content, which must not change afterwards. */
export function verityHex(algorithm: string, content: Buffer): string {
  const digests = known.get(content) ?? new Map<string, string>();
  known.set(content, digests);
  const digest = digests.get(algorithm) ?? computeHex(algorithm, content);
  digests.set(algorithm, digest);
  return digest;
}

/** Where the repository has the object with this content, below the root. */
export function objectPath(algorithm: string, content: Buffer): string {
  const digest = verityHex(algorithm, content);
  return `composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
}

function computeHex(algorithm: string, content: Buffer): string {
  const hash = (bytes: Buffer): Buffer => createHash(algorithm).update(bytes).digest();
  const hashBlocks = (bytes: Buffer): Buffer => {
    const hashes: Buffer[] = [];
    for (let offset = 0; offset < bytes.length; offset += BLOCK) {
      const block = bytes.subarray(offset, offset + BLOCK);
      hashes.push(hash(block.length === BLOCK ? block : Buffer.concat([block, Buffer.alloc(BLOCK - block.length)])));
    }
    return Buffer.concat(hashes);
  };
  const hashLength = algorithm === 'sha512' ? 64 : 32;
  let level = hashBlocks(content);
  while (level.length > hashLength) level = hashBlocks(level);

  const descriptor = Buffer.alloc(256);
  descriptor.writeUInt8(1, 0);
  descriptor.writeUInt8(algorithm === 'sha512' ? 2 : 1, 1);
  descriptor.writeUInt8(12, 2);
  descriptor.writeBigUInt64LE(BigInt(content.length), 8);
  level.copy(descriptor, 16);
  return hash(descriptor).toString('hex');
}
