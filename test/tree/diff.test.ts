import { describe, expect, test } from 'vitest';
import { diffTrees, isSameContent } from '../../src/tree/diff.ts';
import type { DirectoryNode, TreeEntry } from '../../src/tree/node.ts';
import { charDevice, dir, fifo, file, link, symlink, tree } from '../helpers/tree-builder.ts';

type Entries = Readonly<Record<string, TreeEntry>>;

function differences(before: Entries, after: Entries): string[] {
  return [...diffTrees(tree(before), tree(after))].map((each) =>
    [each.kind, each.path, ...(each.kind === 'modified' ? each.aspects : [])].join(' '),
  );
}

describe('two trees differ in', () => {
  test.each<[string, Entries, Entries, string[]]>([
    ['nothing', { '/a/b': file('1') }, { '/a/b': file('1') }, []],
    ['no time', { '/a': file('1') }, { '/a': file('1', { mtime: { sec: 1n, nsec: 2 } }) }, []],
    ['an added directory and all in it', {}, { '/d/e': file() }, ['added /d', 'added /d/e']],
    ['a removed directory and all in it', { '/d/e': fifo() }, {}, ['removed /d', 'removed /d/e']],
    ['content', { '/a': file('1') }, { '/a': file('2') }, ['modified /a content']],
    ['large content', { '/a': file('x'.repeat(99)) }, { '/a': file('y'.repeat(99)) }, ['modified /a content']],
    ['a target', { '/a': symlink('1') }, { '/a': symlink('2') }, ['modified /a target']],
    ['a device', { '/a': charDevice(1) }, { '/a': charDevice(2) }, ['modified /a device']],
    [
      'mode, owner and xattrs',
      { '/d': dir() },
      { '/d': dir({ mode: 0o700, uid: 7, xattrs: { 'user.x': '1' } }) },
      ['modified /d mode owner xattrs'],
    ],
    [
      'the value of an xattr',
      { '/a': file('', { xattrs: { 'user.x': '1' } }) },
      { '/a': file('', { xattrs: { 'user.x': '2' } }) },
      ['modified /a xattrs'],
    ],
    ['a type, and what is below it', { '/a/x': file() }, { '/a': file() }, ['modified /a type', 'removed /a/x']],
    ['the root', { '/': dir() }, { '/': dir({ mode: 0o700 }) }, ['modified / mode']],
    [
      'names in byte order, a directory before what is in it',
      { '/b/z': file() },
      { '/a': file(), '/b/c': file(), '/b-': file() },
      ['added /a', 'added /b/c', 'removed /b/z', 'added /b-'],
    ],
  ])('%s', (_, before, after, expected) => {
    expect(differences(before, after)).toEqual(expected);
  });

  test('hard links only by what they name', () => {
    const shared = file('1');
    expect(differences({ '/a': file('1'), '/b': file('1') }, { '/a': shared, '/b': link(shared) })).toEqual([]);
  });
});

test('content is the same wherever it is kept', () => {
  const { content } = file('x'.repeat(99));
  expect(isSameContent(content, { kind: 'inline', bytes: Buffer.from('x'.repeat(99)) })).toBe(true);
  expect(isSameContent({ kind: 'inline', bytes: Buffer.from('y'.repeat(99)) }, content)).toBe(false);
});

test('a tree of two thousand levels is compared without recursion', () => {
  const deep = (content: string): DirectoryNode => tree({ ['/d'.repeat(2000)]: file(content) });
  expect([...diffTrees(deep('1'), deep('2'))]).toHaveLength(1);
});
