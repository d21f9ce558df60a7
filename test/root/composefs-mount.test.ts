/** The kernel as reader: what is written must be mounted as EROFS and, with overlayfs on top, show the tree again. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';

import { expect, onTestFinished, test } from 'vitest';

import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import { makeDelta } from '../../src/tree/delta.ts';
import { settleLinks } from '../../src/tree/links.ts';
import { copyTree } from '../../src/tree/lookup.ts';
import { readDirectoryTree } from '../../src/image/directory.ts';
import { measuringSink } from '../../src/image/ingest.ts';
import { openExec } from '../../src/sys/exec.ts';
import { openSyscalls } from '../../src/sys/syscalls.ts';
import type { DirectoryNode, FileNode, TreeEntry } from '../../src/tree/node.ts';
import { factDifferences, factsOfDirectory, factsOfTree } from '../helpers/file-facts.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { charDevice, contentOf, dir, fifo, file, link, socket, symlink, tree } from '../helpers/tree-builder.ts';
import { treeFacts, type Fact } from '../helpers/tree-facts.ts';

const sys = openSyscalls(openExec(() => undefined, new AbortController().signal));

function mount(...args: string[]): void {
  execFileSync('mount', args, { stdio: 'pipe' });
  onTestFinished(() => {
    execFileSync('umount', [args.at(-1)!]);
  });
}

function sample(): { readonly root: DirectoryNode; readonly files: FileNode[] } {
  const owner = { uid: 0, gid: 0, mtime: { sec: 1_700_000_000n, nsec: 0 } };
  const late = { uid: 70_000, gid: 80_000, mtime: { sec: 5n, nsec: 123_456_789 } };
  const label = { 'user.label': 'system_u:object_r:usr_t:s0\0' };
  const entries: Record<string, TreeEntry> = { '/': dir({ ...owner, xattrs: label }) };
  const shared = file('shared '.repeat(30), late);
  entries['/shared/first'] = shared;
  entries['/shared/second'] = link(shared);
  entries['/special/pipe'] = fifo(owner);
  entries['/special/socket'] = socket(late);
  entries['/special/null'] = charDevice(0x103, { ...owner, mode: 0o666 });
  entries['/names/raw \xff\n!'] = file('odd', owner);
  entries['/names/!before-dot'] = file('', owner);
  entries['/names/.-between'] = file('', owner);
  entries['/links/short'] = symlink('target', owner);
  entries['/links/long'] = symlink('l'.repeat(4095), late);
  entries['/xattrs/many'] = file('x', {
    ...owner,
    xattrs: { ...Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`user.${i}`, `${i}`])), ...label },
  });
  entries['/xattrs/more'] = dir({
    ...late,
    xattrs: { ...Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`user.${i}`, `${i}`])), 'trusted.t': '' },
  });
  for (const size of [0, 1, 64, 65, 4095, 4096, 4097, 100_000]) {
    entries[`/sizes/${size}`] = file('s'.repeat(size), { ...(size % 2 ? owner : late), xattrs: label });
  }
  for (let i = 0; i < 700; i++) entries[`/many/${'n'.repeat(i % 200)}${i}`] = file(`${i}`, i % 3 ? owner : late);
  const root = tree(entries);
  return { root, files: Object.values(entries).filter((entry) => entry.kind === 'file') };
}

/** Reading a directory counts every name as an inode of its own. */
function withoutLinks(facts: Record<string, Fact>): Record<string, Fact> {
  const resolved = Object.entries(facts).map(([path, fact]) => {
    const full = typeof fact['link'] === 'string' ? facts[fact['link']]! : fact;
    return [path, { ...full, nlink: undefined }] as const;
  });
  return Object.fromEntries(resolved);
}

function storeContents(objects: string, files: readonly FileNode[]): void {
  for (const node of files) {
    if (node.content.kind !== 'external') continue;
    mkdirSync(`${objects}/${node.content.path!.slice(0, 2)}`, { recursive: true });
    writeFileSync(`${objects}/${node.content.path!}`, contentOf(node));
  }
}

test('the kernel shows the tree that was written, contents from the object store', () => {
  const { root, files } = sample();
  const scratch = scratchDir();
  const [image, erofs, objects, merged] = ['image', 'erofs', 'objects', 'merged'].map((name) => `${scratch}/${name}`);
  for (const folder of [erofs!, objects!, merged!]) mkdirSync(folder);
  storeContents(objects!, files);
  writeFileSync(image!, writeComposefsImage(root, { algorithm: 'sha256' }).bytes);
  mount('-t', 'erofs', '-o', 'ro,loop', image!, erofs!);
  const layers = `ro,metacopy=on,redirect_dir=on,lowerdir=${erofs!}::${objects!}`;
  mount('-t', 'overlay', '-o', layers, 'overlay', merged!);
  const options = { listXattrs: (path: Buffer) => sys.listXattrs(path) };
  const seen = readDirectoryTree(merged!, measuringSink('sha256'), options);
  expect(withoutLinks(treeFacts(seen))).toEqual(withoutLinks(treeFacts(root)));
  expect(readdirSync(erofs!)).toContain('7f');
  expect(readdirSync(merged!)).not.toContain('7f');
});

/** What is above and below in one, and everything that a layer can do to another. */
function layered(): { readonly base: DirectoryNode; readonly whole: DirectoryNode; readonly files: FileNode[] } {
  const owner = { uid: 0, gid: 0 };
  const [kept, grown] = [file('kept '.repeat(30), owner), file('grown '.repeat(30), owner)];
  const files = [kept, grown];
  const large = (text: string): FileNode => {
    const made = file(text.repeat(40), { ...owner, xattrs: { 'user.x': text } });
    files.push(made);
    return made;
  };
  const both = (): Record<string, TreeEntry> => ({
    '/linked/kept': kept,
    '/linked/kept-too': link(kept),
    '/below/large': large('below'),
    '/both/below': large('both'),
    '/whiteouts/own': charDevice(0, owner),
    '/whiteouts/file': large('beside'),
  });
  const below = tree({
    ...both(),
    '/gone': large('gone'),
    '/both/gone': large('gone'),
    '/both/directory/gone': large('gone'),
    '/opaque/gone/gone': large('gone'),
    '/opaque/file': large('gone'),
    '/becomes-directory': large('gone'),
    '/becomes-link/gone': large('gone'),
    '/linked/grown': grown,
    '/ab/gone': large('gone'),
  });
  settleLinks(below);
  // Of its own: an inode has as many links in it as names.
  const base = copyTree(below);
  const whole = tree({
    ...both(),
    '/both': dir({ ...owner, mode: 0o2711, xattrs: { 'user.both': 'new', 'trusted.overlay.opaque': 'x' } }),
    '/both/above': large('above'),
    '/opaque/new': large('new'),
    '/becomes-directory/new': large('new'),
    '/becomes-link': symlink('below', owner),
    '/linked/grown': grown,
    '/linked/grown-too': link(grown),
    '/cd/new': large('new'),
  });
  settleLinks(whole);
  return { base, whole, files };
}

test('the kernel shows the same tree of a base and a delta over it', () => {
  const { base, whole, files } = layered();
  const scratch = scratchDir();
  const objects = `${scratch}/objects`;
  mkdirSync(objects);
  storeContents(objects, files);
  const delta = makeDelta(base, whole);
  const images = {
    base: writeComposefsImage(base, { algorithm: 'sha256' }).bytes,
    delta: writeComposefsImage(delta.root, { algorithm: 'sha256', marks: delta }).bytes,
    flat: writeComposefsImage(whole, { algorithm: 'sha256' }).bytes,
  };
  for (const [name, bytes] of Object.entries(images)) {
    writeFileSync(`${scratch}/${name}.erofs`, bytes);
    mkdirSync(`${scratch}/${name}`);
    mount('-t', 'erofs', '-o', 'ro,loop', `${scratch}/${name}.erofs`, `${scratch}/${name}`);
  }
  const factsOf = (name: string, layers: readonly string[]) => {
    const merged = `${scratch}/${name}`;
    mkdirSync(merged);
    const lower = layers.map((layer) => `${scratch}/${layer}`).join(':');
    mount('-t', 'overlay', '-o', `ro,metacopy=on,redirect_dir=on,lowerdir=${lower}::${objects}`, 'overlay', merged);
    return factsOfDirectory(merged, (path) => sys.listXattrs(path));
  };
  const flat = factsOf('merged-flat', ['flat']);
  expect(factDifferences(factsOf('merged-split', ['delta', 'base']), flat)).toEqual([]);
  expect([...flat.keys()].sort()).toEqual([...factsOfTree(whole, (node) => [contentOf(node)]).keys()].sort());
});
