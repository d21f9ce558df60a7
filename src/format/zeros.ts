/** Padding checks that keep up with decompression. */

const ZEROS = Buffer.alloc(64 << 10);

/** Whether every byte is zero. */
export function isAllZero(bytes: Uint8Array): boolean {
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < data.length; at += ZEROS.length) {
    const length = Math.min(ZEROS.length, data.length - at);
    if (data.compare(ZEROS, 0, length, at, at + length) !== 0) return false;
  }
  return true;
}
