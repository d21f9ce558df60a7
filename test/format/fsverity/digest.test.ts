import { readFileSync } from 'node:fs';

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  digestAlgorithm,
  digestFromBytes,
  digestToBytes,
  fsverityDigest,
  objectPath,
  parseVerityDigest,
  VerityHasher,
} from '../../../src/format/fsverity/digest.ts';
import { descriptorRecord } from '../../../src/format/fsverity/descriptor.ts';
import type { VerityAlgorithm } from '../../../src/tree/node.ts';

interface Vector {
  readonly pattern: string;
  readonly size: number;
  readonly sha256: string;
  readonly sha512: string;
}

const fixture = new URL('../../fixtures/composefs/fsverity.json', import.meta.url);
const { vectors } = JSON.parse(readFileSync(fixture, 'utf8')) as { vectors: Vector[] };
const algorithms: VerityAlgorithm[] = ['sha256', 'sha512'];

function pattern(name: string, size: number): Uint8Array {
  const bytes = Buffer.alloc(size);
  switch (name) {
    case 'zero':
      return bytes;
    case 'ff':
      return bytes.fill(0xff);
    case 'count':
      for (let i = 0; i < size; i++) bytes[i] = i % 251;
      return bytes;
    case 'text':
      return size === 0 ? bytes : bytes.fill('composefs\n');
    case 'lcg': {
      let x = 1n;
      for (let i = 0; i < size; i++) {
        x = (x * 1103515245n + 12345n) % 0x80000000n;
        bytes[i] = Number((x >> 16n) & 255n);
      }
      return bytes;
    }
    default:
      throw new Error(`unknown pattern ${name}`);
  }
}

describe('fs-verity digests', () => {
  test('agree with fsverity-utils for every pattern and size', () => {
    expect(vectors.length).toBeGreaterThan(100);
    const ours = vectors.map(({ pattern: name, size }) => {
      const bytes = pattern(name, size);
      return { pattern: name, size, sha256: fsverityDigest('sha256', bytes), sha512: fsverityDigest('sha512', bytes) };
    });
    expect(ours).toEqual(
      vectors.map(({ pattern: name, size, sha256, sha512 }) => ({ pattern: name, size, sha256, sha512 })),
    );
  });

  test.each(algorithms)('do not depend on how the data is cut into chunks (%s)', (algorithm) => {
    const sizes = fc.oneof(fc.nat(9000), fc.constantFrom(4095, 4096, 4097, 128 * 4096, 128 * 4096 + 1, 129 * 4096));
    fc.assert(
      fc.property(sizes, fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 20 }), (size, cuts) => {
        const bytes = pattern('count', size);
        const hasher = new VerityHasher(algorithm);
        const scratch = Buffer.alloc(20_000);
        let at = 0;
        for (const cut of [...cuts, ...Array<number>(Math.ceil(size / 20_000)).fill(20_000)]) {
          const chunk = bytes.subarray(at, at + cut);
          scratch.set(chunk);
          hasher.update(scratch.subarray(0, chunk.length));
          scratch.fill(0xee);
          at += chunk.length;
        }
        expect({ digest: hasher.digest(), sizeBytes: hasher.sizeBytes }).toEqual({
          digest: fsverityDigest(algorithm, bytes),
          sizeBytes: size,
        });
      }),
      { numRuns: 60 },
    );
  });

  test('a hasher may be left without an end and others stay right', () => {
    const abandoned = new VerityHasher('sha256');
    abandoned.update(pattern('ff', 5000));
    const first = new VerityHasher('sha256');
    const second = new VerityHasher('sha256');
    first.update(pattern('zero', 5000));
    second.update(pattern('ff', 5000));
    expect([first.digest(), second.digest()]).toEqual([
      fsverityDigest('sha256', pattern('zero', 5000)),
      fsverityDigest('sha256', pattern('ff', 5000)),
    ]);
  });

  test('a hasher that has ended repeats its digest and refuses more data', () => {
    const hasher = new VerityHasher('sha256');
    expect(hasher.digest()).toBe('3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95');
    expect(hasher.digest()).toBe('3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95');
    expect(() => hasher.update(new Uint8Array(1))).toThrow('Cannot update a hasher that has ended');
  });

  test('the descriptor has the layout of struct fsverity_descriptor', () => {
    expect({ size: descriptorRecord.size, ...descriptorRecord.offsets }).toEqual({
      size: 256,
      version: 0,
      hashAlgorithm: 1,
      logBlockSize: 2,
      saltSize: 3,
      signatureSize: 4,
      dataSize: 8,
      rootHash: 16,
      salt: 80,
      reserved: 112,
    });
  });
});

describe('digest text', () => {
  const hex = 'ab'.repeat(32);

  test('is accepted in full-length lower-case hex only', () => {
    expect(parseVerityDigest(hex)).toBe(hex);
    expect(parseVerityDigest(hex + hex, 'sha512')).toBe(hex + hex);
    expect([digestAlgorithm(parseVerityDigest(hex)), digestAlgorithm(parseVerityDigest(hex + hex))]).toEqual(
      algorithms,
    );
  });

  test.each([
    ['', undefined],
    [hex.slice(1), undefined],
    [`${hex}0`, undefined],
    [hex.toUpperCase(), undefined],
    [hex.replace('a', 'g'), undefined],
    [`${hex}\n`, undefined],
    [hex, 'sha512'],
    [hex + hex, 'sha256'],
  ] as const)('%j is refused', (text, algorithm) => {
    expect(() => parseVerityDigest(text, algorithm)).toThrow(
      /^Cannot use verity digest ".*": it must be .* hex digits$/s,
    );
  });

  test('goes to bytes, back, and to an object path', () => {
    const digest = parseVerityDigest(hex);
    expect(digestToBytes(digest)).toEqual(Buffer.alloc(32, 0xab));
    expect(digestFromBytes(digestToBytes(digest))).toBe(digest);
    expect(() => digestFromBytes(new Uint8Array(31))).toThrow('it must be 64 or 128 lower-case hex digits');
    expect(objectPath(digest)).toBe(`ab/${'ab'.repeat(31)}`);
  });
});
