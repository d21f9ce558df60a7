import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { TarEntryType } from '../../../src/format/tar/entry.ts';
import { TAR_END, tarHeaders, tarPadding, type WrittenEntry } from '../../../src/format/tar/writer.ts';
import type { RawName } from '../../../src/tree/name.ts';
import { decodeDevice, encodeDevice } from '../../../src/tree/node.ts';
import { collectTar } from '../../helpers/tar-collect.ts';

const bytes = (minLength: number, maxLength: number): fc.Arbitrary<RawName> =>
  fc
    .uint8Array({ minLength, maxLength, min: 1 })
    .map((array) => Buffer.from(array).toString('latin1').replaceAll('/', '_') as RawName);
/** Around every limit of a field. */
const id = fc.oneof(fc.nat(10), fc.constantFrom(0o7777777, 0o10000000, 2 ** 32 - 2));
const mtime = fc.record({
  sec: fc.oneof(
    fc.bigInt({ min: -3n, max: 3n }),
    fc.constantFrom(8n ** 11n - 1n, 8n ** 11n, 2n ** 62n, -(2n ** 62n)),
    fc.bigInt({ min: 0n, max: 2n ** 33n }),
  ),
  nsec: fc.oneof(fc.constant(0), fc.nat(999_999_999), fc.constantFrom(1, 999_999_999, 500_000_000)),
});
const xattrs = fc
  .array(fc.tuple(bytes(1, 60), fc.uint8Array({ maxLength: 300 })), { maxLength: 3 })
  .map((list) => new Map(list.map(([name, value]) => [name.replaceAll('=', '-') as RawName, value])));

const entry: fc.Arbitrary<WrittenEntry & { content: Buffer }> = fc
  .record({
    type: fc.constantFrom<TarEntryType>('file', 'hardlink', 'symlink', 'char', 'block', 'directory', 'fifo'),
    name: fc.oneof(bytes(1, 20), bytes(95, 105), bytes(250, 255)),
    linkname: fc.oneof(bytes(1, 20), bytes(95, 105), bytes(1000, 1100)),
    mode: fc.nat(0o7777),
    uid: id,
    gid: id,
    mtime,
    content: fc.oneof(fc.constantFrom(0, 1, 511, 512, 513), fc.nat(3000)).map((size) => Buffer.alloc(size, 'x')),
    devMajor: fc.nat(0xfff),
    devMinor: fc.nat(0xfffff),
    xattrs,
  })
  .map((all) => ({
    ...all,
    name: (all.type === 'directory' ? `${all.name}/` : all.name) as RawName,
    linkname: all.type === 'hardlink' || all.type === 'symlink' ? all.linkname : ('' as RawName),
    content: all.type === 'file' ? all.content : Buffer.alloc(0),
    size: all.type === 'file' ? all.content.length : 0,
    devMajor: all.type === 'char' || all.type === 'block' ? all.devMajor : 0,
    devMinor: all.type === 'char' || all.type === 'block' ? all.devMinor : 0,
  }));

describe('the tar writer', () => {
  test('writes what the reader reads back', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 5 }), (entries) => {
        const pieces = entries.flatMap((one) => [tarHeaders(one), one.content, tarPadding(one.size)]);
        const read = collectTar(Buffer.concat([...pieces, TAR_END]));
        const expected = entries.map(({ mtime: time, xattrs: map, content, ...rest }) => ({
          ...rest,
          holeBytes: 0,
          mtime: time.nsec === 0 ? `${time.sec}` : `${time.sec}.${String(time.nsec).padStart(9, '0')}`,
          xattrs: Object.fromEntries([...map].map(([name, value]) => [name, Buffer.from(value).toString('latin1')])),
          content: content.toString('latin1'),
        }));
        expect(read).toEqual({ entries: expected, trailingData: false });
      }),
    );
  });

  test('states sizes that a header cannot hold, and refuses an xattr that a record cannot name', () => {
    const plain: WrittenEntry = {
      type: 'file',
      name: 'a' as RawName,
      linkname: '' as RawName,
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtime: { sec: 0n, nsec: 0 },
      size: 8 ** 11,
      devMajor: 0,
      devMinor: 0,
      xattrs: new Map(),
    };
    expect(Buffer.from(tarHeaders(plain)).toString('latin1')).toContain('19 size=8589934592\n');
    const xattr = new Map([['user.a=b' as RawName, Buffer.from('c')]]);
    expect(() => tarHeaders({ ...plain, xattrs: xattr })).toThrow(/cannot hold the xattr "user.a=b"/);
  });
});

test('a device number is taken apart as it was put together', () => {
  fc.assert(
    fc.property(fc.nat(0xfff), fc.nat(0xfffff), (major, minor) => {
      expect(decodeDevice(encodeDevice(major, minor))).toEqual({ major, minor });
    }),
  );
});
