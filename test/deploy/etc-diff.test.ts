import { expect, test } from 'vitest';
import { diffEtc } from '../../src/deploy/etc-diff.ts';
import { dir, fifo, file, symlink, tree } from '../helpers/tree-builder.ts';

test('each difference says what differs, in the order of paths', () => {
  const base = tree({
    '/all': file('1'),
    '/dir/gone': file(),
    '/dir/same': file(),
    '/kind': file(),
    '/link': symlink('a'),
    '/opened/x/y': file(),
    '/removed/x/y': file(),
  });
  const local = tree({
    '/': dir({ mode: 0o700 }),
    '/all': file('2', { mode: 0o600, uid: 5, xattrs: { 'user.a': 'b' } }),
    '/dir/new/deep': file(),
    '/dir/same': file('', { mtime: { sec: 0n, nsec: 0 } }),
    '/fifo': fifo(),
    '/kind': dir(),
    '/kind/child': file(),
    '/link': symlink('b'),
    '/opened': symlink('x'),
  });
  const found = diffEtc(base, local).map((difference) => [
    difference.kind,
    difference.path,
    ...(difference.kind === 'modified' ? difference.aspects : []),
  ]);
  expect(found).toEqual([
    ['modified', '', 'mode'],
    ['modified', 'all', 'content', 'mode', 'owner', 'xattrs'],
    ['removed', 'dir/gone'],
    ['added', 'dir/new'],
    ['added', 'dir/new/deep'],
    ['modified', 'kind', 'type'],
    ['added', 'kind/child'],
    ['modified', 'link', 'target'],
    ['modified', 'opened', 'type'],
    ['removed', 'removed'],
  ]);
});

test('files cannot be compared by digests of two algorithms, or by none', () => {
  const external = (digest?: string): ReturnType<typeof file> => ({
    ...file(),
    content: { kind: 'external', size: 100, ...(digest === undefined ? {} : { digest: digest as never }) },
  });
  const [short, long] = ['a'.repeat(64), 'a'.repeat(128)];
  expect(() => diffEtc(tree({ '/a': external(short) }), tree({ '/a': external(long) }))).toThrow(
    expect.objectContaining({ code: 'internal' }),
  );
  expect(() => diffEtc(tree({ '/a': external() }), tree({ '/a': external(long) }))).toThrow(
    expect.objectContaining({ code: 'image-invalid' }),
  );
});
