import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isHostctlError } from '../../src/errors.ts';
import {
  formatRepoMeta,
  isRepoWritable,
  newRepoMeta,
  parseRepoMeta,
  type RepoMeta,
} from '../../src/format/repo-meta.ts';

test('reads what composefs-rs writes', () => {
  const text =
    '{"version":1,"algorithm":"fsverity-sha512-12","erofs_formats":{"default":1,"extra":[2]},' +
    '"features":{"compatible":["x"],"read-only-compatible":["v1_erofs"],"incompatible":[]}}';
  const meta: RepoMeta = {
    version: 1,
    algorithm: 'sha512',
    logBlockSize: 12,
    erofsFormats: { default: 1, extra: [2] },
    features: { compatible: ['x'], readOnlyCompatible: ['v1_erofs'], incompatible: [] },
  };
  expect(parseRepoMeta(text)).toEqual(meta);
  expect(isRepoWritable(meta)).toBe(true);
  expect(parseRepoMeta(formatRepoMeta(meta))).toEqual(meta);
});

test('a new repository says what it is made with', () => {
  expect(JSON.parse(formatRepoMeta(newRepoMeta('sha256')))).toEqual({
    version: 1,
    algorithm: 'fsverity-sha256-12',
    erofs_formats: { default: 1, extra: [] },
    features: { compatible: [], 'read-only-compatible': ['v1_erofs'], incompatible: [] },
  });
});

test.each<[string, RepoMeta['erofsFormats']]>([
  ['{"version":1,"algorithm":"fsverity-sha256-12"}', { default: 2, extra: [] }],
  [
    '{"version":1,"algorithm":"fsverity-sha256-12","features":{"read-only-compatible":["v1_erofs"]}}',
    { default: 1, extra: [] },
  ],
  ['{"version":1,"algorithm":"fsverity-sha256-12","erofs_formats":{"default":0}}', { default: 0, extra: [] }],
])('image formats of %s', (text, expected) => {
  expect(parseRepoMeta(text).erofsFormats).toEqual(expected);
});

test('an unknown read-only compatible feature leaves reading', () => {
  const meta = newRepoMeta('sha512');
  const features = { ...meta.features, readOnlyCompatible: ['v1_erofs', 'later'] };
  expect(isRepoWritable(parseRepoMeta(formatRepoMeta({ ...meta, features })))).toBe(false);
});

describe('refused', () => {
  const base = { version: 1, algorithm: 'fsverity-sha512-12' };
  test.each<[string, unknown, string]>([
    ['a newer version', { ...base, version: 2 }, 'host-unsupported'],
    ['an incompatible feature', { ...base, features: { incompatible: ['x'] } }, 'host-unsupported'],
    ['another hash', { ...base, algorithm: 'fsverity-sha1-12' }, 'host-unsupported'],
    ['another block size', { ...base, algorithm: 'fsverity-sha512-16' }, 'host-unsupported'],
    ['a later image format', { ...base, erofs_formats: { default: 3 } }, 'host-unsupported'],
    ['version 0', { ...base, version: 0 }, 'format-invalid'],
    ['a version in words', { ...base, version: '1' }, 'format-invalid'],
    ['no algorithm', { version: 1 }, 'format-invalid'],
    ['a list', [], 'format-invalid'],
    ['null', null, 'format-invalid'],
    ['features that are a list', { ...base, features: [] }, 'format-invalid'],
    ['features that are numbers', { ...base, features: { incompatible: [1] } }, 'format-invalid'],
    ['formats without default', { ...base, erofs_formats: { extra: [] } }, 'format-invalid'],
  ])('is %s', (_, json, code) => {
    expect(() => parseRepoMeta(JSON.stringify(json))).toThrowError(expect.objectContaining({ code }) as Error);
  });

  test.each(['', '{', 'x'.repeat(65_537)])('is text that is no JSON or too long', (text) => {
    expect(() => parseRepoMeta(text)).toThrowError(expect.objectContaining({ code: 'format-invalid' }) as Error);
  });

  test('any JSON gives a value or a typed error', () => {
    const json = fc.record(
      {
        version: fc.jsonValue({ maxDepth: 1 }),
        algorithm: fc.constantFrom('fsverity-sha512-12', 1, {}),
        features: fc.jsonValue({ maxDepth: 2 }),
        erofs_formats: fc.jsonValue({ maxDepth: 2 }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(json, (value) => {
        try {
          parseRepoMeta(JSON.stringify(value));
        } catch (error) {
          expect(isHostctlError(error, 'format-invalid', 'host-unsupported')).toBe(true);
        }
      }),
    );
  });
});
