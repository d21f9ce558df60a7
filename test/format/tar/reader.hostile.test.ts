/** Archives that are refused, each with the entry and the field: two readers could take them for different trees. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../../src/errors.ts';
import { parsePaxTime } from '../../../src/format/tar/pax.ts';
import {
  base256,
  gnuLong,
  paxBlock,
  paxHeader,
  tar,
  tarDir,
  tarEntry,
  tarFile,
  tarHardlink,
  tarSymlink,
} from '../../helpers/tar-builder.ts';
import { collectTar } from '../../helpers/tar-collect.ts';

const file = tarFile('a');
const x = (records: Parameters<typeof paxHeader>[0]): Buffer => tar([paxHeader(records), file]);
const block = (content: string): Buffer => tar([paxBlock(content), file]);

const refused: readonly (readonly [title: string, archive: Buffer, message: RegExp])[] = [
  ['a wrong checksum', tar([file, tarFile('b', '', { badChecksum: true })]), /^Entry 2 at offset 512: field "checksum"/],
  ['a header of text', Buffer.from('hello world '.repeat(50)), /^Entry 1 at offset 0: field "checksum" holds/],
  ['a size that is no number', tar([tarFile('a', '', { raw: { size: '0000000008\0' } })]), /field "size" holds "0000000008/],
  ['a size with a sign', tar([tarFile('a', '', { raw: { size: '-1' } })]), /field "size"/],
  ['a number behind a space', tar([tarFile('a', '', { raw: { size: '1 2' } })]), /field "size"/],
  ['a number behind a NUL', tar([tarFile('a', '', { raw: { uid: '\0' + '17' } })]), /field "uid"/],
  ['a number behind spaces and a NUL', tar([tarFile('a', '', { raw: { uid: '  \0' + '17' } })]), /field "uid"/],
  ['a size below zero', tar([tarFile('a', '', { raw: { size: base256(-1n, 12) } })]), /field "size" holds -1, which is out of range/],
  ['a size over 2^53', tar([tarFile('a', '', { raw: { size: base256(2n ** 53n, 12) } })]), /field "size" holds 9007199254740992/],
  ['a size over 64 GiB', tar([tarFile('a', '', { raw: { size: base256(2n ** 36n + 1n, 12) } })]), /file has 68719476737 bytes/],
  ['a number over 2^63', tar([tarFile('a', '', { raw: { mtime: base256(2n ** 63n, 12) } })]), /field "mtime".*beyond 64 bits/],
  ['base-256 of another first byte', tar([tarFile('a', '', { raw: { mtime: '\x81' } })]), /field "mtime"/],
  ['a uid of -1', tar([tarFile('a', '', { raw: { uid: base256(2n ** 32n - 1n, 8) } })]), /field "uid" is 4294967295/],
  ['a uid that 32 bits cut to 0', x({ uid: '4294967296' }), /field "uid" is 4294967296/],
  ['a gid below zero', tar([tarFile('a', '', { raw: { gid: base256(-1n, 8) } })]), /field "gid"/],
  ['a device beyond 12 bits', tar([tarEntry('c', { type: '3', devmajor: 0x1000 })]), /field "devmajor" is 4096/],
  ['a device beyond 20 bits', tar([tarEntry('c', { type: '4', devminor: 0x100000 })]), /field "devminor" is 1048576/],
  ['a directory with a size', tar([tarDir('d', { size: 512, content: 'x'.repeat(512) })]), /field "size" of a directory is 512/],
  ['a symlink with a size', tar([tarSymlink('s', 't', { size: 1 })]), /field "size" of a symlink/],
  ['a hard link with a size', tar([tarHardlink('h', 'a', { content: 'x' })]), /field "size" of a hardlink/],
  ['a PAX size for a directory', tar([paxHeader({ size: '512' }), tarDir('d')]), /field "size" of a directory/],
  ...['A', 'D', 'M', 'N', 'V', 'X', '8', '\xff'].map((type) => [`the type ${JSON.stringify(type)}`, tar([tarEntry('a', { type })]), /^Entry 1 at offset 0: entry type/] as const),
  ['a global header that changes entries', tar([paxHeader({ comment: 'c', mtime: '1' }, 'g'), file]), /global PAX header/],
  ['two PAX headers', tar([paxHeader({ path: 'b' }), paxHeader({ path: 'c' }), file]), /type "x" stands where/],
  ['two long names', tar([gnuLong('L', 'b'), gnuLong('L', 'c'), file]), /type "L" stands where/],
  ['two long links', tar([gnuLong('K', 'b'), gnuLong('K', 'c'), tarSymlink('a', 't')]), /type "K" stands where/],
  ['a global header between a PAX header and its entry', tar([paxHeader({ path: 'b' }), paxHeader({ comment: '' }, 'g'), file]), /type "g" stands where/],
  ['a name by PAX and by GNU', tar([paxHeader({ path: 'b' }), gnuLong('L', 'c'), file]), /name is given twice/],
  ['a name by a sparse map and by GNU', tar([gnuLong('L', 'c'), paxHeader({ 'GNU.sparse.size': '0', 'GNU.sparse.map': '', 'GNU.sparse.name': 'b' }), file]), /name is given twice/],
  ['a link by PAX and by GNU', tar([gnuLong('K', 'c'), paxHeader({ linkpath: 'b' }), tarSymlink('a', 't')]), /link target is given twice/],
  ['a PAX header before the end marker', tar([file, paxHeader({ path: 'b' })]), /ends behind an extension header/],
  ['a PAX header before the end of the stream', tar([file, paxHeader({ path: 'b' })], 0), /ends behind an extension header/],
  ['a long name before the end marker', tar([gnuLong('L', 'b')]), /ends behind an extension header/],
  ['seventeen extension headers', tar([...Array.from({ length: 17 }, () => paxHeader({ comment: 'c' }, 'g')), file]), /more than 16/],
  ['a long name with a NUL inside', tar([gnuLong('L', 'usr\0/evil'), file]), /long name holds a NUL/],
  ['a long name of 4097 bytes', tar([gnuLong('L', 'n'.repeat(4096)), file]), /has 4097 bytes, at most 4096/],
  ['a PAX header of over 1 MiB', tar([paxBlock('x'.repeat(2 ** 20 + 1)), file]), /has 1048577 bytes, at most 1048576/],
  ['a PAX header that claims 8 GiB', tar([tarEntry('x', { type: 'x', size: 2 ** 33 - 1 })]), /at most 1048576/],
  ['a PAX record of length 0', block('0 a=b\n'), /record at byte 0 has the impossible length 0/],
  ['a PAX record with a sign', block('+6 a=b\n'), /record at byte 0 has no length/],
  ['a PAX record in hex', block('0x6 a=b\n'), /has no length/],
  ['a PAX record with many zeros', block('000000006 a=b\n'), /has no length/],
  ['a PAX record past its header', block('99 a=b\n'), /impossible length 99/],
  ['a PAX record that is too short', block('3 a=b\n'), /impossible length 3/],
  ['a PAX record without line end', block('7 a=bc7 a=bc'), /no line end/],
  ['a PAX record without "="', block('6 abc\n'), /no "="/],
  ['a PAX record whose "=" is in the next', block('6 abc\n6 a=b\n'), /no "="/],
  ['a PAX record without key', block('6 =bc\n'), /invalid key/],
  ['a PAX record with NUL in its key', block('7 a\0=c\n'), /invalid key/],
  ['NULs behind PAX records', block('6 a=b\n\0\0'), /record at byte 6 has no length/],
  ['a PAX path with NUL', x({ path: 'a\0b' }), /PAX record "path" holds a NUL/],
  ['a PAX linkpath with NUL', x({ linkpath: 'a\0b' }), /PAX record "linkpath" holds a NUL/],
  ['a PAX size with a sign', x({ size: '-1' }), /PAX record "size" holds "-1"/],
  ['a PAX size in octal base', x({ size: '0x10' }), /PAX record "size"/],
  ['a PAX size over 2^53', x({ size: '9007199254740993' }), /PAX record "size" holds 9007199254740993, which is out of range/],
  ['a PAX mtime of words', x({ mtime: 'now' }), /PAX record "mtime" holds "now"/],
  ['a PAX mtime over 2^63', x({ mtime: '9223372036854775808' }), /beyond 64 bits/],
  ['a plain PAX value over 64 KiB', x({ comment: 'c'.repeat(65_537) }), /has a value of 65537 bytes/],
  ['an xattr value over 65535 bytes', x({ 'SCHILY.xattr.user.a': 'v'.repeat(65_536) }), /xattr "user\.a" has 65536 bytes/],
  ['an xattr name over 255 bytes', x({ [`SCHILY.xattr.user.${'n'.repeat(251)}`]: 'v' }), /name of 256 bytes/],
  ['an xattr without name', x({ 'SCHILY.xattr.': 'v' }), /name of 0 bytes/],
  ['256 xattrs', x(Array.from({ length: 256 }, (_, i) => [`SCHILY.xattr.user.${i}`, 'v'] as const)), /more than 255 xattrs/],
  ['an entry behind one zero block', Buffer.concat([tar([file], 1), tar([file])]), /goes on behind a zero block/],
  ['an end inside a header', tar([file, tarFile('b')]).subarray(0, 700), /^Entry 2 at offset 512: archive ends inside a header/],
  ['an end inside content', tar([tarFile('a\x1b[31m', 'x'.repeat(900))]).subarray(0, 1000), /^Entry 1 "a\\x1b\[31m" at offset 0: archive ends inside the content/],
  ['an end inside a PAX header', x({ path: 'b' }).subarray(0, 515), /ends inside the content/],
  ['content that a reader of the header alone would take for entries', tar([paxHeader({ size: '99999' }), tarFile('a', tarFile('evil'), { size: 0 })]), /ends inside the content/],
]; // prettier-ignore

describe('hostile tar', () => {
  test.each(refused)('refuses %s', (_title, archive, message) => {
    expect(() => collectTar(archive)).toThrow(message);
    expect(() => collectTar(archive, 7)).toThrow(message);
  });

  test('says invalid or unsupported, never anything else, to any damage', () => {
    const archive = tar([
      paxHeader({ path: 'some/name', mtime: '1.5', 'SCHILY.xattr.user.a': 'b' }),
      tarFile('a', 'content'),
      gnuLong('L', 'long'),
      tarFile('b', 'x'.repeat(600), { format: 'gnu' }),
      paxHeader({ 'GNU.sparse.size': '10', 'GNU.sparse.map': '0,1,5,2', 'GNU.sparse.name': 'f' }),
      tarFile('c', 'xyz'),
    ]);
    const flip = fc.record({ at: fc.nat(archive.length - 1), byte: fc.nat(255) });
    fc.assert(
      fc.property(
        fc.array(flip, { minLength: 1, maxLength: 3 }),
        fc.nat(archive.length),
        fc.boolean(),
        (flips, cut, fix) => {
          const damaged = Buffer.from(archive.subarray(0, archive.length - (cut % 700)));
          for (const { at, byte } of flips) if (at < damaged.length) damaged[at] = byte;
          if (fix) fixChecksums(damaged);
          try {
            collectTar(damaged);
          } catch (error) {
            expect(error).toBeInstanceOf(HostctlError);
            expect(['image-invalid', 'image-unsupported']).toContain((error as HostctlError).code);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('an archive of 16 MiB of nothing but extension data holds no more than one header', () => {
    const archive = tar([...Array.from({ length: 16 }, () => paxBlock('9 c=1234\n'.repeat(116_000), 'g')), file]);
    expect(() => collectTar(archive)).toThrow(/global PAX header/);
  });
});

/** Makes the checksum of every block that looks like a header right, so that damage gets past it. */
function fixChecksums(archive: Buffer): void {
  for (let at = 0; at + 512 <= archive.length; at += 512) {
    const block = archive.subarray(at, at + 512);
    if (block.toString('latin1', 257, 262) !== 'ustar') continue;
    block.fill(' ', 148, 156);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  }
}

describe('PAX times', () => {
  test.each([
    ['0', 0n, 0],
    ['-0', 0n, 0],
    ['+5', 5n, 0],
    ['1.', 1n, 0],
    ['1.5', 1n, 500_000_000],
    ['1.999999999999', 1n, 999_999_999],
    ['1.0000000001', 1n, 0],
    ['-1', -1n, 0],
    ['-1.5', -2n, 500_000_000],
    ['-0.000000001', -1n, 999_999_999],
    ['-0.0000000001', -1n, 999_999_999],
    ['-1.9999999999', -2n, 0],
    ['9223372036854775807', 2n ** 63n - 1n, 0],
    ['-9223372036854775808', -(2n ** 63n), 0],
  ])('"%s" is cut towards the past', (text, sec, nsec) => {
    expect(parsePaxTime(text)).toEqual({ sec, nsec });
  });

  test.each(['', '.5', '1e9', '1,5', ' 1', '0x1', '--1', '1.5.5', '-9223372036854775808.5'])(
    '"%s" is refused',
    (text) => {
      expect(() => parsePaxTime(text)).toThrow(HostctlError);
    },
  );
});
