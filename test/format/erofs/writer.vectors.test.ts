import { createHash } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { parseDump } from '../../../src/format/dump/parse.ts';
import { writeComposefsImage, type ComposefsImageOptions } from '../../../src/format/erofs/writer.ts';
import { fsverityDigest } from '../../../src/format/fsverity/digest.ts';
import {
  fileVectors,
  microVectors,
  REFUSED_ON_PURPOSE,
  ACCEPTED_ON_PURPOSE,
  sha512Vectors,
  VERSION_2_DEVIATIONS,
  version2Vectors,
  type Expected,
  type Mode,
  type Vector,
} from '../../helpers/composefs-vectors.ts';

const MODES = {
  default: { minVersion: 0 },
  v0: { maxVersion: 0 },
  v1: {},
} satisfies Record<Mode, Omit<ComposefsImageOptions, 'algorithm'>>;
const modes = Object.keys(MODES) as Mode[];

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function written(dump: Uint8Array, mode: Mode): Partial<Expected> {
  const image = writeComposefsImage(parseDump(dump), { algorithm: 'sha256', ...MODES[mode] });
  return {
    header_version: image.version as 0 | 1,
    size: image.bytes.length,
    sha256: sha256(image.bytes),
    digest: fsverityDigest('sha256', image.bytes),
    ...(mode === 'default' ? { fsverity_sha512: fsverityDigest('sha512', image.bytes) } : {}),
  };
}

function wanted({ header_version, size, sha256, digest, fsverity_sha512 }: Expected): Partial<Expected> {
  return {
    header_version,
    size,
    sha256,
    digest,
    ...(fsverity_sha512 === undefined ? {} : { fsverity_sha512 }),
  };
}

describe('images are byte-identical with mkcomposefs', () => {
  test.each(fileVectors())('$name', ({ dump, expect: expected }) => {
    for (const mode of modes) expect({ mode, ...written(dump, mode) }).toEqual({ mode, ...wanted(expected[mode]) });
  });

  const plain = (vector: Vector): boolean =>
    !(vector.name in REFUSED_ON_PURPOSE) && modes.every((mode) => vector.expect[mode].error === undefined);

  test('in all micro sweeps', () => {
    const vectors = microVectors().filter(plain);
    expect(vectors.length).toBeGreaterThan(300);
    for (const { name, dump, expect: expected } of vectors) {
      for (const mode of modes) {
        expect({ name, mode, ...written(dump, mode) }).toEqual({ name, mode, ...wanted(expected[mode]) });
      }
    }
  });
});

describe('images with sha512 objects', () => {
  test.each(sha512Vectors())('$name', ({ dump, expect: expected }) => {
    for (const mode of ['v0', 'v1'] as const) {
      const { bytes } = writeComposefsImage(parseDump(dump), { algorithm: 'sha512', ...MODES[mode] });
      const { digest_sha512, sha256: plainHash, size, deviates_from_c: deviates } = expected[mode];
      const ours = { size: bytes.length, sha256: sha256(bytes), digest_sha512: fsverityDigest('sha512', bytes) };
      if (deviates) expect(ours).not.toEqual({ size, sha256: plainHash, digest_sha512 });
      else expect(ours).toEqual({ size, sha256: plainHash, digest_sha512 });
    }
  });
});

describe('images of version 2 are byte-identical with composefs-rs', () => {
  const version2 = (dump: Uint8Array, algorithm: 'sha256' | 'sha512'): object => {
    const { bytes, version } = writeComposefsImage(parseDump(dump), { algorithm, minVersion: 2, maxVersion: 2 });
    return { version, size: bytes.length, sha256: sha256(bytes), digest: fsverityDigest(algorithm, bytes) };
  };

  test.each(version2Vectors('file'))('$name', ({ dump, expect: expected }) => {
    expect(version2(dump, 'sha256')).toEqual({ version: 2, ...expected });
  });

  test('in all micro sweeps', () => {
    const vectors = version2Vectors('micro').filter(({ name }) => !VERSION_2_DEVIATIONS.includes(name));
    expect(vectors.length).toBeGreaterThan(200);
    for (const { name, dump, expect: expected } of vectors) {
      expect({ name, ...version2(dump, 'sha256') }).toEqual({ name, version: 2, ...expected });
    }
  });

  test.each(sha512Vectors())('$name, with sha512 objects', ({ dump, expect: { v2 } }) => {
    const { digest_sha512, sha256, size } = v2;
    expect(version2(dump, 'sha512')).toEqual({ version: 2, size, sha256, digest: digest_sha512 });
  });

  test('content of a block or more has no place in it', () => {
    const dump = Buffer.from(`/ 4096 40755 2 0 0 0 0.0 - - -\n/f 4096 100644 1 0 0 0 0.0 - ${'a'.repeat(4096)} -\n`);
    expect(() => version2(dump, 'sha256')).toThrow('Composefs version 2 cannot hold a file of 4096 bytes');
  });
});

describe('known deviations', () => {
  const byName = new Map(microVectors().map((vector) => [vector.name, vector]));

  test.each(Object.entries(REFUSED_ON_PURPOSE))('%s is refused at %s', (name, place) => {
    expect(() => parseDump(byName.get(name)!.dump)).toThrow(`Cannot read the dump: ${place} `);
  });

  test.each(ACCEPTED_ON_PURPOSE)('%s is accepted', (name) => {
    expect(byName.get(name)!.expect.v1.error).toBeDefined();
    expect(written(byName.get(name)!.dump, 'v1')).toMatchObject({ header_version: 1, size: 16384 });
  });

  test('the other inputs that mkcomposefs refuses are refused', () => {
    const refused = microVectors().filter(
      ({ name, expect: { v1 } }) => v1.error && !ACCEPTED_ON_PURPOSE.includes(name),
    );
    expect(refused.map(({ name }) => name)).toEqual([
      'xattr-value-32739',
      'xattr-value-32740',
      'xattr-ascii-value-32743',
      'xattr-ascii-value-32749',
    ]);
    for (const { dump } of refused) expect(() => parseDump(dump)).toThrow('line 2, field XATTR');
  });
});
