import { expect, test } from 'vitest';
import { merkleTreeBytes } from '../../../src/format/fsverity/merkle.ts';

test.each([
  ['sha256', 0, 0],
  ['sha256', 4096, 0],
  ['sha256', 4097, 4096],
  ['sha256', 128 * 4096, 4096],
  // Two blocks of hashes, and one above them.
  ['sha256', 128 * 4096 + 1, 3 * 4096],
  ['sha512', 64 * 4096, 4096],
  ['sha512', 64 * 4096 + 1, 3 * 4096],
] as const)('the hash tree by %s of %i bytes takes %i bytes', (algorithm, sizeBytes, expected) => {
  expect(merkleTreeBytes(sizeBytes, algorithm)).toBe(expected);
});
