/**
 * XXH32 over the bytes of a latin1 string, for the xattr name filter. Follows the algorithm description of the
 * xxHash project (doc/xxhash_spec.md).
 */

const PRIME1 = 0x9e3779b1;
const PRIME2 = 0x85ebca77;
const PRIME3 = 0xc2b2ae3d;
const PRIME4 = 0x27d4eb2f;
const PRIME5 = 0x165667b1;

/** The 32-bit hash, unsigned. `text` holds one byte per character. */
export function xxh32(text: string, seed: number): number {
  const bytes = Buffer.from(text, 'latin1');
  const length = bytes.length;
  let at = 0;
  let hash: number;
  if (length >= 16) {
    let a = seed + PRIME1 + PRIME2;
    let b = seed + PRIME2;
    let c = seed;
    let d = seed - PRIME1;
    for (; at + 16 <= length; at += 16) {
      a = round(a, bytes.readUInt32LE(at));
      b = round(b, bytes.readUInt32LE(at + 4));
      c = round(c, bytes.readUInt32LE(at + 8));
      d = round(d, bytes.readUInt32LE(at + 12));
    }
    hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
  } else {
    hash = seed + PRIME5;
  }
  hash = (hash + length) | 0;
  for (; at + 4 <= length; at += 4) {
    hash = Math.imul(rotate(hash + Math.imul(bytes.readUInt32LE(at), PRIME3), 17), PRIME4);
  }
  for (; at < length; at++) {
    hash = Math.imul(rotate(hash + Math.imul(bytes[at]!, PRIME5), 11), PRIME1);
  }
  hash = Math.imul(hash ^ (hash >>> 15), PRIME2);
  hash = Math.imul(hash ^ (hash >>> 13), PRIME3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function round(lane: number, word: number): number {
  return Math.imul(rotate(lane + Math.imul(word, PRIME2), 13), PRIME1);
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}
