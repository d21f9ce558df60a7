/** Layers onto layers: section 3 of the layer rules, each row of its tables. */

import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { TarReader } from '../../src/format/tar/reader.ts';
import { Flattener } from '../../src/image/flatten.ts';
import { LayerIngest, measuringSink } from '../../src/image/ingest.ts';
import { NO_TOTALS } from '../../src/image/layer-entry.ts';
import type { DirectoryNode } from '../../src/tree/node.ts';
import { lookup } from '../../src/tree/lookup.ts';
import { paxHeader, tar, tarDir, tarEntry, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';
import { listing } from '../helpers/tree-listing.ts';

type Layer = readonly Buffer[];

function flatten(layers: readonly Layer[]): { tree: DirectoryNode; warnings: string[] } {
  const warnings: string[] = [];
  const flattener = new Flattener((message) => warnings.push(message));
  for (const [i, layer] of layers.entries()) {
    const ingest = new LayerIngest(measuringSink('sha256'), 'allowlist-only', NO_TOTALS);
    const reader = new TarReader(ingest);
    reader.push(tar(layer));
    reader.end();
    flattener.applyLayer(ingest.entries, `Layer ${i + 1}`);
  }
  return { tree: flattener.finish(), warnings };
}

const f = (name: string, content = name): Buffer => tarFile(name, content);
const d = (name: string): Buffer => tarDir(name);
const wh = (name: string): Buffer => tarFile(name);
const opaque = (directory: string): Buffer => wh(`${directory}/.wh..wh..opq`);
const s = (name: string, target: string): Buffer => tarSymlink(name, target);
const h = (name: string, target: string): Buffer => tarHardlink(name, target);

type Row = readonly [title: string, layers: readonly Layer[], tree: Record<string, string>];
const base: Layer = [d('d'), f('d/a', '1'), f('d/b', '1'), f('x', '1')];
const baseTree = { d: 'd755', 'd/a': 'f644 1', 'd/b': 'f644 1', x: 'f644 1' };

const whiteouts: readonly Row[] = [
  ['hides a name of lower layers', [base, [wh('d/.wh.a')]], { d: 'd755', 'd/b': 'f644 1', x: 'f644 1' }],
  ['hides a directory with all in it', [base, [wh('.wh.d')]], { x: 'f644 1' }],
  ['spares the same name of its layer, marker first', [base, [wh('.wh.x'), f('x', '2')]], { ...baseTree, x: 'f644 2' }],
  ['spares the same name of its layer, marker last', [base, [f('x', '2'), wh('.wh.x')]], { ...baseTree, x: 'f644 2' }],
  ['spares new entries of a directory, marker first', [base, [wh('.wh.d'), d('d'), f('d/c', '2')]], { d: 'd755', 'd/c': 'f644 2', x: 'f644 1' }],
  ['spares new entries of a directory, marker last', [base, [d('d'), f('d/c', '2'), wh('.wh.d')]], { d: 'd755', 'd/c': 'f644 2', x: 'f644 1' }],
  ['makes a directory forget its metadata when only entries in it come new', [[tarDir('d', { mode: 0o700 }), f('d/a')], [f('d/c', '2'), wh('.wh.d')]], { d: 'd755', 'd/c': 'f644 2' }],
  ['of something absent does nothing', [base, [wh('.wh.nope'), wh('no/such/.wh.x'), wh('x/.wh.y')]], baseTree],
  ['of a directory and in it does nothing more, in either order', [base, [wh('d/.wh.a'), wh('.wh.d')]], { x: 'f644 1' }],
  ['in a directory that is hidden too does not bring it back', [base, [wh('.wh.d'), wh('d/.wh.a')]], { x: 'f644 1' }],
  ['is known by its name, whatever its type and content', [base, [tarDir('.wh.x'), tarSymlink('d/.wh.a', 'b'), tarFile('d/.wh.b', 'content')]], { d: 'd755' }],
  ['takes its own metadata nowhere', [base, [tarFile('d/.wh.a', '', { mode: 0o777, uid: 5 })]], { d: 'd755', 'd/b': 'f644 1', x: 'f644 1' }],
  ['of an upper layer only reaches down', [[f('a', '1')], [wh('.wh.a')], [f('a', '3')]], { a: 'f644 3' }],
  ['opaque hides all that is lower in the directory', [base, [opaque('d'), f('d/c', '2')]], { d: 'd755', 'd/c': 'f644 2', x: 'f644 1' }],
  ['opaque spares siblings that stand before it', [base, [f('d/c', '2'), f('d/a', '2'), opaque('d')]], { d: 'd755', 'd/c': 'f644 2', 'd/a': 'f644 2', x: 'f644 1' }],
  ['opaque keeps the directory itself', [[tarDir('d', { mode: 0o700 }), f('d/a')], [opaque('d')]], { d: 'd700' }],
  ['opaque hides grandchildren below a directory made again', [[f('d/e/a')], [d('d'), d('d/e'), opaque('d')]], { d: 'd755', 'd/e': 'd755' }],
  ['opaque first hides the same', [[f('d/e/a')], [d('d'), opaque('d'), d('d/e')]], { d: 'd755', 'd/e': 'd755' }],
  ['opaque in a directory that is nowhere makes none', [base, [opaque('nowhere/at')]], baseTree],
  ['opaque at the root hides everything lower', [base, [f('new', '2'), wh('.wh..wh..opq')]], { new: 'f644 2' }],
  ['below a symlinked parent follows it inside the tree', [[f('usr/lib/a'), f('usr/lib/b'), s('lib', '/usr/lib')], [wh('lib/.wh.a')]], { usr: 'd755', 'usr/lib': 'd755', 'usr/lib/b': 'f644 usr/lib/b', lib: '-> /usr/lib' }],
  ['in a directory that replaces a symlink does not go through the symlink', [[f('to/a'), s('d', 'to')], [opaque('d'), d('d')]], { to: 'd755', 'to/a': 'f644 to/a', d: 'd755' }],
  ['in a directory that replaces a symlink, named through another one', [[f('usr/to/a'), s('usr/d', 'to'), s('u', 'usr')], [wh('u/d/.wh.a'), d('u/d')]], { u: '-> usr', usr: 'd755', 'usr/to': 'd755', 'usr/to/a': 'f644 usr/to/a', 'usr/d': 'd755' }],
  ['below a symlink that its layer makes follows that one', [[f('old/a'), f('new/a'), s('l', 'old')], [wh('l/.wh.a'), s('l', 'new')]], { old: 'd755', 'old/a': 'f644 old/a', new: 'd755', l: '-> new' }],
  ['below a symlink to nowhere or in a circle does nothing', [[s('a', 'b'), s('b', 'a'), s('c', 'nowhere')], [wh('a/.wh.x'), opaque('c')]], { a: '-> b', b: '-> a', c: '-> nowhere' }],
  ['below what its layer makes a file does nothing', [base, [wh('d/.wh.a'), f('d', '2')]], { d: 'f644 2', x: 'f644 1' }],
  ['of AUFS bookkeeping is never seen', [base, [d('.wh..wh.plnk'), f('.wh..wh.plnk/1.2', 'x'), f('.wh..wh.aufs'), f('d/.wh..wh.orph')]], baseTree],
  ['has nothing to do with a character device 0:0', [base, [tarEntry('x', { type: '3' })]], { ...baseTree, x: 'c 0,0' }],
  ['whose name only looks like one', [[f('a.wh.b'), f('.whx')]], { 'a.wh.b': 'f644 a.wh.b', '.whx': 'f644 .whx' }],
]; // prettier-ignore

const types: readonly Row[] = [
  ['a directory over a directory keeps the children and replaces the metadata', [base, [tarDir('d', { mode: 0o700 })]], { ...baseTree, d: 'd700' }],
  ['a file over a directory takes the children away', [base, [f('d', '2')]], { d: 'f644 2', x: 'f644 1' }],
  ['a symlink over a directory takes the children away', [base, [s('d', 'x')]], { d: '-> x', x: 'f644 1' }],
  ['a directory over a file is empty', [base, [d('x')]], { ...baseTree, x: 'd755' }],
  ['a directory over a symlink to a directory replaces the link', [[f('to/a'), s('l', 'to')], [d('l'), f('l/b', '2')]], { to: 'd755', 'to/a': 'f644 to/a', l: 'd755', 'l/b': 'f644 2' }],
  ['a file over a symlink replaces the link', [[f('to'), s('l', 'to')], [f('l', '2')]], { to: 'f644 to', l: 'f644 2' }],
  ['a directory not mentioned again stays as it was', [[tarDir('d', { mode: 0o711 })], [f('d/new', '2')]], { d: 'd711', 'd/new': 'f644 2' }],
  ['one path in many spellings', [[f('a'), f('./b'), f('/c'), f('.//e///g'), d('./h/./')]], { a: 'f644 a', b: 'f644 ./b', c: 'f644 /c', e: 'd755', 'e/g': 'f644 .//e///g', h: 'd755' }],
  ['missing parents', [[f('a/b/c')]], { a: 'd755', 'a/b': 'd755', 'a/b/c': 'f644 a/b/c' }],
  ['a parent stated behind its entries', [[f('a/b'), tarDir('a', { mode: 0o700 })]], { a: 'd700', 'a/b': 'f644 a/b' }],
  ['the same layer twice', [base, base], baseTree],
  ['root entries in any spelling', [[tarDir('./', { mode: 0o700 }), tarDir('/'), tarDir('.')], base], baseTree],
  ['devices, pipes and sockets of no layer', [[tarEntry('n', { type: '3', devmajor: 1, devminor: 3 }), tarEntry('b', { type: '4', devmajor: 8, devminor: 1 }), tarEntry('p', { type: '6' })]], { n: 'c 1,3', b: 'b 8,1', p: 'fifo' }],
  ['names that mean something to JavaScript', [[f('__proto__/constructor', 'x'), f('10', 'x'), f('2', 'x')], [wh('.wh.toString')]], { ['__proto__']: 'd755', '__proto__/constructor': 'f644 x', 10: 'f644 x', 2: 'f644 x' }],
  ['names that no text can tell apart', [[tarFile('e\xcc\x81', '1'), tarFile('\xc3\xa9', '2'), tarFile('\xff', '3'), tarFile('\xfe', '4')]], { 'e\u0301': 'f644 1', '\u00e9': 'f644 2', '\\xff': 'f644 3', '\\xfe': 'f644 4' }],
  ['files up to 64 bytes inline, larger ones as objects', [[f('a', ''), f('b', 'x'.repeat(64)), f('c', 'x'.repeat(65))]], { a: 'f644 ', b: `f644 ${'x'.repeat(64)}`, c: `f644 <65 ${fsverityDigest('sha256', Buffer.from('x'.repeat(65))).slice(0, 12)}>` }],
]; // prettier-ignore

const parents: readonly Row[] = [
  ['an absolute link', [[d('usr/lib'), s('lib', '/usr/lib')], [f('lib/foo', '2')]], { usr: 'd755', 'usr/lib': 'd755', 'usr/lib/foo': 'f644 2', lib: '-> /usr/lib' }],
  ['a relative link', [[d('usr/lib'), s('usr/lib64', 'lib')], [f('usr/lib64/a/b', '2')]], { usr: 'd755', 'usr/lib': 'd755', 'usr/lib/a': 'd755', 'usr/lib/a/b': 'f644 2', 'usr/lib64': '-> lib' }],
  ['a link with ".." beyond the root', [[d('t'), s('a', '../../../t')], [f('a/x', '2')]], { t: 'd755', 't/x': 'f644 2', a: '-> ../../../t' }],
  ['a link through links', [[d('c'), s('a', './b//'), s('b', '/d/../c/.'), d('d')], [f('a/x', '2')]], { a: '-> ./b//', b: '-> /d/../c/.', c: 'd755', 'c/x': 'f644 2', d: 'd755' }],
  ['".." behind a link, from where the link leads', [[d('p/q'), f('p/y'), s('l', 'p/q'), s('m', 'l/..')], [f('m/x', '2')]], { p: 'd755', 'p/q': 'd755', 'p/x': 'f644 2', 'p/y': 'f644 p/y', l: '-> p/q', m: '-> l/..' }],
  ['a link to the root', [[s('r', '/')], [f('r/x', '2')]], { r: '-> /', x: 'f644 2' }],
  ['a link of the same layer', [[d('b'), s('a', 'b'), f('a/x', '1')]], { a: '-> b', b: 'd755', 'b/x': 'f644 1' }],
  ['a link replaced in between', [[d('b'), d('c'), s('a', 'b'), f('a/x', '1'), s('a', 'c'), f('a/x', '2')]], { a: '-> c', b: 'd755', 'b/x': 'f644 1', c: 'd755', 'c/x': 'f644 2' }],
  ['40 links', [[d('d'), s('0', 'd'), ...Array.from({ length: 39 }, (_, i) => s(`${i + 1}`, `${i}`))], [f('39/x', '2')]], { d: 'd755', 'd/x': 'f644 2', 0: '-> d', ...Object.fromEntries(Array.from({ length: 39 }, (_, i) => [`${i + 1}`, `-> ${i}`])) }],
]; // prettier-ignore

const links: readonly Row[] = [
  ['the inode is at the first name in depth-first order', [[f('z', '1'), h('a/y', 'z'), h('a.b', './z')]], { a: 'd755', 'a/y': 'f644 1 x3', 'a.b': '= a/y', z: '= a/y' }],
  ['to a lower layer', [[f('z', '1')], [h('a', '/z')]], { a: 'f644 1 x2', z: '= a' }],
  ['one name replaced later', [[f('a', '1'), h('b', 'a')], [f('a', '2')]], { a: 'f644 2', b: 'f644 1' }],
  ['to what is replaced later in the layer', [[f('a', '1')], [h('b', 'a'), f('a', '2')]], { a: 'f644 2', b: 'f644 1' }],
  ['to what is whited out later in the layer', [[f('a', '1')], [h('b', 'a'), wh('.wh.a')]], { b: 'f644 1' }],
  ['to what lies in a directory whited out later', [[f('d/e/a', '1'), f('d/c', '1')], [h('b', 'd/e/a'), wh('d/.wh.c'), wh('.wh.d')]], { b: 'f644 1' }],
  ['to what an opaque marker hides later', [[f('d/a', '1')], [h('b', 'd/a'), opaque('d')]], { b: 'f644 1', d: 'd755' }],
  ['to what is hidden later, through a symlinked parent', [[f('d/a', '1'), s('l', 'd')], [h('b', 'l/a'), wh('d/.wh.a')]], { b: 'f644 1', d: 'd755', l: '-> d' }],
  ['to a symlink shares the symlink', [[s('a', 'nowhere'), h('b', 'a')]], { a: '-> nowhere x2', b: '= a' }],
  ['to a device', [[tarEntry('n', { type: '3', devmajor: 1, devminor: 3 }), h('o', 'n')]], { n: 'c 1,3 x2', o: '= n' }],
  ['below a symlinked directory', [[f('usr/a', '1'), s('u', 'usr'), h('b', 'u/a')]], { b: 'f644 1 x2', usr: 'd755', 'usr/a': '= b', u: '-> usr' }],
  ['with metadata of its own, which does not count', [[f('a', '1'), tarHardlink('b', 'a', { mode: 0o777, uid: 7 })]], { a: 'f644 1 x2', b: '= a' }],
  ['into missing directories', [[f('a', '1'), h('x/y/b', 'a')]], { a: 'f644 1 x2', x: 'd755', 'x/y': 'd755', 'x/y/b': '= a' }],
  ['a link over another name of the same inode', [[f('a', '1'), h('b', 'a')], [h('b', 'a')]], { a: 'f644 1 x2', b: '= a' }],
  ['counts only names that are left', [[f('a', '1'), h('b', 'a'), h('c', 'a')], [wh('.wh.a'), wh('.wh.c')]], { b: 'f644 1' }],
]; // prettier-ignore

describe.each([
  ['a whiteout', whiteouts],
  ['types and parents:', types],
  ['a symlinked parent:', parents],
  ['a hard link:', links],
])('%s', (_group, rows) => {
  test.each(rows)('%s', (_title, layers, expected) => {
    expect(listing(flatten(layers).tree)).toEqual(expected);
  });
});

describe('what is refused', () => {
  test.each<readonly [string, readonly Layer[], RegExp]>([
    ['a marker for no name', [[wh('d/.wh.')]], /^Entry 1 "d\/\.wh\." at offset 0: whiteout marker hides "", which is no name/],
    ['a marker for "."', [[wh('.wh..')]], /hides "\."/],
    ['a marker for ".."', [[wh('.wh...')]], /hides "\.\."/],
    ['an entry below a marker', [[f('.wh.d/x')]], /below a whiteout marker/],
    ['an entry below an opaque marker', [[f('d/.wh..wh..opq/x')]], /below a whiteout marker/],
    ['".." in a name', [[f('a/../b')]], /name holds "\.\."/],
    ['".." that stays inside', [[f('a/..')]], /name holds "\.\."/],
    ['an empty name', [[f('')]], /name is empty/],
    ['a component of 256 bytes', [[paxHeader({ path: 'c'.repeat(256) }), f('x')]], /component of 256 bytes/],
    ['a path of 4096 bytes', [[paxHeader({ path: `${'d/'.repeat(2000)}${'x'.repeat(96)}` }), f('x')]], /4096 bytes, at most 4095/],
    ['a root that is a file', [[f('./')]], /root is a file/],
    ['a root that is a symlink', [[s('/', 'usr')]], /root is a symlink/],
    ['a root that is a hard link', [[f('a'), h('.', 'a')]], /root is a hardlink/],
    ['a parent that is a file', [[f('x'), f('x/y')]], /^Layer 1: entry 2 "x\/y": parent "x" leads through something that is no directory/],
    ['a parent that is a device', [[tarEntry('x', { type: '3' })], [f('x/y')]], /^Layer 2: entry 1 .* no directory/],
    ['a dangling parent', [[s('l', 'nowhere'), f('l/x')]], /parent "l" leads through a symlink to nothing/],
    ['a parent whose link leads beyond what is there', [[d('a'), s('l', 'a/b'), f('l/x')]], /symlink to nothing/],
    ['a looping parent', [[s('a', 'b'), s('b', 'a'), f('a/x')]], /more than 40 symlinks/],
    ['41 links', [[d('d'), s('0', 'd'), ...Array.from({ length: 40 }, (_, i) => s(`${i + 1}`, `${i}`))], [f('40/x')]], /more than 40 symlinks/],
    ['a link to nothing', [[h('a', 'b')]], /hard link target "b" does not exist/],
    ['a link to what comes later', [[h('a', 'b'), f('b')]], /"b" does not exist/],
    ['a link to what was whited out before', [[f('b')], [wh('.wh.b'), h('a', 'b')]], /"b" does not exist/],
    ['a link into a directory whited out before', [[f('d/b')], [wh('.wh.d'), h('a', 'd/b')]], /"d\/b" does not exist/],
    ['a link to what was whited out before its directory', [[f('d/b')], [wh('d/.wh.b'), h('a', 'd/b'), wh('.wh.d')]], /"d\/b" does not exist/],
    ['a link to a directory', [[d('d'), h('a', 'd')]], /"d" is a directory/],
    ['a link to a directory hidden later', [[d('d')], [h('a', 'd'), wh('.wh.d')]], /"d" is a directory/],
    ['a link to the root', [[h('a', '/')]], /"" is a directory/],
    ['a link to itself', [[f('a'), h('a', 'a')]], /"a" is the link itself/],
    ['a link to itself by another path', [[f('d/a'), s('l', 'd'), h('l/a', 'd/a')]], /"d\/a" is the link itself/],
    ['a link over the directory its target is in', [[f('d/e/a'), h('d', 'd/e/a')]], /"d\/e\/a" lies in the directory that the link would replace/],
    ['a link over the directory its target was in', [[f('d/a')], [h('d', 'd/a'), wh('d/.wh.a')]], /"d\/a" lies in the directory/],
    ['a link with ".."', [[f('a'), h('b', 'd/../a')]], /hard link target holds "\.\."/],
    ['a link without target', [[h('a', '')]], /hard link target is empty/],
    ['a symlink without target', [[s('a', '')]], /symlink target has 0 bytes/],
    ['a symlink target of 4096 bytes', [[paxHeader({ linkpath: 't'.repeat(4096) }), s('a', 'b')]], /symlink target has 4096 bytes/],
    ['a path that grows too long behind symlinks', [[paxHeader({ path: 'd/'.repeat(2000) }), d('x'), paxHeader({ linkpath: 'd/'.repeat(2000) }), s('l', 'x')], [f(`l/${'e'.repeat(96)}`)]], /longer than 4095 bytes once symlinks are followed/],
  ])('%s', (_title, layers, message) => {
    expect(() => flatten(layers)).toThrow(HostctlError);
    expect(() => flatten(layers)).toThrow(message);
  }); // prettier-ignore
});

describe('metadata', () => {
  test('of a directory is replaced as a whole, with all xattrs', () => {
    const capability = (value: string) => paxHeader({ 'SCHILY.xattr.security.capability': value, mtime: '7.25' });
    const { tree } = flatten([[capability('old'), tarDir('d', { mode: 0o700, uid: 1, gid: 2 })], [tarDir('d', { mode: 0o755, uid: 3, gid: 4, mtime: 9 })], [f('d/x')]]); // prettier-ignore
    const node = lookup(tree, 'd')!;
    expect({ ...node, entries: undefined }).toEqual({ kind: 'directory', mode: 0o755, uid: 3, gid: 4, mtime: { sec: 9n, nsec: 0 }, xattrs: new Map(), entries: undefined }); // prettier-ignore
  });

  test('of a directory nobody states is 0755, root, 1970', () => {
    const { tree } = flatten([[f('d/x')]]);
    const node = lookup(tree, 'd')!;
    expect({ ...node, entries: undefined }).toEqual({ kind: 'directory', mode: 0o755, uid: 0, gid: 0, mtime: { sec: 0n, nsec: 0 }, xattrs: new Map(), entries: undefined }); // prettier-ignore
  });

  test('of a file keeps capabilities and drops every other xattr', () => {
    const xattrs = ['security.capability', 'security.selinux', 'security.ima', 'user.a', 'user.overlay.opaque', 'trusted.overlay.redirect', 'trusted.a', 'system.posix_acl_access']; // prettier-ignore
    const { tree } = flatten([[paxHeader(Object.fromEntries(xattrs.map((name) => [`SCHILY.xattr.${name}`, name]))), tarFile('a', '', { mode: 0o4711, uid: 1, gid: 2, mtime: 3 })]]); // prettier-ignore
    expect(lookup(tree, 'a')).toEqual({ kind: 'file', mode: 0o4711, uid: 1, gid: 2, mtime: { sec: 3n, nsec: 0 }, xattrs: new Map([['security.capability', Uint8Array.from(Buffer.from('security.capability'))]]), content: { kind: 'inline', bytes: new Uint8Array() }, nlink: 1 }); // prettier-ignore
  });
});

test('a path that stands in a layer twice is a warning, and the last one counts', () => {
  const { tree, warnings } = flatten([[f('a', '1'), f('a', '2'), d('d'), d('d'), f('e/x'), d('e')], [f('a', '3')]]);
  expect({ tree: listing(tree), warnings }).toEqual({
    tree: { a: 'f644 3', d: 'd755', e: 'd755', 'e/x': 'f644 e/x' },
    warnings: ['Layer 1: "a" stands in the layer twice', 'Layer 1: "d" stands in the layer twice'],
  });
});

describe('time grows with the layers, not with their product', () => {
  const many = 20_000;
  const range = (make: (i: number) => Buffer): Buffer[] => Array.from({ length: many }, (_, i) => make(i));
  test.each<readonly [string, readonly Layer[]]>([
    ['a marker for each of many files', [range((i) => f(`d/${i}`, '')), range((i) => wh(`d/.wh.${i}`))]],
    ['many opaque markers in one large directory', [range((i) => f(`d/${i}`, '')), range(() => opaque('d'))]],
    ['many links', [[f('a', '')], range((i) => h(`l${i}`, 'a'))]],
    [
      'many links to what is hidden later',
      [range((i) => f(`d/${i}`, '')), [...range((i) => h(`l${i}`, `d/${i}`)), wh('.wh.d')]],
    ],
    ['many entries through a symlink', [[d('d'), s('l', 'd')], range((i) => f(`l/${i}/x`, ''))]],
  ])('%s', (_title, layers) => {
    const start = performance.now();
    flatten(layers);
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  test('trees as deep as paths allow', () => {
    const deep = 'd/'.repeat(2047);
    const { tree } = flatten([[paxHeader({ path: `${deep}f` }), f('x'), paxHeader({ path: `${deep}g`, linkpath: `${deep}f` }), h('x', 'y')]]); // prettier-ignore
    expect(Object.keys(listing(tree)).length).toBe(2049);
  });
});
