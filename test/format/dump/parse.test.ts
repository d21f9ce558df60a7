import { describe, expect, test } from 'vitest';

import { formatDump } from '../../../src/format/dump/format.ts';
import { parseDump } from '../../../src/format/dump/parse.ts';
import { charDevice, dir, file, link, symlink, tree } from '../../helpers/tree-builder.ts';
import { treeFacts } from '../../helpers/tree-facts.ts';

const ROOT = '/ 4096 40755 2 0 0 0 1.0 - - -\n';
const HEX = 'ab'.repeat(32);
const owner = { uid: 0, gid: 0, mtime: { sec: 1n, nsec: 0 } };

function facts(text: string): object {
  return treeFacts(parseDump(Buffer.from(text, 'latin1')));
}

const common = { mode: 0o644, uid: 0, gid: 0, mtime: '1.0', xattrs: {}, nlink: 1 };
const empty = { kind: 'file', ...common, content: '' };
const external = { kind: 'external', size: 9 };

describe('a dump line', () => {
  test.each([
    ['an empty file', '/f 0 100644 1 0 0 0 1.0 - - -', empty],
    ['an empty file with an empty CONTENT field', '/f 0 100644 1 0 0 0 1.0 -  -', empty],
    ['an empty file with a digest that means nothing', `/f 0 100644 1 0 0 0 1.0 aa/bb - ${HEX}`, empty],
    ['inline content', '/f 4 100644 1 0 0 0 1.0 - \\n\\\\\\x00\\x2D -', { ...empty, content: '0a5c002d' }],
    ['content before digest', `/f 2 100644 1 0 0 0 1.0 aa/bb hi ${HEX}`, { ...empty, content: '6869' }],
    [
      'an object',
      `/f 9 100644 1 0 0 0 1.0 ab/cd - ${HEX}`,
      { ...empty, content: { ...external, path: 'ab/cd', digest: HEX } },
    ],
    [
      'a digest in capitals',
      `/f 9 100644 1 0 0 0 1.0 - - ${HEX.toUpperCase()}`,
      { ...empty, content: { ...external, digest: HEX } },
    ],
    ['an object without anything', '/f 9 100644 1 0 0 0 1.0 - - -', { ...empty, content: external }],
    [
      'a target whose size is not looked at',
      '/f 999 120777 1 0 0 0 1.0 t\\x20t - -',
      { kind: 'symlink', ...common, mode: 0o777, target: 't t' },
    ],
    [
      'a target of one dash',
      '/f 1 120777 1 0 0 0 1.0 \\x2d - -',
      { kind: 'symlink', ...common, mode: 0o777, target: '-' },
    ],
    [
      'a device',
      '/f 0 20600 3 1 2 259 1.0 - - -',
      { kind: 'char', ...common, mode: 0o600, nlink: 3, uid: 1, gid: 2, rdev: 259 },
    ],
    ['a device number where there is no device', '/f 0 10644 1 0 0 259 1.0 - - -', { kind: 'fifo', ...common }],
    ['a time before 1970', '/f 0 100644 1 0 0 0 -1.5 - - -', { ...empty, mtime: '-1.5' }],
    [
      'xattrs',
      '/f 0 100644 1 0 0 0 1.0 - - - a\\x3d=b=c user.x= a\\x3d=2 ',
      { ...empty, xattrs: { 'a=': '32', 'user.x': '' } },
    ],
    ['runs of slashes', '//f 0 100644 1 0 0 0 1.0 - - -', empty],
    ['a missing last line feed', '/f 0 100644 1 0 0 0 1.0 - - -', empty],
  ])('gives %s', (_, line, expected) => {
    expect(facts(`${ROOT}${line}`)).toEqual({
      '/': { kind: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: '1.0', xattrs: {} },
      '/f': expected,
    });
  });

  test('may name a link target that comes later or is a link itself', () => {
    const found = facts(
      `${ROOT}/b 0 @100644 9 9 9 9 9.0 //z - -\n/c 0 @100600 1 0 0 0 1.0 /b - -\n/z 0 100644 3 0 0 0 1.0 - - -\n`,
    );
    expect(found).toMatchObject({ '/b': { ...empty, nlink: 3 }, '/c': { link: '/b' }, '/z': { link: '/b' } });
  });
});

describe('the canonical dump', () => {
  test('prints what composefs-info would', () => {
    const shared = file('hello', owner);
    const root = tree({
      '/': dir(owner),
      '/a b': dir({ ...owner, mode: 0o700, xattrs: { 'user.x=y': 'a=b\n' } }),
      '/a b/-': file('-', owner),
      '/a b/first': link(shared),
      '/dev': charDevice(0x103, { ...owner, mode: 0o600 }),
      '/empty': file('', owner),
      '/link': symlink('-', owner),
      '/new\nline': file('\\\t\r é', owner),
      '/second': shared,
    });
    expect([...formatDump(root)].join('').split('\n')).toEqual([
      '/ 4096 40755 3 0 0 0 1.0 - - -',
      '/a\\x20b 57 40700 2 0 0 0 1.0 - - - user.x\\x3dy=a\\x3db\\n',
      '/a\\x20b/- 1 100644 1 0 0 0 1.0 - \\x2d -',
      '/a\\x20b/first 5 100644 2 0 0 0 1.0 - hello -',
      '/dev 0 20600 1 0 0 259 1.0 - - -',
      '/empty 0 100644 1 0 0 0 1.0 - - -',
      '/link 1 120777 1 0 0 0 1.0 \\x2d - -',
      '/new\\nline 6 100644 1 0 0 0 1.0 - \\\\\\t\\r\\x20\\xc3\\xa9 -',
      '/second 5 @100644 2 0 0 0 1.0 /a\\x20b/first hello -',
      '',
    ]);
  });

  test('comes in pieces of whole lines', () => {
    const root = tree(Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`/file-${i}`, file('x', owner)])));
    const pieces = [...formatDump(root)];
    expect(pieces.length).toBeGreaterThan(2);
    expect(pieces.filter((piece) => !piece.endsWith('\n'))).toEqual([]);
    expect(pieces.join('').split('\n')).toHaveLength(5002);
  });
});
