/** Sizes as people read them. Pure. */

/** `12.3 MiB` */
export function formatMebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
