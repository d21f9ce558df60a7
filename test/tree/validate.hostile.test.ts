import { describe, expect, test } from 'vitest';

import { isHostctlError } from '../../src/errors.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import type { DirectoryNode, FileContent, HardlinkEntry, TreeEntry, VerityDigest } from '../../src/tree/node.ts';
import { assertValidTree, validateTree } from '../../src/tree/validate.ts';
import type { RawName } from '../../src/tree/name.ts';
import { charDevice, dir, fifo, file, symlink } from '../helpers/tree-builder.ts';

const HEX = 'ab'.repeat(32) as VerityDigest;

/** A root with one entry, whose name needs not be a legal one. */
function holding(entry: TreeEntry, name = 'x'): DirectoryNode {
  const root = dir();
  root.entries.set(name as RawName, entry);
  return root;
}

function external(fields: object): DirectoryNode {
  return holding({ ...file(), content: { kind: 'external', size: 9, ...fields } as FileContent });
}

function withXattr(name: string, size: number): DirectoryNode {
  const node = file();
  node.xattrs = new Map([[name as RawName, new Uint8Array(size)]]);
  return holding(node);
}

function loop(): DirectoryNode {
  const root = dir();
  const child = dir();
  root.entries.set('a' as RawName, child);
  child.entries.set('b' as RawName, root);
  return root;
}

function twice(): DirectoryNode {
  const shared = file();
  const root = holding(shared);
  root.entries.set('y' as RawName, shared);
  return root;
}

describe('a tree that cannot be an image has a problem', () => {
  test.each<[string, DirectoryNode, string]>([
    ['an empty name', holding(file(), ''), '/ has an empty name'],
    ['a reserved name', holding(file(), '..'), '/.. has a reserved name'],
    ['a slash in a name', holding(file(), 'a/b'), '/a/b has a name with a slash or NUL in it'],
    ['NUL in a name', holding(file(), 'a\0'), '/a\0 has a name with a slash or NUL in it'],
    ['a name that is no byte string', holding(file(), 'ł'), '/ł has a name that is not a byte string'],
    ['a name of 256 bytes', holding(file(), 'n'.repeat(256)), `/${'n'.repeat(256)} has a name of 256 bytes, above 255`],
    [
      'type bits in a mode',
      holding({ ...file(), mode: 0o100644 }),
      '/x has mode 0100644, which is not permission bits only',
    ],
    ['a uid that is no number', holding({ ...file(), uid: NaN }), '/x has uid NaN'],
    ['a gid beyond 32 bits', holding({ ...file(), gid: 2 ** 32 }), '/x has gid 4294967296'],
    ['a negative link count', holding({ ...file(), nlink: -1 }), '/x has link count -1'],
    [
      'a fraction of a nanosecond',
      holding(file('', { mtime: { sec: 0n, nsec: 0.5 } })),
      '/x has 0.5 nanoseconds in its mtime',
    ],
    [
      'a second of nanoseconds',
      holding(file('', { mtime: { sec: 0n, nsec: 1e9 } })),
      '/x has 1000000000 nanoseconds in its mtime',
    ],
    [
      'seconds beyond 64 bits',
      holding(file('', { mtime: { sec: 1n << 63n, nsec: 0 } })),
      '/x has mtime 9223372036854775808, beyond 64 bits',
    ],
    ['an empty symlink', holding(symlink('')), '/x has a symlink target of 0 bytes'],
    ['a long symlink', holding(symlink('t'.repeat(4096))), '/x has a symlink target of 4096 bytes, above 4095'],
    ['NUL in a symlink', holding(symlink('t\0')), '/x has a symlink target with NUL in it'],
    ['a device number beyond 32 bits', holding(charDevice(2 ** 32)), '/x has device number 4294967296'],
    [
      'inline content above 5000 bytes',
      holding({ ...file(), content: { kind: 'inline', bytes: new Uint8Array(5001) } }),
      '/x has 5001 bytes inline, above 5000',
    ],
    ['an object of size 0', external({ size: 0 }), '/x has external size 0'],
    ['an object above 2^53', external({ size: 2 ** 53 + 2 }), '/x has external size 9007199254740994'],
    ['an empty object path', external({ path: '' }), '/x has an object path of 0 bytes'],
    [
      'a short digest',
      external({ digest: HEX.slice(1) }),
      `/x has verity digest "${HEX.slice(1)}", which is not sha256`,
    ],
    [
      'a digest of another algorithm',
      external({ digest: HEX + HEX }),
      `/x has verity digest "${HEX}${HEX}", which is not sha256`,
    ],
    [
      'a digest in capitals',
      external({ digest: HEX.toUpperCase() }),
      `/x has verity digest "${HEX.toUpperCase()}", which is not sha256`,
    ],
    ['an empty xattr name', withXattr('', 1), '/x has an xattr name of 0 bytes'],
    ['a long xattr name', withXattr(`user.${'n'.repeat(251)}`, 1), '/x has an xattr name of 256 bytes'],
    ['NUL in an xattr name', withXattr('user.\0', 1), '/x has xattr name "user.\\x00"'],
    ['large xattrs', withXattr('user.x', 32743), '/x has xattrs of 32768 bytes in all, above 32767'],
    ['a directory inside itself', loop(), '/a/b holds an inode that has another place in the tree'],
    ['an inode at two places', twice(), '/y holds an inode that has another place in the tree'],
    [
      'a hard link to nothing in the tree',
      holding({ kind: 'hardlink', target: fifo() }),
      '/x is a hard link to nothing in the tree',
    ],
    [
      'a hard link to a directory',
      holding({ kind: 'hardlink', target: dir() } as unknown as HardlinkEntry),
      '/x is a hard link to a directory',
    ],
  ])('%s', (_, root, expected) => {
    const problems = validateTree(root, { algorithm: 'sha256' });
    expect(problems.map(({ path, problem }) => `${path} ${problem}`)).toEqual([expected]);
    expect(() => writeComposefsImage(root, { algorithm: 'sha256' })).toThrow(/^Cannot make an image: "/);
  });

  test('and the largest of everything has none', () => {
    const root = dir();
    const entries: [string, TreeEntry][] = [
      ['n'.repeat(255), file('i', { uid: 0xffffffff, gid: 0xffffffff, mode: 0o7777 })],
      ['symlink', symlink('t'.repeat(4095))],
      ['inline', { ...file(), content: { kind: 'inline', bytes: new Uint8Array(5000) } }],
      [
        'object',
        { ...file(), content: { kind: 'external', size: 2 ** 53, path: 'p'.repeat(4095) as RawName, digest: HEX } },
      ],
      ['xattr', withXattr('user.x', 32742).entries.get('x' as RawName)!],
      ['device', { ...charDevice(0xffffffff), nlink: 0xffffffff }],
    ];
    for (const [name, entry] of entries) root.entries.set(name as RawName, entry);
    expect(validateTree(root, { algorithm: 'sha256' })).toEqual([]);
  });
});

test('all problems are told at once: ten in the message, every one in its cause', () => {
  const root = dir();
  for (let i = 10; i < 25; i++) root.entries.set(`f${i}` as RawName, { ...file(), uid: -1 });
  let problem: unknown;
  try {
    assertValidTree(root);
  } catch (error) {
    problem = error;
  }
  if (!isHostctlError(problem, 'image-invalid')) throw problem;
  const shown = Array.from({ length: 10 }, (_, i) => `"/f${i + 10}" has uid -1`);
  expect(problem.message).toBe(`Cannot make an image: ${shown.join('; ')}; and 5 more`);
  expect((problem.cause as AggregateError).errors).toHaveLength(15);
});
