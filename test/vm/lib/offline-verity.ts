/**
 * Turns on fs-verity for files of an ext4 image without a kernel that can: Merkle tree and descriptor are appended to
 * the file before mkfs copies it, then its inode gets the true size and the verity flag. The layout is the kernel's
 * (fs/ext4/verity.c, include/uapi/linux/fsverity.h); shares no code with hostctl, so it is also a second opinion.
 */

import { createHash } from 'node:crypto';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';

const BLOCK = 4096;
const METADATA_ALIGNMENT = 65536;
const DESCRIPTOR_SIZE = 256;
/** EXT4_EXTENTS_FL | EXT4_VERITY_FL. */
const INODE_FLAGS = '0x180000';

const ALGORITHMS = { sha256: { id: 1, size: 32 }, sha512: { id: 2, size: 64 } } as const;
export type OfflineAlgorithm = keyof typeof ALGORITHMS;

function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

/** Levels of the tree, root level first, each padded to whole blocks; none for files of up to one block. */
function merkleTree(data: Uint8Array, algorithm: OfflineAlgorithm): { levels: Buffer[]; root: Buffer } {
  const { size } = ALGORITHMS[algorithm];
  const hash = (block: Uint8Array): Buffer => createHash(algorithm).update(block).digest();
  const levels: Buffer[] = [];
  let level: Uint8Array = data;
  if (data.length === 0) return { levels, root: Buffer.alloc(size) };
  while (level.length > BLOCK) {
    const next = Buffer.alloc(roundUp((level.length / BLOCK + 1) * size, BLOCK));
    let offset = 0;
    for (let start = 0; start < level.length; start += BLOCK, offset += size) {
      hash(padded(level.subarray(start, start + BLOCK))).copy(next, offset);
    }
    const whole = next.subarray(0, roundUp(offset, BLOCK));
    levels.unshift(whole);
    level = whole;
  }
  return { levels, root: hash(padded(level)) };
}

function padded(block: Uint8Array): Uint8Array {
  return block.length === BLOCK ? block : Buffer.concat([block], BLOCK);
}

/** What ext4 keeps behind the data of a verity file, and the file's fs-verity digest. */
export function verityTail(data: Uint8Array, algorithm: OfflineAlgorithm): { tail: Buffer; digest: string } {
  const { levels, root } = merkleTree(data, algorithm);
  const descriptor = Buffer.alloc(DESCRIPTOR_SIZE);
  descriptor.set([1, ALGORITHMS[algorithm].id, 12, 0]);
  descriptor.writeBigUInt64LE(BigInt(data.length), 8);
  root.copy(descriptor, 16);
  const digest = createHash(algorithm).update(descriptor).digest('hex');

  const tree = Buffer.concat(levels);
  const start = roundUp(data.length, METADATA_ALIGNMENT);
  const descriptorAt = roundUp(start + tree.length, BLOCK);
  // The last four bytes of the block that still has room for them give the descriptor's size.
  const end = roundUp(descriptorAt + DESCRIPTOR_SIZE + 4, BLOCK);
  const tail = Buffer.alloc(end - data.length);
  tree.copy(tail, start - data.length);
  descriptor.copy(tail, descriptorAt - data.length);
  tail.writeUInt32LE(DESCRIPTOR_SIZE, tail.length - 4);
  return { tail, digest };
}

/** Appends the metadata to a file that is to be copied into an image. Returns the size it has without it, and digest. */
export async function appendVerity(
  path: string,
  algorithm: OfflineAlgorithm,
): Promise<{ sizeBytes: number; digest: string }> {
  const data = await readFile(path);
  const { tail, digest } = verityTail(data, algorithm);
  await appendFile(path, tail);
  return { sizeBytes: data.length, digest };
}

/** Makes the prepared files of an ext4 image verity files. Paths are absolute within the image. */
export async function markVerity(
  image: string,
  files: readonly { readonly path: string; readonly sizeBytes: number }[],
): Promise<void> {
  const script = join(tmpdir(), `hostctl-debugfs-${process.pid}`);
  const commands = files.map(
    ({ path, sizeBytes }) => `sif ${path} size ${sizeBytes}\nsif ${path} flags ${INODE_FLAGS}\n`,
  );
  await writeFile(script, commands.join(''));
  await run('debugfs', ['-w', '-f', script, image]);
  await run('rm', [script]);
}
