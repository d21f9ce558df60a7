/**
 * OCI content digests, `ALGORITHM:ENCODED` (image-spec descriptor.md, "Digests"). A value of type `OciDigest` has
 * been checked down to the last digit, so that it may become part of a path.
 */

import { createHash, type Hash } from 'node:crypto';
import { HostctlError } from '../../errors.ts';
import { displayRaw, rawFromText } from '../../tree/name.ts';

/** Digest of a blob: `sha256:` and 64, or `sha512:` and 128 lower-case hex digits. */
export type OciDigest = string & { readonly __brand: 'OciDigest' };

/** Digest of a layer's whole decompressed stream. */
export type DiffId = string & { readonly __brand: 'DiffId' };

export type OciAlgorithm = 'sha256' | 'sha512';

const known = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;
const wellFormed = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;

/** Checks a digest; `what` opens the error message. */
export function parseOciDigest(text: string, what: string): OciDigest {
  if (known.test(text)) return text as OciDigest;
  const shown = displayRaw(rawFromText(text.slice(0, 200)));
  if (wellFormed.test(text) && !/^sha(?:256|512):/.test(text)) {
    throw new HostctlError('image-unsupported', `${what} "${shown}" has an algorithm that hostctl does not know`);
  }
  throw new HostctlError('image-invalid', `${what} "${shown}" is not a digest`);
}

/** Checks a diff id; `what` opens the error message. */
export function parseDiffId(text: string, what: string): DiffId {
  return parseOciDigest(text, what) as string as DiffId;
}

export function algorithmOf(digest: OciDigest | DiffId): OciAlgorithm {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

/** The digest of `bytes` by the algorithm of `like`. */
export function digestLike(like: OciDigest, bytes: Uint8Array): OciDigest {
  const algorithm = algorithmOf(like);
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as OciDigest;
}

/** Counts up a digest while data passes. */
export class OciHasher {
  readonly #algorithm: OciAlgorithm;
  readonly #hash: Hash;

  constructor(algorithm: OciAlgorithm) {
    this.#algorithm = algorithm;
    this.#hash = createHash(algorithm);
  }

  update(chunk: Uint8Array): void {
    this.#hash.update(chunk);
  }

  /** Ends the count. */
  digest(): OciDigest {
    return `${this.#algorithm}:${this.#hash.digest('hex')}` as OciDigest;
  }
}

/** Where a layout keeps the blob, relative to the layout. */
export function blobPath(digest: OciDigest): string {
  return `blobs/${digest.replace(':', '/')}`;
}
