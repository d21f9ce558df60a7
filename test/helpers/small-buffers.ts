/** Buffers that are full long before the stream is, and are used again. */
export function smallBuffers(): () => Uint8Array {
  const buffer = new Uint8Array(100);
  return () => buffer.fill(0xee);
}
