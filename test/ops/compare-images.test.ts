/** Two digests differ: the path and the field are named, whatever the sides are. */

import { mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { compareRecord, compareText } from '../../src/cli/view/compare.ts';
import { formatDump } from '../../src/format/dump/format.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import { compareImages, type CompareResult } from '../../src/ops/compare-images.ts';
import { digestImage } from '../../src/ops/digest-image.ts';
import { fsverityDigest, objectPath } from '../../src/format/fsverity/digest.ts';
import type { DirectoryNode, FileNode, VerityAlgorithm } from '../../src/tree/node.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { storeBootable } from '../helpers/store-bootable.ts';
import { tarFile } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';
import { dir, file, link, symlink, tree } from '../helpers/tree-builder.ts';

const host = testHost({ architecture: 'amd64' });
const long = 'x'.repeat(100);

function large(content: string, algorithm: VerityAlgorithm, options: Parameters<typeof file>[1] = {}): FileNode {
  const digest = fsverityDigest(algorithm, Buffer.from(content));
  const node = file('', { uid: 0, gid: 0, ...options });
  node.content = { kind: 'external', size: content.length, digest, path: objectPath(digest) };
  return node;
}

function sample(algorithm: VerityAlgorithm, change: Parameters<typeof tree>[0] = {}): DirectoryNode {
  const shared = file('one inode', { uid: 0, gid: 0 });
  return tree({
    '/': dir({ uid: 0, gid: 0 }),
    '/a': file('small', { uid: 0, gid: 0 }),
    '/b': large(long, algorithm),
    '/c': symlink('a', { uid: 0, gid: 0 }),
    '/d': dir({ uid: 0, gid: 0, xattrs: { 'user.x': 'y' } }),
    '/l1': shared,
    '/l2': link(shared),
    ...change,
  });
}

function dumped(root: DirectoryNode): string {
  const path = `${scratchDir()}/dump`;
  writeFileSync(path, [...formatDump(root)].join(''));
  return `dump:${path}`;
}

function imaged(root: DirectoryNode, algorithm: VerityAlgorithm, version: 0 | 1 | 2): string {
  const path = `${scratchDir()}/image`;
  writeFileSync(path, writeComposefsImage(root, { algorithm, minVersion: version, maxVersion: version }).bytes);
  return path;
}

const compare = (a: string, b: string): Promise<CompareResult> => compareImages(host, { a, b });
/** The differences as `path field: a | b`. */
async function lines(a: string, b: string): Promise<string[]> {
  const { differences } = compareRecord(await compare(a, b)) as {
    differences: { path: string; only: string | null; fields: { field: string; a: string; b: string }[] }[];
  };
  return differences.flatMap(({ path, only, fields }) =>
    only === null
      ? fields.map(({ field, a: left, b: right }) => `${path} ${field}: ${left} | ${right}`)
      : [`${path} only in ${only}`],
  );
}

describe('image compare', () => {
  test('of the same tree as a dump and as an image finds nothing', async () => {
    const result = await compare(dumped(sample('sha256')), imaged(sample('sha256'), 'sha256', 1));
    expect({
      equal: result.equal,
      notes: result.notes,
      differences: result.differences,
      same: result.a.digest === result.b.digest,
    }).toEqual({ equal: true, notes: [], differences: [], same: true });
    expect([...compareText(result)].at(-1)).toBe('The same\n');
  });

  test('names every field of every path', async () => {
    const time = { sec: 1_700_000_000n, nsec: 5 };
    const changed = sample('sha256', {
      '/a': file('other', { mode: 0o600, uid: 7, gid: 8 }),
      '/b': large(`${long}y`, 'sha256', { mtime: time }),
      '/c': symlink('b', { uid: 0, gid: 0 }),
      '/d': dir({ uid: 0, gid: 0, xattrs: { 'user.x': 'z', 'user.new': '' } }),
      '/l1': file('one inode', { uid: 0, gid: 0 }),
      '/l2': file('one inode', { uid: 0, gid: 0 }),
      '/new': file('', { uid: 0, gid: 0 }),
    });
    const digest = /[0-9a-f]{64}/g;
    const found = await lines(dumped(sample('sha256')), imaged(changed, 'sha256', 1));
    expect(found.map((line) => line.replace(digest, 'DIGEST'))).toEqual([
      '/a content: 5 bytes, "small" | 5 bytes, "other"',
      '/a mode: 0644 | 0600',
      '/a owner: 0:0 | 7:8',
      '/b content: 100 bytes, DIGEST | 101 bytes, DIGEST',
      '/b mtime: 1700000000.123456789 | 1700000000.000000005',
      '/c target: a | b',
      '/d xattr user.new: none | ""',
      '/d xattr user.x: "y" | "z"',
      '/l1 links: /l1, /l2 | one name',
      '/l2 links: /l1, /l2 | one name',
      '/new only in b',
    ]);
  });

  test.each<readonly [string, VerityAlgorithm, 0 | 1 | 2, string, RegExp]>([
    ['the version', 'sha256', 0, 'v0-sha256-12', /^$/],
    ['a version without parts of seconds', 'sha256', 2, 'v2-sha256-12', /no parts of seconds/],
    ['the hash', 'sha512', 1, 'v1-sha512-12', /different hashes: of files over 64 bytes only sizes/],
  ])('says that only %s differs', async (_title, algorithm, version, parameters, note) => {
    const result = await compare(imaged(sample('sha256'), 'sha256', 1), imaged(sample(algorithm), algorithm, version));
    expect({
      equal: result.equal,
      same: result.a.digest === result.b.digest,
      parameters: [result.a.parameters, result.b.parameters],
    }).toEqual({ equal: true, same: false, parameters: ['v1-sha256-12', parameters] });
    expect(result.notes.join()).toMatch(note);
    expect([...compareText(result)].at(-1)).toBe(
      `The trees are the same; the digests differ by how they are made: v1-sha256-12 and ${parameters}\n`,
    );
  });

  test('takes a directory as mkcomposefs does', async () => {
    const directory = scratchDir();
    mkdirSync(`${directory}/top`);
    writeFileSync(`${directory}/top/f`, 'content');
    utimesSync(`${directory}/top/f`, 5, 5);
    utimesSync(`${directory}/top`, 6, 6);
    const at = (sec: bigint) => ({ mtime: { sec, nsec: 0 } });
    const like = (content: string): string => dumped(tree({ '/': dir(at(6n)), '/f': file(content, at(5n)) }));
    expect(await lines(`${directory}/top`, like('content'))).toEqual([]);
    expect(await lines(`${directory}/top`, like('Content'))).toEqual([
      '/f content: 7 bytes, "content" | 7 bytes, "Content"',
    ]);
  });

  test('compares a reference with what was made to boot of it, as it is booted', async () => {
    const more = [tarFile('boot/left', 'x')];
    const { reference } = bootableLayout({ more });
    const options = { image: reference, algorithm: 'sha512', formatVersion: 1, bootable: true } as const;
    const other = bootableLayout({ more: [...more, tarFile('usr/new', 'y')] }).reference;
    const { digest } = await digestImage(host, options);
    const repo = `${scratchDir()}/repo`;
    await storeBootable(host, repo, reference);
    const result = await compareImages(host, { repo, a: reference, b: digest });
    expect([result.equal, result.a.bootable, result.a.digest, result.b.digest]).toEqual([true, true, digest, digest]);
    const { differences } = await compareImages(host, { repo, a: other, b: digest });
    expect(differences.map(({ kind, path }) => `${kind} ${path}`)).toEqual(['removed /usr/new']);
  });
});
