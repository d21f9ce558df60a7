/** Archives that are accepted, and what they mean: sections 4 and 5 of the layer rules. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TarReader } from '../../../src/format/tar/reader.ts';
import {
  base256,
  gnuLong,
  paxBlock,
  paxHeader,
  paxRecord,
  tar,
  tarDir,
  tarEntry,
  tarFile,
  tarHardlink,
  tarSymlink,
} from '../../helpers/tar-builder.ts';
import { collectTar, type CollectedEntry } from '../../helpers/tar-collect.ts';

const plain: CollectedEntry = {
  type: 'file', name: '' as never, linkname: '' as never, mode: 0o644, uid: 0, gid: 0, mtime: '0',
  size: 0, holeBytes: 0, devMajor: 0, devMinor: 0, xattrs: {}, content: '',
}; // prettier-ignore

type Expected = Partial<Omit<CollectedEntry, 'name' | 'linkname'>> & { name: string; linkname?: string };

function entry(expected: Expected): CollectedEntry {
  const size = expected.content?.length ?? 0;
  return { ...plain, size, ...expected } as CollectedEntry;
}

const long = `${'d'.repeat(120)}/${'f'.repeat(120)}`;

const accepted: readonly (readonly [title: string, archive: Buffer, entries: readonly Expected[]])[] = [
  ['an empty archive', tar([]), []],
  ['a stream of no bytes', Buffer.alloc(0), []],
  ['a file', tar([tarFile('a', 'hello', { mode: 0o4755, uid: 1, gid: 2, mtime: 3 })]), [{ name: 'a', content: 'hello', mode: 0o4755, uid: 1, gid: 2, mtime: '3' }]],
  ['contents that fill their blocks', tar([tarFile('a', 'x'.repeat(512)), tarFile('b', 'y'.repeat(1024))]), [{ name: 'a', content: 'x'.repeat(512) }, { name: 'b', content: 'y'.repeat(1024) }]],
  ['every type', tar([tarDir('d/'), tarSymlink('s', 'to'), tarHardlink('h', 's'), tarEntry('c', { type: '3', devmajor: 1, devminor: 5 }), tarEntry('b', { type: '4', devmajor: 0xfff, devminor: 0xfffff }), tarEntry('p', { type: '6' }), tarEntry('7', { type: '7', content: 'seven' }), tarEntry('0', { type: '\0', content: 'nul' })]), [
    { name: 'd/', type: 'directory', mode: 0o755 },
    { name: 's', type: 'symlink', linkname: 'to', mode: 0o777 },
    { name: 'h', type: 'hardlink', linkname: 's' },
    { name: 'c', type: 'char', devMajor: 1, devMinor: 5 },
    { name: 'b', type: 'block', devMajor: 0xfff, devMinor: 0xfffff },
    { name: 'p', type: 'fifo' },
    { name: '7', content: 'seven' },
    { name: '0', content: 'nul' },
  ]],
  ['a V7 directory, which is a file with a slash', tar([tarEntry('d/', { type: '\0', format: 'v7' })]), [{ name: 'd/', type: 'directory' }]],
  ['a file of type 0 with a slash', tar([tarFile('f/', 'x')]), [{ name: 'f/', content: 'x' }]],
  ['a prefix in ustar', tar([tarFile('n', '', { prefix: 'p' })]), [{ name: 'p/n' }]],
  ['no prefix in GNU, where times lie there', tar([tarFile('n', '', { prefix: '00000000001', format: 'gnu' })]), [{ name: 'n' }]],
  ['no prefix and no devices in V7', tar([tarEntry('n', { type: '3', prefix: 'p', devmajor: 1, devminor: 1, format: 'v7' })]), [{ name: 'n', type: 'char' }]],
  ['names that fill their field', tar([tarSymlink('n'.repeat(100), 't'.repeat(100), { prefix: 'p'.repeat(155) })]), [{ name: `${'p'.repeat(155)}/${'n'.repeat(100)}`, type: 'symlink', linkname: 't'.repeat(100), mode: 0o777 }]],
  ['bytes that are no UTF-8', tar([tarFile('\xff'), tarFile('\xfe')]), [{ name: '\xff' }, { name: '\xfe' }]],
  ['GNU long names', tar([gnuLong('L', long), gnuLong('K', `${long}2`), tarSymlink('short', 'short', { format: 'gnu' })]), [{ name: long, type: 'symlink', linkname: `${long}2`, mode: 0o777 }]],
  ['a GNU long name without its NUL', tar([gnuLong('L', long, ''), tarFile('short')]), [{ name: long }]],
  ['a long name that holds for one entry only', tar([gnuLong('L', long), tarFile('a'), tarFile('b')]), [{ name: long }, { name: 'b' }]],
  ['a checksum of signed bytes', tar([tarFile('\xff\xfe', '', { signedChecksum: true })]), [{ name: '\xff\xfe' }]],
  ['numbers with leading spaces, and ended by a space', tar([tarFile('a', 'xy', { raw: { size: '         2 \0', mode: '   644 \0', uid: '     7 ', gid: '' } })]), [{ name: 'a', content: 'xy', uid: 7 }]],
  ['numbers that fill their field', tar([tarFile('a', '', { raw: { mtime: '777777777777', mode: '00000644' } })]), [{ name: 'a', mtime: String(0o777777777777) }]],
  ['numbers in base-256', tar([tarFile('a', 'x', { raw: { size: base256(1n, 12), uid: base256(2n ** 32n - 2n, 8), mtime: base256(-1n, 12) } })]), [{ name: 'a', content: 'x', uid: 2 ** 32 - 2, mtime: '-1' }]],
  ['type bits in the mode', tar([tarFile('a', '', { mode: 0o100644 })]), [{ name: 'a' }]],
  ['no end marker', tar([tarFile('a')], 0), [{ name: 'a' }]],
  ['one zero block at the end', tar([tarFile('a')], 1), [{ name: 'a' }]],
  ['an end inside the last padding', tarFile('a', 'x', { unpadded: true }), [{ name: 'a', content: 'x' }]],
  ['a global header with a comment', tar([paxHeader({ comment: 'git' }, 'g'), tarFile('a')]), [{ name: 'a' }]],
  ['a global header at the end', tar([tarFile('a'), paxHeader({ comment: 'git' }, 'g')]), [{ name: 'a' }]],
  ['every PAX key that counts', tar([paxHeader({ path: 'p\xff', linkpath: 'l', uid: '3000000000', gid: '7', mtime: '1.5' }), tarSymlink('a', 'b', { raw: { uid: 'garbage!' } })]), [{ name: 'p\xff', linkname: 'l', uid: 3_000_000_000, gid: 7, mtime: '1.500000000', type: 'symlink', mode: 0o777 }]],
  ['PAX keys that do not count', tar([paxHeader({ atime: '1', ctime: 'x', uname: 'u', gname: 'g', comment: '', charset: 'c', hdrcharset: 'BINARY', 'LIBARCHIVE.xattr.user.a': 'YQ==', 'RHT.security.selinux': 's', 'SCHILY.acl.access': 'u', 'SCHILY.fflags': 'i', 'VENDOR.x': 'y' }), tarFile('a')]), [{ name: 'a' }]],
  ['a PAX key given twice', tar([paxHeader([['path', 'first'], ['path', 'last']]), tarFile('a')]), [{ name: 'last' }]],
  ['a PAX value that is empty, which takes it back', tar([paxHeader([['path', 'first'], ['path', ''], ['uid', '5'], ['uid', '']]), tarFile('a', '', { uid: 9 })]), [{ name: 'a', uid: 9 }]],
  ['xattrs with any bytes', tar([paxHeader({ 'SCHILY.xattr.security.capability': '\x01\0\0\x02=\n\0', 'SCHILY.xattr.user.empty': '', 'SCHILY.xattr.user.a=b': 'cut at the first' }), tarFile('a')]), [{ name: 'a', xattrs: { 'security.capability': '\x01\0\0\x02=\n\0', 'user.empty': '', 'user.a': 'b=cut at the first' } }]],
  ['a PAX size, also for where the next header is', tar([paxHeader({ size: '600' }), tarFile('a', 'z'.repeat(600), { size: 0 }), tarFile('b', 'b')]), [{ name: 'a', content: 'z'.repeat(600) }, { name: 'b', content: 'b' }]],
  ['twenty entries with an extension header each', tar(Array.from({ length: 20 }, (_, i) => [gnuLong('L', `${i}`), tarFile('a')]).flat()), Array.from({ length: 20 }, (_, i) => ({ name: `${i}` }))],
  ['an empty PAX header', tar([paxBlock(''), tarFile('a')]), [{ name: 'a' }]],
  ['a PAX record of 99 bytes, whose length counts itself', tar([paxBlock(Buffer.concat([paxRecord('path', 'p'.repeat(90)), paxRecord('comment', '')])), tarFile('a')]), [{ name: 'p'.repeat(90) }]],
]; // prettier-ignore

describe('reading tar', () => {
  test.each(accepted)('accepts %s', (_title, archive, entries) => {
    expect(collectTar(archive)).toEqual({ entries: entries.map(entry), trailingData: false });
  });

  test.each(accepted)('reads %s the same in single bytes', (_title, archive) => {
    expect(collectTar(archive, 1)).toEqual(collectTar(archive));
  });

  test('everything behind the end marker stays invisible, but is noticed', () => {
    const archive = Buffer.concat([tar([tarFile('a')]), tar([tarFile('hidden', 'x')])]);
    expect(collectTar(archive)).toEqual({ entries: [entry({ name: 'a' })], trailingData: true });
  });

  test('zeros behind the end marker are nothing', () => {
    expect(collectTar(tar([tarFile('a')], 20))).toEqual({ entries: [entry({ name: 'a' })], trailingData: false });
  });

  test('file data is passed on without a copy', () => {
    const archive = tar([tarFile('a', 'x'.repeat(5000))]);
    let backing: unknown;
    new TarReaderProbe((chunk) => (backing = chunk.buffer)).push(archive);
    expect(backing).toBe(archive.buffer);
  });

  test('any contents come out as they went in, whatever the pieces', () => {
    const file = fc.record({
      name: fc.string({ minLength: 1, maxLength: 90, unit: fc.constantFrom('a', 'b', '\xe4', '.') }),
      content: fc.string({ maxLength: 2000, unit: fc.constantFrom('x', '\0', '\xff') }),
    });
    fc.assert(
      fc.property(fc.array(file, { maxLength: 6 }), fc.integer({ min: 1, max: 1500 }), (files, pieceBytes) => {
        const archive = tar(files.map(({ name, content }) => tarFile(name, content)));
        expect(collectTar(archive, pieceBytes).entries).toEqual(files.map(entry));
      }),
      { numRuns: 60 },
    );
  });
});

class TarReaderProbe extends TarReader {
  constructor(data: (chunk: Uint8Array) => void) {
    super({ entry: () => undefined, data, entryEnd: () => undefined });
  }
}
