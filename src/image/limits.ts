/** What an image may come to, over all its layers. Checked while it grows, before what is over is held or written. */

import { HostctlError } from '../errors.ts';
import type { ImageTotals } from '../tree/layer-entry.ts';

const MAX_ENTRIES = 4_000_000;
/** What names, xattrs and inline contents of an image may take in memory; real images need some ten megabytes. */
const MAX_METADATA_BYTES = 512 << 20;
const MAX_OUTPUT_BYTES = 64 * 2 ** 30;

export function checkEntries(entries: number): void {
  if (entries > MAX_ENTRIES) {
    throw new HostctlError('image-unsupported', `Image has more than ${MAX_ENTRIES} entries`);
  }
}

export function checkMetadata(bytes: number): void {
  if (bytes > MAX_METADATA_BYTES) {
    throw new HostctlError(
      'image-unsupported',
      `Names, xattrs and small files take more than ${MAX_METADATA_BYTES} bytes`,
    );
  }
}

export function checkOutput(bytes: number): void {
  if (bytes > MAX_OUTPUT_BYTES) {
    throw new HostctlError('image-unsupported', `Image unpacks to more than ${MAX_OUTPUT_BYTES} bytes`);
  }
}

/** What an image has used with one more layer. */
export function addTotals(before: ImageTotals, layer: ImageTotals): ImageTotals {
  const totals = {
    entries: before.entries + layer.entries,
    metadataBytes: before.metadataBytes + layer.metadataBytes,
    outputBytes: before.outputBytes + layer.outputBytes,
  };
  checkEntries(totals.entries);
  checkMetadata(totals.metadataBytes);
  checkOutput(totals.outputBytes);
  return totals;
}

/** What the last layer used of it. */
export function subtractTotals(after: ImageTotals, before: ImageTotals): ImageTotals {
  return {
    entries: after.entries - before.entries,
    metadataBytes: after.metadataBytes - before.metadataBytes,
    outputBytes: after.outputBytes - before.outputBytes,
  };
}
