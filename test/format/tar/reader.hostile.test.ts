/** Archives cut into pieces and damaged anywhere. What is refused, and why, is the table of `image/cases/tar.ts`. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../../src/errors.ts';
import { parsePaxTime } from '../../../src/format/tar/pax.ts';
import { gnuLong, paxBlock, paxHeader, tar, tarFile } from '../../helpers/tar-builder.ts';
import { collectTar } from '../../helpers/tar-collect.ts';
import { sparseCases, tarCases } from '../../image/cases/tar.ts';

const file = tarFile('a');
/** Every archive of the table of images, right or wrong. */
const archives = [...tarCases, ...sparseCases].flatMap(([rule, title, [layer]]) => {
  if (layer === undefined || 'tar' in layer) return [];
  return [[`${rule} ${title}`, Buffer.isBuffer(layer) ? layer : tar(layer)] as const];
});

/** What is read, or how it is refused. */
function outcome(archive: Buffer, pieceBytes?: number): unknown {
  try {
    return collectTar(archive, pieceBytes);
  } catch (error) {
    if (error instanceof HostctlError) return error.message;
    throw error;
  }
}

describe('hostile tar', () => {
  test.each(archives)('is the same in pieces of 7 bytes: %s', (_title, archive) => {
    expect(outcome(archive, 7)).toEqual(outcome(archive));
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
