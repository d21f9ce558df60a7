import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { isHostctlError } from '../../../src/errors.ts';
import { viewOf } from '../../../src/format/bytes/record.ts';
import { ErofsImage, type ImageInode } from '../../../src/format/erofs/image.ts';
import { imageObjects } from '../../../src/format/erofs/image-objects.ts';
import { inspectImage } from '../../../src/format/erofs/inspect.ts';
import * as L from '../../../src/format/erofs/layout.ts';
import { readComposefsImage } from '../../../src/format/erofs/reader.ts';
import { writeComposefsImage } from '../../../src/format/erofs/writer.ts';
import type { DirectoryNode } from '../../../src/tree/node.ts';
import { treeArbitrary } from '../../helpers/arbitraries.ts';
import { charDevice, dir, file, symlink, tree } from '../../helpers/tree-builder.ts';

const owner = { uid: 0, gid: 0, mtime: { sec: 1_700_000_000n, nsec: 0 } };
const late = { ...owner, mtime: { sec: 1_800_000_000n, nsec: 0 } };
const SB = L.SUPERBLOCK_OFFSET;

/** An image to break, with the places of what it holds. */
class Victim {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(root: DirectoryNode) {
    this.bytes = writeComposefsImage(root, { algorithm: 'sha256' }).bytes;
    this.view = viewOf(this.bytes);
  }

  /** The inode at an absolute path. */
  inode(path: string): ImageInode {
    const image = new ErofsImage(this.bytes);
    let inode = image.inode(image.rootNid);
    for (const name of path.split('/').filter(Boolean)) {
      inode = image.inode(image.entries(inode).find((entry) => entry.name === name)!.nid);
    }
    return inode;
  }

  /** Where the directory entry with this path stands. */
  dirent(path: string): number {
    const slash = path.lastIndexOf('/');
    const image = new ErofsImage(this.bytes);
    const parent = this.inode(path.slice(0, slash));
    const index = image.entries(parent).findIndex(({ name }) => name === path.slice(slash + 1));
    return new ErofsImage(this.bytes).extents(parent)[0]!.offset + index * L.dirent.size;
  }

  u8(offset: number, value: number): void {
    this.view.setUint8(offset, value);
  }

  u16(offset: number, value: number): void {
    this.view.setUint16(offset, value, true);
  }

  u32(offset: number, value: number): void {
    this.view.setUint32(offset, value, true);
  }

  u64(offset: number, value: bigint): void {
    this.view.setBigUint64(offset, value, true);
  }
}

function victim(): Victim {
  return new Victim(
    tree({
      '/': dir({ ...owner, xattrs: { 'security.selinux': 'label' } }),
      '/dir': dir({ ...owner, xattrs: { 'user.one': '1', 'user.two': '2' } }),
      '/dir/aa': file('a', owner),
      '/dir/bb': file('b', owner),
      '/dir/sub': dir(owner),
      '/dir/sub/x': file('', owner),
      '/dir2': dir(owner),
      '/dir2/y': file('', owner),
      '/big': file('x'.repeat(9000), owner),
      '/late': dir(late),
      '/link': symlink('target', owner),
      '/latelink': symlink('target', late),
      '/zero': charDevice(0x103, owner),
      '/inline': file('i'.repeat(50), late),
    }),
  );
}

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (isHostctlError(error, 'format-invalid', 'image-unsupported')) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'accepted';
}

type Break = readonly [what: string, edit: (v: Victim) => void, expected: RegExp];

const headerBreaks: Break[] = [
  ['no composefs magic', (v) => v.u32(0, 1), /composefs header at offset 0: magic 0x1$/],
  ['an unknown header version', (v) => v.u32(4, 2), /^image-unsupported: .*header version 2$/],
  ['a composefs version of another layout', (v) => v.u32(12, 3), /^image-unsupported: .*composefs version 3$/],
  ['no EROFS magic', (v) => v.u32(SB, 1), /superblock at offset 1024: magic 0x1$/],
  ['another block size', (v) => v.u8(SB + 12, 9), /^image-unsupported: .*another block size$/],
  ['another directory block size', (v) => v.u8(SB + 90, 1), /^image-unsupported: .*another block size$/],
  ['compression', (v) => v.u32(SB + 80, 1), /^image-unsupported: .*EROFS features 0x1$/],
  ['fewer blocks than said', (v) => v.u32(SB + 36, 1000), /superblock .*: 1000 blocks in a file of \d+ bytes$/],
  ['a build time of too many nanoseconds', (v) => v.u32(SB + 32, 1e9), /build time has 1000000000 nanoseconds$/],
  ['a root beyond the end', (v) => v.u16(SB + 14, 0xffff), /inode at offset 2097120: beyond the end/],
  ['inodes beyond the end', (v) => v.u32(SB + 40, 0xffffffff), /inode at offset \d+: beyond the end/],
  ['a root that is a file', (v) => v.u16(SB + 14, v.inode('/dir/aa').nid), /: the root is a file$/],
];

const inodeBreaks: Break[] = [
  ['no file type', (v) => v.u16(v.inode('/dir/aa').offset + 4, 0o644), /mode 0644 has no file type$/],
  ['an unknown data layout', (v) => v.u16(v.inode('/dir/aa').offset, 1 << 1), /format 2 has no known data layout$/],
  ['unknown format bits', (v) => v.u16(v.inode('/dir/aa').offset, 1 << 8), /format 256 has no known data layout$/],
  ['a chunk-based directory', (v) => v.u16(v.inode('/dir').offset, L.LAYOUT_CHUNKED << 1), /: chunk-based directory$/],
  ['a chunk-based symlink', (v) => v.u16(v.inode('/link').offset, L.LAYOUT_CHUNKED << 1), /: chunk-based symlink$/],
  ['a huge directory', (v) => v.u64(v.inode('/late').offset + 8, 1n << 40n), /directory data .*run past the end/],
  [
    'a size above 2^53',
    (v) => v.u64(v.inode('/late').offset + 8, (1n << 53n) + 2n),
    /size 9007199254740994 is above 2\^53$/,
  ],
  [
    'a huge inline file',
    (v) => v.u64(v.inode('/inline').offset + 8, 1n << 40n),
    /inline content of 1099511627776 bytes$/,
  ],
  ['a huge symlink', (v) => v.u64(v.inode('/latelink').offset + 8, 4096n), /symlink target of 4096 bytes$/],
  ['an empty symlink', (v) => v.u32(v.inode('/link').offset + 8, 0), /symlink target of 0 bytes$/],
  ['NUL in a symlink', (v) => v.u8(v.inode('/link').tailOffset + 2, 0), /symlink target with NUL$/],
  ['too many nanoseconds', (v) => v.u32(v.inode('/late').offset + 40, 1e9), /mtime has 1000000000 nanoseconds$/],
  [
    'a data block beyond the end',
    (v) => v.u32(v.inode('/').offset + 16, 99_999),
    /directory data at offset 409595904: 4096 bytes run past/,
  ],
  [
    'an xattr area beyond the end',
    (v) => v.u16(v.inode('/zero').offset + 2, 0xffff),
    /inode at offset \d+: 262180 bytes run past the end/,
  ],
  ['a linked stub', (v) => v.u16(v.inode('/7f').offset + 6, 2), /whiteout stub with 2 links$/],
  [
    'an object without metacopy',
    (v) => v.u16(v.inode('/big').offset + 2, 0),
    /data layout and overlay xattrs disagree/,
  ],
  ['inline content with metacopy', (v) => v.u16(v.inode('/big').offset, 0), /data layout and overlay xattrs disagree/],
  ['an object of size 0', (v) => v.u32(v.inode('/big').offset + 8, 0), /chunk-based file of size 0$/],
];

const direntBreaks: Break[] = [
  [
    'a nid beyond the end',
    (v) => v.u64(v.dirent('/dir/aa'), 1n << 40n),
    /dirent at offset \d+: nid 1099511627776 is beyond/,
  ],
  [
    'a nid that overflows',
    (v) => v.u64(v.dirent('/dir/aa'), (1n << 59n) + 36n),
    /dirent .*nid 576460752303423524 is beyond/,
  ],
  ['a first name offset of 0', (v) => v.u16(v.dirent('/dir/.') + 8, 0), /name offset 0$/],
  ['a crooked first name offset', (v) => v.u16(v.dirent('/dir/.') + 8, 61), /name offset 61$/],
  ['a first name offset beyond the block', (v) => v.u16(v.dirent('/dir/.') + 8, 1200), /name offset 1200$/],
  ['a later name offset beyond the block', (v) => v.u16(v.dirent('/dir/bb') + 8, 4000), /name offset 4000$/],
  ['name offsets that decrease', (v) => v.u16(v.dirent('/dir/bb') + 8, 60), /name of -?\d+ bytes$/],
  ['an empty name', (v) => v.u16(v.dirent('/dir/bb') + 8, 63), /name of 0 bytes$/],
  ['a slash in a name', (v) => v.u8(nameAt(v, '/dir/aa'), 0x2f), /name "\/a" has a slash or NUL$/],
  ['NUL in a name', (v) => v.u8(nameAt(v, '/dir/aa') + 1, 0), /name "a\\x00" has a slash or NUL$/],
  ['names out of order', (v) => v.u8(nameAt(v, '/dir/aa'), 0x7a), /name "bb" is not after "za"$/],
  ['a name twice', (v) => v.u16(nameAt(v, '/dir/bb'), 0x6161), /name "aa" is not after "aa"$/],
  ['a wrong file type', (v) => v.u8(v.dirent('/dir/aa') + 10, 2), /entry "aa" has file type 2, not 1$/],
  [
    'a directory as its own child',
    (v) => retarget(v, '/dir/sub', '/dir'),
    /entry "sub" is another name of a directory$/,
  ],
  ['the root as a child', (v) => retarget(v, '/dir/sub', '/'), /entry "sub" is another name of a directory$/],
  [
    'a directory with two parents',
    (v) => retarget(v, '/dir2', '/dir/sub'),
    /entry "dir2" is another name of a directory$/,
  ],
  ['a "." that is another', (v) => retarget(v, '/dir/.', '/dir2'), /"\." and "\.\." are missing or lead elsewhere$/],
  ['a ".." that is another', (v) => retarget(v, '/dir/..', '/dir2'), /"\." and "\.\." are missing or lead elsewhere$/],
  ['no entries', (v) => v.u32(v.inode('/dir').offset + 8, 0), /"\." and "\.\." are missing or lead elsewhere$/],
];

const xattrBreaks: Break[] = [
  ['more shared references than room', (v) => v.u8(v.inode('/dir').xattrOffset + 4, 200), /shared count 200 runs past/],
  [
    'a shared reference beyond the end',
    (v) => v.u32(v.inode('/').xattrOffset + 12, 0xffffffff),
    /shared xattr reference .*beyond the end$/,
  ],
  [
    'an entry that runs past the area',
    (v) => v.u16(v.inode('/dir').xattrOffset + 14, 9999),
    /xattr entry .*3 \+ 9999 bytes run past/,
  ],
  [
    'a name index that does not exist',
    (v) => v.u8(v.inode('/dir').xattrOffset + 13, 7),
    /xattr entry .*: name index 7$/,
  ],
  ['a long prefix', (v) => v.u8(v.inode('/dir').xattrOffset + 13, 0x81), /xattr entry .*: name index 129$/],
  ['NUL in a name', (v) => v.u8(v.inode('/dir').xattrOffset + 16, 0), /name "user\.\\x00ne"$/],
  [
    'a name twice',
    (v) =>
      v.bytes.copyWithin(
        v.inode('/dir').xattrOffset + 20,
        v.inode('/dir').xattrOffset + 12,
        v.inode('/dir').xattrOffset + 20,
      ),
    /xattr header .*: a name appears twice$/,
  ],
  [
    'a metacopy of another version',
    (v) => v.u8(valueAt(v, '/big', 'overlay.metacopy'), 1),
    /trusted\.overlay\.metacopy 01240001/,
  ],
  [
    'a metacopy with flags',
    (v) => v.u8(valueAt(v, '/big', 'overlay.metacopy') + 2, 1),
    /trusted\.overlay\.metacopy 00240101/,
  ],
  [
    'a metacopy of an unknown algorithm',
    (v) => v.u8(valueAt(v, '/big', 'overlay.metacopy') + 3, 3),
    /trusted\.overlay\.metacopy 00240003/,
  ],
  [
    'a metacopy of the wrong size',
    (v) => v.u8(valueAt(v, '/big', 'overlay.metacopy') + 3, 2),
    /trusted\.overlay\.metacopy 00240002/,
  ],
];

/** Where the name of an entry stands. */
function nameAt(v: Victim, path: string): number {
  const at = v.dirent(path);
  const slash = path.lastIndexOf('/');
  return v.dirent(`${path.slice(0, slash)}/.`) + v.view.getUint16(at + 8, true);
}

function retarget(v: Victim, path: string, target: string): void {
  v.u64(v.dirent(path), BigInt(v.inode(target).nid));
}

/** Where the value of an xattr written with the inode begins. */
function valueAt(v: Victim, path: string, suffix: string): number {
  const { xattrOffset, tailOffset } = v.inode(path);
  const at = Buffer.from(v.bytes.subarray(xattrOffset, tailOffset)).indexOf(suffix);
  return xattrOffset + at + suffix.length;
}

describe('an image is refused, naming offset and field, for', () => {
  test('nothing when it is whole', () => {
    expect(refusal(() => readComposefsImage(victim().bytes))).toBe('accepted');
  });

  test.each([...headerBreaks, ...inodeBreaks, ...direntBreaks, ...xattrBreaks])('%s', (_, edit, expected) => {
    const broken = victim();
    edit(broken);
    expect(refusal(() => readComposefsImage(broken.bytes))).toMatch(expected);
  });

  test('a name above 255 bytes', () => {
    const long = new Victim(
      tree({ '/d': dir(owner), [`/d/${'n'.repeat(255)}`]: file('', owner), '/d/oo': file('', owner) }),
    );
    const at = long.dirent('/d/oo');
    long.u16(at + 8, long.view.getUint16(at + 8, true) + 1);
    expect(refusal(() => readComposefsImage(long.bytes))).toMatch(/dirent at offset \d+: name of 256 bytes$/);
  });

  test('every end that comes too early', () => {
    const { bytes } = victim();
    for (const length of [0, 1, 31, 32, 1023, 1024, 1151, 1152, 4096, bytes.length - 4096, bytes.length - 1]) {
      expect({ length, refusal: refusal(() => readComposefsImage(bytes.slice(0, length))) }).toEqual({
        length,
        refusal: expect.stringMatching(/^format-invalid: Cannot read /) as string,
      });
    }
  });
});

test('directories that share one block cannot make reading take longer than the image is large', () => {
  const entries = Object.fromEntries(
    Array.from({ length: 3000 }, (_, i) => [`/d${i}`, dir({ ...late, mtime: { sec: 5n, nsec: 0 } })]),
  );
  const bomb = new Victim(tree({ '/': dir(owner), '/a': dir(owner), ...entries }));
  const { data, size } = bomb.inode('/');
  const image = new ErofsImage(bomb.bytes);
  for (const { nid, name } of image.entries(image.inode(image.rootNid))) {
    if (!/^d\d/.test(name)) continue;
    const at = image.offsetOf(nid);
    bomb.u16(at, 0);
    bomb.u32(at + 8, size - (size % L.BLOCK_SIZE));
    bomb.u32(at + 16, data);
  }
  const started = performance.now();
  expect(refusal(() => imageObjects(bomb.bytes))).toMatch(/inodes overlap: they claim more than the image has$/);
  expect(performance.now() - started).toBeLessThan(2000);
});

test('random damage gives typed errors only, whoever reads', () => {
  const damage = fc.array(
    fc.record({
      place: fc.double({ min: 0, max: 1, noNaN: true }),
      byte: fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 0xff)),
    }),
    { minLength: 1, maxLength: 12 },
  );
  fc.assert(
    fc.property(treeArbitrary({ maxEntries: 12 }), damage, fc.boolean(), (root, changes, early) => {
      const { bytes } = writeComposefsImage(root, { algorithm: 'sha256' });
      for (const { place, byte } of changes) {
        // The stubs fill most of a small image; damage at its two ends finds more.
        const at = early ? 1024 + place * 400 : bytes.length * (1 - place * place * 0.5);
        bytes[Math.min(Math.floor(at), bytes.length - 1)] = byte;
      }
      for (const read of [readComposefsImage, imageObjects, (image: Uint8Array) => [...inspectImage(image)]]) {
        expect(refusal(() => read(bytes))).toMatch(/^(accepted$|format-invalid: |image-unsupported: )/);
      }
    }),
    { numRuns: 400 },
  );
});

test('trees thousands deep are written, read and listed', () => {
  const root = dir(owner);
  let deepest = root;
  for (let depth = 0; depth < 4000; depth++) {
    const child = dir(owner);
    deepest.entries.set('d' as never, child);
    deepest = child;
  }
  const { bytes } = writeComposefsImage(root, { algorithm: 'sha256' });
  const again = writeComposefsImage(readComposefsImage(bytes), { algorithm: 'sha256' });
  expect(Buffer.from(again.bytes.buffer).equals(bytes)).toBe(true);
  expect(imageObjects(bytes)).toEqual([]);
});
