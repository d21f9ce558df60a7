/** Mutation of byte strings: reproducible from a seed, by what parsers stumble over. */

const INTERESTING = [0, 1, 7, 9, 10, 13, 32, 34, 47, 48, 57, 61, 92, 127, 128, 254, 255];
const TOKENS = ['0', '-1', '4294967295', '4294967296', '9007199254740993', '18446744073709551616', '../', '\0', '\n', '\\x00', '%00', '"', '{', '[[', '}', '=', ':', '@', '//', 'null', 'true', '1e999', '__proto__', '\ud800', '\u00ff', 'sha256:', 'GNU.sparse.major=1', 'SCHILY.xattr.']; // prettier-ignore

/** A small fast generator (xorshift32): the same seed gives the same numbers everywhere. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 0x9e3779b9;
  }

  /** 0 … below - 1 */
  below(below: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 0) % below;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** One to four changes of `input`; `other` is what pieces may be taken from. */
export function mutate(input: Buffer, other: Buffer, random: Random, maxBytes: number): Buffer {
  let bytes: Buffer = Buffer.from(input);
  for (let change = random.below(4); change >= 0; change--) bytes = mutateOnce(bytes, other, random);
  return bytes.length > maxBytes ? bytes.subarray(0, maxBytes) : bytes;
}

function mutateOnce(bytes: Buffer, other: Buffer, random: Random): Buffer {
  const at = random.below(bytes.length + 1);
  const length = Math.min(bytes.length - at, 1 + random.below(1 + random.below(64)));
  const insert = (piece: Uint8Array, drop = 0): Buffer =>
    Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + drop)]);
  switch (random.below(9)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << random.below(8);
      return bytes;
    case 1:
      if (at < bytes.length) bytes[at] = random.pick(INTERESTING);
      return bytes;
    case 2:
      if (at < bytes.length) bytes[at] = random.below(256);
      return bytes;
    case 3:
      return insert(Buffer.alloc(0), length);
    case 4:
      return insert(bytes.subarray(at, at + length));
    case 5:
      return insert(Buffer.from(random.pick(TOKENS), 'utf8'), random.below(2) * length);
    case 6: {
      const from = random.below(other.length + 1);
      return insert(other.subarray(from, from + length), random.below(2) * length);
    }
    case 7:
      return bytes.subarray(0, at);
    default:
      bytes.copyWithin(at, random.below(bytes.length + 1), bytes.length - random.below(bytes.length + 1));
      return bytes;
  }
}
