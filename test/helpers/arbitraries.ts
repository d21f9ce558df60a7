/**
 * Random trees for property tests: small, but made of what has special rules somewhere (names around ".", object
 * directory names, overlay xattrs, sizes at block borders, times that force extended inodes, hard links anywhere).
 */

import fc from 'fast-check';

import { objectPath } from '../../src/format/fsverity/digest.ts';
import type { RawName } from '../../src/tree/name.ts';
import type {
  DirectoryNode,
  FileContent,
  LeafNode,
  Metadata,
  TreeEntry,
  TreeNode,
  VerityAlgorithm,
  VerityDigest,
} from '../../src/tree/node.ts';

export interface TreeOptions {
  readonly algorithm?: VerityAlgorithm;
  /** Leave out xattrs that the image uses for marks of its own, which do not survive. Default false. */
  readonly plainXattrs?: boolean;
  /** No value of such xattrs is longer than the mark: mkcomposefs can fail to replace those. Default false. */
  readonly shortMarks?: boolean;
  /** Give special files a stated size, which the image does not store. Default false. */
  readonly statedSizes?: boolean;
  /** Entries at most. Default 40. */
  readonly maxEntries?: number;
}

/** Any legal tree; the same node never stands at two places. */
export function treeArbitrary(options: TreeOptions = {}): fc.Arbitrary<DirectoryNode> {
  const step = fc.record({
    place: fc.nat(),
    name: rawName(),
    entry: fc.oneof(
      { weight: 8, arbitrary: node(options) },
      { weight: 1, arbitrary: fc.nat().map((pick) => ({ kind: 'link', pick }) as const) },
    ),
  });
  return fc
    .tuple(directory(options), fc.array(step, { maxLength: options.maxEntries ?? 40 }))
    .map(([root, steps]) => grow(root, steps));
}

interface Step {
  readonly place: number;
  readonly name: RawName;
  readonly entry: TreeNode | { readonly kind: 'link'; readonly pick: number };
}

function grow(root: DirectoryNode, steps: readonly Step[]): DirectoryNode {
  const directories = [root];
  const leaves: LeafNode[] = [];
  for (const { place, name, entry } of steps) {
    const { entries } = directories[place % directories.length]!;
    if (entries.has(name)) continue;
    if (entry.kind !== 'link') {
      entries.set(name, entry);
      if (entry.kind === 'directory') directories.push(entry);
      else leaves.push(entry);
    } else if (leaves.length > 0) {
      const target = leaves[entry.pick % leaves.length]!;
      target.nlink++;
      entries.set(name, { kind: 'hardlink', target } satisfies TreeEntry);
    }
  }
  return root;
}

/** A byte string without NUL. */
function rawText(minLength: number, maxLength: number): fc.Arbitrary<RawName> {
  return fc
    .uint8Array({ min: 1, minLength, maxLength })
    .map((bytes) => Buffer.from(bytes).toString('latin1') as RawName);
}

function rawName(): fc.Arbitrary<RawName> {
  return fc
    .oneof(
      { weight: 4, arbitrary: fc.stringMatching(/^[a-e]{1,3}$/) },
      { weight: 2, arbitrary: fc.stringMatching(/^[0-9a-f]{2}$/) },
      { weight: 2, arbitrary: rawText(1, 6) },
      { weight: 1, arbitrary: rawText(200, 255) },
      { weight: 1, arbitrary: fc.constantFrom('...', '.-', '..a', ' ', '-', '=', '\\', '\n', '.wh.x') },
    )
    .map((name) => name.replaceAll('/', '_') as RawName)
    .filter((name) => name !== '.' && name !== '..');
}

const PLAIN_XATTRS = [
  'user.a',
  'user.b',
  'user.',
  'security.selinux',
  'security.capability',
  'trusted.x',
  'trusted.overlay',
  'trusted.overlay.origin',
  'trusted.overlay.metacopy',
  'trusted.overlay.redirect',
  'trusted.overlay.overlay.opaque',
  'user.overlay.origin',
  'system.posix_acl_access',
  'system.posix_acl_default',
  'system.posix_acl_accessx',
  'lustre.lov',
  'other',
  'a=b',
];
const MARKED_XATTRS = [
  'trusted.overlay.opaque',
  'trusted.overlay.whiteout',
  'trusted.overlay.whiteouts',
  'user.overlay.opaque',
  'user.overlay.whiteout',
  'user.overlay.whiteouts',
];

function xattrs({ plainXattrs = false, shortMarks = false }: TreeOptions): fc.Arbitrary<Map<RawName, Uint8Array>> {
  const name = fc.constantFrom(...PLAIN_XATTRS, ...(plainXattrs ? [] : MARKED_XATTRS)) as fc.Arbitrary<RawName>;
  const value = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.constantFrom('', 'x', 'y', 'label', '\0\xff').map((text) => Buffer.from(text, 'latin1')),
    },
    { weight: 2, arbitrary: fc.uint8Array({ maxLength: 20 }) },
    { weight: 1, arbitrary: fc.nat(2500).map((size) => Buffer.alloc(size, 'v')) },
  );
  const pair = fc
    .tuple(name, value)
    .map(([key, bytes]): [RawName, Uint8Array] =>
      shortMarks && MARKED_XATTRS.includes(key)
        ? [key, bytes.subarray(0, key.endsWith('opaque') ? 1 : 0)]
        : [key, bytes],
    );
  return fc.array(pair, { maxLength: 4 }).map((pairs) => new Map(pairs));
}

function metadata(options: TreeOptions): fc.Arbitrary<Metadata> {
  const id = fc.constantFrom(0, 0, 0, 1000, 65535, 65536, 0xffffffff);
  return fc.record({
    mode: fc.constantFrom(0o644, 0o755, 0o4711, 0o7777, 0),
    uid: id,
    gid: id,
    mtime: fc.record({
      sec: fc.constantFrom(1_700_000_000n, 1_700_000_000n, 1_700_000_000n, 0n, -1n, 1n << 40n, -(1n << 63n)),
      nsec: fc.constantFrom(0, 0, 0, 1, 999_999_999),
    }),
    xattrs: xattrs(options),
  });
}

function directory(options: TreeOptions): fc.Arbitrary<DirectoryNode> {
  return metadata(options).map((common) => ({ kind: 'directory', ...common, entries: new Map() }));
}

function content({ algorithm = 'sha256' }: TreeOptions): fc.Arbitrary<FileContent> {
  const digits = algorithm === 'sha256' ? 64 : 128;
  const digest = fc
    .nat(5)
    .map((seed) => ('0123456789abcdef'[seed + 9]! + String(seed)).repeat(digits / 2) as VerityDigest);
  const size = fc.oneof(
    fc.integer({ min: 1, max: 10_000 }),
    fc.constantFrom(2 ** 32 - 1, 2 ** 32, 2 ** 43, 2 ** 43 + 1, 2 ** 50, 2 ** 52, 2 ** 53),
  );
  return fc.oneof(
    {
      weight: 3,
      arbitrary: fc
        .oneof(fc.nat(70), fc.constantFrom(2047, 2048, 2049, 4095, 4096, 4097, 5000))
        .map((length) => ({ kind: 'inline', bytes: Buffer.alloc(length, 'content\n') }) as const),
    },
    {
      weight: 3,
      arbitrary: fc
        .tuple(size, digest)
        .map(([bytes, hex]) => ({ kind: 'external', size: bytes, digest: hex, path: objectPath(hex) }) as const),
    },
    {
      weight: 1,
      arbitrary: fc.record(
        { kind: fc.constant('external' as const), size, digest, path: rawText(1, 30).map(withoutSlash) },
        { requiredKeys: ['kind', 'size'] },
      ),
    },
  );
}

/** A reader takes one leading slash off an object path. */
function withoutSlash(path: RawName): RawName {
  return path.replace(/^\/+/, '_') as RawName;
}

function node(options: TreeOptions): fc.Arbitrary<TreeNode> {
  const common = metadata(options);
  const nlink = fc.constantFrom(1, 1, 1, 3, 65536);
  const stated = options.statedSizes
    ? fc.record({ statedSize: fc.constantFrom(1n, 1n << 33n) }, { requiredKeys: [] })
    : fc.constant({});
  const target = fc.oneof(
    { weight: 4, arbitrary: rawText(1, 40) },
    { weight: 1, arbitrary: fc.integer({ min: 1900, max: 4095 }).map((size) => 't'.repeat(size) as RawName) },
  );
  const leaf = <T extends object>(fields: fc.Arbitrary<T>): fc.Arbitrary<Metadata & { nlink: number } & T> =>
    fc.tuple(common, nlink, fields).map(([meta, links, rest]) => ({ ...meta, nlink: links, ...rest }));
  return fc.oneof(
    { weight: 3, arbitrary: directory(options) },
    { weight: 4, arbitrary: leaf(content(options).map((bytes) => ({ kind: 'file' as const, content: bytes }))) },
    { weight: 2, arbitrary: leaf(target.map((text) => ({ kind: 'symlink' as const, target: text }))) },
    {
      weight: 2,
      arbitrary: leaf(
        fc
          .tuple(fc.constantFrom('char' as const, 'block' as const), fc.constantFrom(0, 0x103, 0xffffffff), stated)
          .map(([kind, rdev, rest]) => ({ kind, rdev, ...rest })),
      ),
    },
    {
      weight: 1,
      arbitrary: leaf(
        fc
          .tuple(fc.constantFrom('fifo' as const, 'socket' as const), stated)
          .map(([kind, rest]) => ({ kind, ...rest })),
      ),
    },
  );
}
