import { expect, test } from 'vitest';
import { resolve } from '../../src/tree/lookup.ts';
import { rawFromText } from '../../src/tree/name.ts';
import { dir, file, symlink, tree } from '../helpers/tree-builder.ts';

const found = file('found');
const root = tree({
  '/usr/share/ü': found,
  '/usr/lib': dir(),
  '/lib': symlink('usr/lib'),
  '/usr/lib/absolute': symlink('/usr/share/ü'),
  '/usr/lib/relative': symlink('.././share/ü'),
  '/usr/lib/above': symlink('../../../../lib/absolute'),
  '/usr/lib/twice': symlink('/lib/relative'),
  '/usr/lib/gone': symlink('nowhere'),
  '/usr/lib/loop': symlink('loop'),
});

test.each([
  ['/usr/share/ü', found],
  ['lib/absolute', found],
  ['lib/relative', found],
  ['lib/above', found],
  ['//lib//twice', found],
  ['', root],
  ['lib/gone', undefined],
  ['lib/loop', undefined],
  ['usr/share/ü/below', undefined],
])('resolve follows "%s" as a process in the tree would', (path, expected) => {
  expect(resolve(root, rawFromText(path))).toBe(expected);
});
