/**
 * fs-verity digests: the names of objects and the identity of images. Always 4096-byte blocks and no salt, so that
 * the kernel's FS_IOC_MEASURE_VERITY gives the same value for the same bytes.
 */

import { hash } from 'node:crypto';

import { HostctlError } from '../../errors.ts';
import { rawFromText, type RawName } from '../../tree/name.ts';
import type { VerityAlgorithm, VerityDigest } from '../../tree/node.ts';
import { VERITY_PARAMETERS } from './algorithm.ts';
import { encodeDescriptor } from './descriptor.ts';
import { MerkleTree } from './merkle.ts';

/** The verity digest of `bytes` as the content of a file. */
export function fsverityDigest(algorithm: VerityAlgorithm, bytes: Uint8Array): VerityDigest {
  const hasher = new VerityHasher(algorithm);
  hasher.update(bytes);
  return hasher.digest();
}

/** Computes the verity digest of data that comes in pieces of any size, in constant memory. */
export class VerityHasher {
  readonly #algorithm: VerityAlgorithm;
  readonly #tree: MerkleTree;
  #digest: VerityDigest | undefined;

  constructor(algorithm: VerityAlgorithm) {
    this.#algorithm = algorithm;
    this.#tree = new MerkleTree(algorithm);
  }

  /** Bytes taken so far. */
  get sizeBytes(): number {
    return this.#tree.sizeBytes;
  }

  /** Takes the next bytes; the buffer may be reused by the caller afterwards. */
  update(chunk: Uint8Array): void {
    if (this.#digest !== undefined) throw new HostctlError('internal', 'Cannot update a hasher that has ended');
    this.#tree.update(chunk);
  }

  /** Ends the data. Further calls return the same digest. */
  digest(): VerityDigest {
    this.#digest ??= hash(
      this.#algorithm,
      encodeDescriptor(VERITY_PARAMETERS[this.#algorithm].id, this.#tree.sizeBytes, this.#tree.root()),
      'hex',
    ) as VerityDigest;
    return this.#digest;
  }
}

/**
 * Takes a digest written as lower-case hex: 64 digits for sha256, 128 for sha512. Throws `format-invalid` for anything
 * else, and for the other algorithm when `algorithm` is given.
 */
export function parseVerityDigest(text: string, algorithm?: VerityAlgorithm): VerityDigest {
  const found = /^[0-9a-f]*$/.test(text) ? algorithmOfLength(text.length) : undefined;
  if (found === undefined || (algorithm !== undefined && found !== algorithm)) {
    const wanted = algorithm === undefined ? '64 or 128' : `${VERITY_PARAMETERS[algorithm].digestSize * 2}`;
    throw new HostctlError(
      'format-invalid',
      `Cannot use verity digest "${text.slice(0, 130)}": it must be ${wanted} lower-case hex digits`,
    );
  }
  return text as VerityDigest;
}

/** The algorithm that made a digest; its length tells. */
export function digestAlgorithm(digest: VerityDigest): VerityAlgorithm {
  return digest.length === 64 ? 'sha256' : 'sha512';
}

/** The 32 or 64 bytes of a digest. */
export function digestToBytes(digest: VerityDigest): Uint8Array {
  return Buffer.from(digest, 'hex');
}

/** The digest in 32 or 64 bytes; `format-invalid` for any other length. */
export function digestFromBytes(bytes: Uint8Array): VerityDigest {
  return parseVerityDigest(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex'));
}

/** Where an object lies below the object store, and where overlayfs is sent for a file's data: `xx/rest`. */
export function objectPath(digest: VerityDigest): RawName {
  return rawFromText(`${digest.slice(0, 2)}/${digest.slice(2)}`);
}

function algorithmOfLength(digits: number): VerityAlgorithm | undefined {
  return digits === 64 ? 'sha256' : digits === 128 ? 'sha512' : undefined;
}
