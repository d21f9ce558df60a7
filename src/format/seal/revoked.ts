/**
 * The list of images that must not be deployed or booted any more, signed by the same keys as seals. Its number goes up
 * with each version, so that an older one does not take the place of a newer one.
 */

import { formatLines, invalid, parseLines } from './lines.ts';
import { formatSealedDigest, parseSealedDigest, type SealedDigest } from './seal.ts';

export interface RevokedList {
  readonly number: number;
  readonly digests: readonly SealedDigest[];
}

const KIND = 'hostctl-revoked';

export function formatRevoked({ number, digests }: RevokedList): Uint8Array {
  return formatLines(KIND, [
    ['number', String(number)],
    ...digests.map((digest) => ['digest', formatSealedDigest(digest)] as const),
  ]);
}

/** Reads a list whose signature was found good. Throws 'format-invalid' or 'image-unsupported'. */
export function parseRevoked(bytes: Uint8Array): RevokedList {
  const [[key, value] = [], ...rest] = parseLines(bytes, KIND);
  const number = Number(value);
  if (key !== 'number' || !Number.isSafeInteger(number) || number < 1) throw invalid(KIND, 'it has no "number"');
  return {
    number,
    digests: rest.map(([name, text]) => {
      if (name !== 'digest') throw invalid(KIND, `it has the unknown key "${name}"`);
      return parseSealedDigest(text);
    }),
  };
}

/** Whether the list has this digest, whatever the parameters. */
export function isRevoked({ digests }: RevokedList, digest: string): boolean {
  return digests.some((each) => each.digest === digest);
}
