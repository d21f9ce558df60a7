/** `image verify` for people. Pure. */

import type { VerifiedImage } from '../../ops/verify-image.ts';
import { printable } from './status-text.ts';

export function verifiedText({ keys, manifestDigest, digests, name, securityVersion, expires }: VerifiedImage): string {
  const rows: (readonly [string, string | null])[] = [
    ...keys.map((key) => ['sealed by', key] as const),
    ['manifest', manifestDigest],
    ...digests.map((digest) => ['digest', digest] as const),
    ['name', name],
    ['version', String(securityVersion)],
    ['expires', expires],
  ];
  return rows.flatMap(([key, value]) => (value === null ? [] : `${key.padEnd(10)} ${printable(value)}\n`)).join('');
}
