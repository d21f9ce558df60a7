/**
 * The one way from a 64-bit field to a JavaScript number: exact or refused.
 */

import { HostctlError } from '../../errors.ts';

/** Converts `value` when it lies in 0…`max` (default 2^53); otherwise throws `format-invalid` naming `what`. */
export function toNumber(value: bigint, what: string, max = Number.MAX_SAFE_INTEGER + 1): number {
  if (value < 0n || value > BigInt(max)) {
    throw new HostctlError('format-invalid', `Cannot use ${what} ${value}: it is not in 0…${max}`);
  }
  return Number(value);
}
