/**
 * `image revoke`: the signed list of images that must not run any more, for `/etc/hostctl/revoked` of the next image or
 * of a host. A list that is there already is added to, under the next number.
 */

import { HostctlError } from '../errors.ts';
import { MAX_SEAL_BYTES } from '../format/seal/lines.ts';
import { formatRevoked, parseRevoked } from '../format/seal/revoked.ts';
import { formatSealedDigest, parseSealedDigest } from '../format/seal/seal.ts';
import { formatSignatures } from '../format/seal/signatures.ts';
import { readSmallFile, replaceFile } from '../sys/files.ts';
import { readSigners, signWith } from './seal-image.ts';

export interface RevokeOptions {
  /** The list; its signatures lie in `FILE.sig`. */
  readonly file: string;
  /** Digests as `image seal` prints them. */
  readonly digests: readonly string[];
  readonly keys: readonly string[];
}

export interface RevokeResult {
  readonly number: number;
  readonly digests: readonly string[];
}

export function revokeImages({ file, digests, keys }: RevokeOptions): RevokeResult {
  const signers = readSigners(keys);
  const before = readSmallFile(file, MAX_SEAL_BYTES);
  const list = before === undefined ? { number: 0, digests: [] } : parseRevoked(before);
  const added = digests.map((text) => {
    try {
      return parseSealedDigest(text);
    } catch (error) {
      throw new HostctlError('usage', `"${text}" is no digest such as v1-sha512-12:HEX`, { cause: error });
    }
  });
  const all = new Map([...list.digests, ...added].map((each) => [formatSealedDigest(each), each]));
  const bytes = formatRevoked({ number: list.number + 1, digests: [...all.values()] });
  const signatures = formatSignatures(signWith(bytes, signers));
  replaceFile(file, bytes);
  replaceFile(`${file}.sig`, signatures);
  return { number: list.number + 1, digests: [...all.keys()] };
}
