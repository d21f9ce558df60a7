import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { objectPath } from '../../src/format/fsverity/digest.ts';
import {
  encodeLayerRecord,
  isLayerRecord,
  isOtherLayerRecord,
  parseLayerRecord,
  type LayerContent,
  type LayerKey,
} from '../../src/format/layer-record.ts';
import type { DiffId } from '../../src/format/oci/digest.ts';
import type { LayerEntry } from '../../src/tree/layer-entry.ts';
import type { RawName } from '../../src/tree/name.ts';
import {
  NO_CONTENT,
  NO_XATTRS,
  type FileContent,
  type Metadata,
  type TreeNode,
  type VerityDigest,
} from '../../src/tree/node.ts';

const KEY: LayerKey = { diffId: `sha256:${'1'.repeat(64)}` as DiffId, algorithm: 'sha512' };
const HEADER_BYTES = 16 + 2 + 2 + KEY.diffId.length;

/** Pieces are lent, so each is copied before the next. */
function encode(content: LayerContent): Buffer {
  const copies: Buffer[] = [];
  for (const bytes of encodeLayerRecord(KEY, content)) copies.push(Buffer.from(bytes));
  return Buffer.concat(copies);
}

/** The bytes with a checksum that fits. */
function sealed(bytes: Uint8Array): Buffer {
  const body = bytes.subarray(0, bytes.length - 32);
  return Buffer.concat([body, createHash('sha256').update(body).digest()]);
}

const raw = (maxLength: number): fc.Arbitrary<RawName> =>
  fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes).toString('latin1') as RawName);

const metadata: fc.Arbitrary<Metadata> = fc.record({
  mode: fc.nat(0o7777),
  uid: fc.nat(2 ** 32 - 2),
  gid: fc.nat(2 ** 32 - 2),
  mtime: fc.record({ sec: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), nsec: fc.nat(999_999_999) }),
  xattrs: fc
    .uniqueArray(fc.tuple(raw(255), fc.uint8Array({ maxLength: 300 })), { selector: ([name]) => name, maxLength: 3 })
    .map((pairs) => (pairs.length === 0 ? NO_XATTRS : new Map(pairs))),
});

const digest = fc
  .uint8Array({ minLength: 64, maxLength: 64 })
  .map((b) => Buffer.from(b).toString('hex') as VerityDigest);

const content = fc.oneof(
  fc.constant(NO_CONTENT),
  fc.uint8Array({ minLength: 1, maxLength: 64 }).map((bytes) => ({ kind: 'inline' as const, bytes })),
  fc
    .tuple(fc.integer({ min: 65, max: Number.MAX_SAFE_INTEGER }), digest)
    .map(([size, name]) => ({ kind: 'external' as const, size, digest: name, path: objectPath(name) })),
);

const node: fc.Arbitrary<TreeNode> = fc.oneof(
  metadata.map((meta): TreeNode => ({ kind: 'directory', ...meta, entries: new Map() })),
  fc.tuple(metadata, content).map(([meta, of]): TreeNode => ({ kind: 'file', ...meta, content: of, nlink: 0 })),
  fc.tuple(metadata, raw(4095)).map(([meta, target]): TreeNode => ({ kind: 'symlink', ...meta, target, nlink: 0 })),
  fc
    .tuple(metadata, fc.constantFrom('char' as const, 'block' as const), fc.nat(2 ** 32 - 1))
    .map(([meta, kind, rdev]): TreeNode => ({ kind, ...meta, rdev, nlink: 0 })),
  metadata.map((meta): TreeNode => ({ kind: 'fifo', ...meta, nlink: 0 })),
);

const place = { number: fc.nat(2 ** 32 - 1), path: raw(4095) };
const entry: fc.Arbitrary<LayerEntry> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ ...place, kind: fc.constant('node' as const), node }) },
  { weight: 1, arbitrary: fc.record({ ...place, kind: fc.constant('hardlink' as const), target: raw(4095) }) },
  { weight: 1, arbitrary: fc.record({ ...place, kind: fc.constantFrom('whiteout' as const, 'opaque' as const) }) },
);

const used = fc.record({
  entries: fc.nat(4_000_000),
  metadataBytes: fc.nat(512 << 20),
  outputBytes: fc.nat(64 * 2 ** 30),
});

const layer: fc.Arbitrary<LayerContent> = fc.record({
  entries: fc.array(entry, { maxLength: 20 }),
  used,
  trailingData: fc.boolean(),
});

const SAMPLE: LayerContent = {
  used: { entries: 3, metadataBytes: 40, outputBytes: 10_000_000_000 },
  trailingData: true,
  entries: [
    { kind: 'opaque', number: 1, path: '' as RawName },
    {
      kind: 'node',
      number: 3,
      path: 'usr/bin/a' as RawName,
      node: {
        kind: 'file',
        mode: 0o755,
        uid: 1,
        gid: 2,
        mtime: { sec: -1n, nsec: 5 },
        xattrs: new Map([['security.capability' as RawName, Buffer.from('x')]]),
        content: {
          kind: 'external',
          size: 70,
          digest: 'ab'.repeat(64) as VerityDigest,
          path: `ab/${'ab'.repeat(63)}` as RawName,
        },
        nlink: 0,
      },
    },
  ],
};

describe('a layer record', () => {
  test('holds what was put in', () => {
    fc.assert(
      fc.property(layer, (value) => {
        const bytes = encode(value);
        expect(isLayerRecord(bytes, KEY)).toBe(true);
        const found = parseLayerRecord(bytes, KEY);
        expect(found).toEqual(value);
        expect(encode(found)).toEqual(bytes);
      }),
    );
  });

  test('has these bytes', () => {
    const bytes = encode(SAMPLE);
    expect(createHash('sha256').update(bytes).digest('hex')).toMatchInlineSnapshot(
      `"c76e225088a4a9ca2365920f58bc104602d658f943e164cffd9b31c77d989d75"`,
    );
    expect(bytes.toString('latin1', 0, 16)).toBe('hostctl-layer 1\n');
  });

  test('comes in pieces that are lent, however many entries there are', () => {
    const entries = Array.from({ length: 20_000 }, (_, i) => ({ ...SAMPLE.entries[1]!, number: i }));
    const sizes: number[] = [];
    for (const piece of encodeLayerRecord(KEY, { ...SAMPLE, entries })) sizes.push(piece.length);
    expect(sizes.length).toBeGreaterThan(10);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(256 << 10);
    expect(parseLayerRecord(encode({ ...SAMPLE, entries }), KEY).entries).toHaveLength(20_000);
  });

  test('shares times and the absence of xattrs between nodes', () => {
    const file = {
      kind: 'fifo',
      mode: 0,
      uid: 0,
      gid: 0,
      mtime: { sec: 7n, nsec: 0 },
      xattrs: new Map(),
      nlink: 0,
    } as const;
    const entries = ['a', 'b'].map(
      (path, number) => ({ kind: 'node', number, path: path as RawName, node: file }) as const,
    );
    const [a, b] = parseLayerRecord(encode({ ...SAMPLE, entries }), KEY).entries.flatMap((found) =>
      found.kind === 'node' ? [found.node] : [],
    );
    expect(a!.mtime).toBe(b!.mtime);
    expect(a!.xattrs).toBe(NO_XATTRS);
  });

  test.each<[string, Partial<LayerKey>]>([
    ['another layer', { diffId: `sha256:${'2'.repeat(64)}` as DiffId }],
    ['a layer by another algorithm', { diffId: `sha512:${'1'.repeat(128)}` as DiffId }],
    ['another hash', { algorithm: 'sha256' }],
  ])('is none of %s', (_, other) => {
    expect(isLayerRecord(encode(SAMPLE), { ...KEY, ...other })).toBe(false);
    expect(() => parseLayerRecord(encode(SAMPLE), { ...KEY, ...other })).toThrow(
      expect.objectContaining({ code: 'format-invalid' }),
    );
  });

  test('is none of another version', () => {
    const bytes = encode(SAMPLE);
    bytes.write('2', 14);
    expect(isLayerRecord(sealed(bytes), KEY)).toBe(false);
    expect(isOtherLayerRecord(sealed(bytes))).toBe(true);
    expect(isOtherLayerRecord(bytes)).toBe(false);
    expect(isOtherLayerRecord(encode(SAMPLE))).toBe(false);
    expect(isOtherLayerRecord(bytes.subarray(0, 16))).toBe(false);
  });

  test('with any bit flipped is none', () => {
    const bytes = encode(SAMPLE);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(isLayerRecord(bytes, KEY)).toBe(false);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
    expect(isLayerRecord(bytes, KEY)).toBe(true);
  });

  test('cut anywhere, or longer, is none', () => {
    const bytes = encode(SAMPLE);
    for (let length = 0; length < bytes.length; length++) {
      expect(isLayerRecord(bytes.subarray(0, length), KEY)).toBe(false);
    }
    expect(isLayerRecord(Buffer.concat([bytes, Buffer.alloc(1)]), KEY)).toBe(false);
  });

  test('cut anywhere with a checksum that fits is refused', () => {
    const bytes = encode(SAMPLE);
    for (let length = 32; length < bytes.length; length++) {
      expect(() => parseLayerRecord(sealed(bytes.subarray(0, length)), KEY)).toThrow(
        expect.objectContaining({ code: 'format-invalid' }),
      );
    }
  });

  test('with any other bytes and a checksum that fits is refused, or read for what is there', () => {
    const key = fc.tuple(layer, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }));
    fc.assert(
      fc.property(key, ([value, edits]) => {
        const bytes = encode(value);
        for (const [at, byte] of edits) bytes[HEADER_BYTES + (at % (bytes.length - HEADER_BYTES))] = byte;
        let found: LayerContent;
        try {
          found = parseLayerRecord(sealed(bytes), KEY);
        } catch (error) {
          expect(error).toMatchObject({ code: 'format-invalid' });
          return;
        }
        expect(encode(found)).toEqual(sealed(bytes));
      }),
    );
  });

  test.each<[string, number, string]>([
    ['a length beyond its end', HEADER_BYTES + 24 + 1 + 4, 'ffff'],
    ['more entries than follow', HEADER_BYTES, '03000000'],
    ['fewer entries than follow', HEADER_BYTES, '01000000'],
    ['a number beyond 2^53', HEADER_BYTES + 8, 'ffffffffffffffff'],
    ['a kind that there is not', HEADER_BYTES + 24, '0a'],
    ['neither trailing data nor none', 17, '02'],
  ])('is refused with %s', (_, at, hex) => {
    const bytes = encode(SAMPLE);
    bytes.write(hex, at, 'hex');
    expect(() => parseLayerRecord(sealed(bytes), KEY)).toThrow(expect.objectContaining({ code: 'format-invalid' }));
  });

  const meta: Metadata = { mode: 0o644, uid: 0, gid: 0, mtime: { sec: 0n, nsec: 0 }, xattrs: NO_XATTRS };
  const name = 'ab'.repeat(64) as VerityDigest;
  const object: FileContent = { kind: 'external', size: 64, digest: name, path: objectPath(name) };
  const file = (of: FileContent): TreeNode => ({ kind: 'file', ...meta, content: of, nlink: 0 });
  const recordOf = (node: TreeNode): Buffer =>
    encode({ ...SAMPLE, entries: [{ kind: 'node', number: 0, path: 'a' as RawName, node }] });

  test.each<[string, TreeNode]>([
    ['an object that is small enough for the image', file(object)],
    ['a content that is too large for the image', file({ kind: 'inline', bytes: new Uint8Array(65) })],
    ['a mode of more than its bits', { ...meta, kind: 'fifo', mode: 0o10000, nlink: 0 }],
    ['a time of a second of nanoseconds', { ...meta, kind: 'fifo', mtime: { sec: 0n, nsec: 1e9 }, nlink: 0 }],
  ])('is refused with %s', (_, node) => {
    const bytes = recordOf(node);
    expect(() => parseLayerRecord(bytes, KEY)).toThrow(expect.objectContaining({ code: 'format-invalid' }));
  });

  test('is refused with an xattr twice', () => {
    const xattrs = new Map(['user.a', 'user.b'].map((key) => [key as RawName, Buffer.from('x')]));
    const node: TreeNode = { ...meta, kind: 'fifo', xattrs, nlink: 0 };
    const bytes = recordOf(node);
    bytes.write('user.a', bytes.indexOf('user.b'), 'latin1');
    expect(() => parseLayerRecord(sealed(bytes), KEY)).toThrow(/an xattr twice/);
  });
});
