/**
 * Rounding offsets and sizes. Plain number arithmetic without bit operations, so that it holds up to 2^53.
 */

/** The smallest multiple of `unit` that is not below `value`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
