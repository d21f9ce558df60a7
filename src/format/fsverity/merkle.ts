/**
 * The fs-verity Merkle tree with 4096-byte blocks and no salt, built bottom-up while the data passes. Memory is one
 * block per level (a level more per factor of 128 or 64 in size); nothing of the data is kept.
 *
 * This is the hot path of storing objects: full blocks are hashed where the caller holds them, and hashes travel as
 * latin1 strings because `crypto.hash` returns those 2.6 times as fast as Buffers (Node 20, 4 KiB blocks).
 */

import { hash } from 'node:crypto';

import type { VerityAlgorithm } from '../../tree/node.ts';
import { VERITY_PARAMETERS } from './algorithm.ts';

export const VERITY_BLOCK_SIZE = 4096;

/** A block being filled with the hashes of the level below, or with the last bytes of the data. */
interface Level {
  /** The first hash. Most files have just one block, whose hash is the root and goes into no other. */
  readonly first: string;
  /** From the second hash on. */
  block: Buffer | undefined;
  used: number;
}

// Most files are small and every file needs one to three blocks: making them anew costs more than hashing them.
const spareBlocks: Buffer[] = [];

function takeBlock(): Buffer {
  return spareBlocks.pop() ?? Buffer.allocUnsafeSlow(VERITY_BLOCK_SIZE);
}

function returnBlock(block: Buffer): void {
  if (spareBlocks.length < 64) spareBlocks.push(block);
}

export class MerkleTree {
  readonly #algorithm: VerityAlgorithm;
  readonly #digestSize: number;
  readonly #levels: Level[] = [];
  #partial: Buffer | undefined;
  #partialUsed = 0;
  #sizeBytes = 0;

  constructor(algorithm: VerityAlgorithm) {
    this.#algorithm = algorithm;
    this.#digestSize = VERITY_PARAMETERS[algorithm].digestSize;
  }

  /** Bytes taken so far. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Takes the next data, any amount; the buffer may be reused afterwards. */
  update(chunk: Uint8Array): void {
    this.#sizeBytes += chunk.length;
    let start = 0;
    if (this.#partialUsed > 0) {
      start = Math.min(VERITY_BLOCK_SIZE - this.#partialUsed, chunk.length);
      this.#keep(chunk.subarray(0, start));
      if (this.#partialUsed < VERITY_BLOCK_SIZE) return;
      this.#push(0, this.#hash(this.#partial!));
      this.#partialUsed = 0;
    }
    let end = start + VERITY_BLOCK_SIZE;
    for (; end <= chunk.length; start = end, end += VERITY_BLOCK_SIZE) {
      this.#push(0, this.#hash(chunk.subarray(start, end)));
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  /** Ends the data and returns the root hash as latin1, all zero for no data. Call once. */
  root(): string {
    if (this.#sizeBytes === 0) return '\0'.repeat(this.#digestSize);
    if (this.#partialUsed > 0) this.#push(0, this.#hash(this.#partial!.fill(0, this.#partialUsed)));
    for (let i = 0; ; i++) {
      const level = this.#levels[i]!;
      if (level.block === undefined) {
        this.#release();
        return level.first;
      }
      if (level.used > 0) this.#flush(i, level, level.block);
    }
  }

  #release(): void {
    if (this.#partial !== undefined) returnBlock(this.#partial);
    this.#partial = undefined;
    for (const { block } of this.#levels) if (block !== undefined) returnBlock(block);
  }

  #keep(bytes: Uint8Array): void {
    this.#partial ??= takeBlock();
    this.#partial.set(bytes, this.#partialUsed);
    this.#partialUsed += bytes.length;
  }

  #push(index: number, digest: string): void {
    const level = this.#levels[index];
    if (level === undefined) {
      this.#levels[index] = { first: digest, block: undefined, used: this.#digestSize };
      return;
    }
    if (level.block === undefined) {
      level.block = takeBlock();
      level.block.write(level.first, 0, 'latin1');
    }
    level.block.write(digest, level.used, 'latin1');
    level.used += this.#digestSize;
    if (level.used === VERITY_BLOCK_SIZE) this.#flush(index, level, level.block);
  }

  #flush(index: number, level: Level, block: Buffer): void {
    const digest = this.#hash(block.fill(0, level.used));
    level.used = 0;
    this.#push(index + 1, digest);
  }

  #hash(block: Uint8Array): string {
    return hash(this.#algorithm, block, 'binary');
  }
}

/** Size of all levels that are stored for a file of `sizeBytes`: none where one block is the whole of it. */
export function merkleTreeBytes(sizeBytes: number, algorithm: VerityAlgorithm): number {
  let total = 0;
  for (let blocks = Math.ceil(sizeBytes / VERITY_BLOCK_SIZE); blocks > 1;) {
    blocks = Math.ceil((blocks * VERITY_PARAMETERS[algorithm].digestSize) / VERITY_BLOCK_SIZE);
    total += blocks * VERITY_BLOCK_SIZE;
  }
  return total;
}
