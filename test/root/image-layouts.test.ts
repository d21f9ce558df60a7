/** Application images on one base, flat, split and cached: the same tree and the same digest each way. */

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repositoryContent } from '../../src/deploy/materialize.ts';
import { withChecksum } from '../../src/format/checksum.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { imageParts, type ImageParts } from '../../src/store/image-record.ts';
import { readImage } from '../../src/store/images.ts';
import { requireRepository } from '../../src/store/repository.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { appLayouts } from '../helpers/app-layouts.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { factDifferences, factsOfDirectory, factsOfTree, type FileFacts } from '../helpers/file-facts.ts';
import { loopsOf } from '../helpers/mount-cycles.ts';
import { mountNamespace } from '../helpers/mount-namespace.ts';
import { hostctl, PROGRAM, type ProgramResult } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';

const host = testHost();
let folder: string;
/** A repository with the first application flat and the second one split. */
let repo: string;
let apps: Record<'one' | 'two', string>;
let digests: Record<'one' | 'two', VerityDigest>;
let facts: FileFacts;

beforeAll(() => {
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-layouts-`);
  apps = appLayouts(folder, 'one', 'two');
  repo = `${folder}/repo`;
  digests = { one: pull(repo, apps.one), two: pull(repo, apps.two) };
  const repository = requireRepository(host, repo);
  const flat = readComposefsImage(readImage(repository, digests.one));
  facts = factsOfTree(flat, repositoryContent(repository));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function pull(into: string, reference: string, ...more: string[]): VerityDigest {
  const { exitCode, stdout, stderr } = hostctl(['image', 'pull', reference, '--repo', into, ...more]);
  expect({ exitCode, stderr: stderr.replace(/^.*no fs-verity: a mount.*\n/, '') }).toEqual({ exitCode: 0, stderr: '' });
  return stdout.trim() as VerityDigest;
}

function objectPath(of: VerityDigest, below = repo): string {
  return `${below}/objects/${of.slice(0, 2)}/${of.slice(2)}`;
}

function partsOf(digest: VerityDigest, below = repo): ImageParts {
  return imageParts(requireRepository(host, below), digest)!;
}

function objectsIn(below: string): string[] {
  return readdirSync(`${below}/objects`)
    .flatMap((prefix) => readdirSync(`${below}/objects/${prefix}`).map((rest) => prefix + rest))
    .sort();
}

interface Listed {
  readonly digest: string;
  readonly layout: string;
  readonly names: readonly string[];
  readonly over: readonly string[];
  readonly bytes: { readonly uniqueBytes: number; readonly sharedBytes: number };
}

function list(below: string): Map<string, Listed> {
  const images = JSON.parse(hostctl(['image', 'list', '--repo', below, '--json']).stdout) as Listed[];
  return new Map(images.map((image) => [image.digest, image]));
}

function damage(path: string): void {
  const bytes = readFileSync(path);
  bytes[2000]! ^= 1;
  rmSync(path);
  writeFileSync(path, bytes);
}

describe('image pull', () => {
  test('splits an image that begins as another one does, and keeps what they have in common as its base', () => {
    const { base, delta } = partsOf(digests.two);
    expect(hostctl(['image', 'digest', apps.two]).stdout.trim()).toBe(digests.two);
    expect(existsSync(objectPath(digests.two))).toBe(false);
    const listed = list(repo);
    expect([...listed.keys()].sort()).toEqual([digests.one, digests.two, base].sort());
    expect(listed.get(digests.one)).toMatchObject({ layout: 'flat', over: [] });
    expect(listed.get(base)).toMatchObject({ layout: 'flat', names: [], over: [digests.two] });
    const own = `the program of two\n`.length * 40 + `replaced by two\n`.length * 9;
    const { layout, bytes } = listed.get(digests.two)!;
    expect({ layout, unique: bytes.uniqueBytes }).toEqual({
      layout: 'split',
      unique: readFileSync(objectPath(delta)).length + own,
    });
    expect(readFileSync(objectPath(delta)).length).toBeLessThan(readFileSync(objectPath(base)).length / 10);
    expect(hostctl(['image', 'list', '--repo', repo]).stdout).toMatch(/ base of 1 image \(/);
    const inspected = JSON.parse(hostctl(['image', 'inspect', digests.two, '--repo', repo]).stdout) as object;
    expect(inspected).toMatchObject({ digest: digests.two, layout: 'split', base });
  });

  test('leaves an image as it is, until another layout is asked for', () => {
    const own = `${scratchDir()}/repo`;
    const layoutOf = (digest: string): string => list(own).get(digest)!.layout;
    const layoutAfter = (...more: string[]): string => layoutOf(pull(own, apps.one, ...more));
    expect(layoutAfter()).toBe('flat');
    expect(layoutAfter('--layout', 'split')).toBe('split');
    expect(layoutAfter()).toBe('split');
    expect(layoutAfter('--layout', 'cached')).toBe('cached');
    expect(existsSync(objectPath(digests.one, own))).toBe(true);
    symlinkSync(`../../${digests.one}`, `${own}/images/refs/other-tool`);
    expect(hostctl(['image', 'pull', apps.one, '--repo', own, '--layout', 'split']).stderr).toMatch(
      /The image stays flat: the ref "other-tool" names it/,
    );
    expect(layoutOf(digests.one)).toBe('flat');
    // Another tool that keeps streams here cannot know of images without an object.
    symlinkSync('nothing', `${own}/streams/oci-layer`);
    expect(layoutOf(pull(own, apps.two))).toBe('flat');
  });

  test('refuses to split what has nothing below', () => {
    const { reference } = bootableLayout({ layout: { layers: [{ tar: Buffer.alloc(1024) }] } });
    const args = ['image', 'pull', reference, '--repo', `${scratchDir()}/repo`, '--layout', 'split'];
    expect(hostctl(args)).toMatchObject({
      exitCode: 7,
      stderr: expect.stringMatching(/Cannot store .* split: it has one layer.*\n {2}hint: .*--layout flat/s) as string,
    });
  });
});

describe('the tree is the same', () => {
  function expectTree(directory: string, expected: FileFacts): void {
    const shown = factsOfDirectory(directory, (path) => host.syscalls.listXattrs(path));
    expect(factDifferences(shown, expected)).toEqual([]);
  }

  const ways: readonly (readonly [string, string, readonly string[]])[] = [
    ['flat', 'flat', []],
    ['split', 'split', []],
    ['cached', 'cached', []],
    ['split, without the mount API', 'split', ['env', 'NODE_OPTIONS=--no-addons']],
  ];
  test.each(ways)('mounted %s', async (_, layout, environment) => {
    const own = `${scratchDir()}/repo`;
    expect(pull(own, apps.one, '--layout', layout)).toBe(digests.one);
    const namespace = await mountNamespace();
    const [program = '', ...prefix] = namespace.prefix;
    execFileSync(program, [...prefix, 'mount', '--make-rshared', '/']);
    const before = namespace.table();
    const directory = scratchDir();
    const run = (...args: string[]): ProgramResult => hostctl(args, [...namespace.prefix, ...environment]);
    const mounted = run('image', 'mount', digests.one, directory, '--repo', own, '--verity', 'off');
    expect(mounted).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(namespace.table().slice(before.length)).toMatchObject([
      { type: 'overlay', source: `composefs:${digests.one}` },
    ]);
    expectTree(namespace.path(directory), facts);
    expect(run('image', 'umount', directory).exitCode).toBe(0);
    expect(namespace.table()).toEqual(before);
    const images = objectsIn(own).map((name) => objectPath(name as VerityDigest, own));
    await expect.poll(() => images.flatMap(loopsOf), { timeout: 10_000 }).toEqual([]);
  });

  test('dumped, exported and read', () => {
    const flat = `${scratchDir()}/repo`;
    pull(flat, apps.two, '--layout', 'flat');
    const verbs: readonly (readonly string[])[] = [['dump'], ['ls'], ['cat', '/usr/share/replaced']];
    for (const [verb = '', ...words] of verbs) {
      const [left, right] = [repo, flat].map((of) => hostctl(['image', verb, digests.two, ...words, '--repo', of]));
      expect(left).toEqual(right);
      expect(left!.exitCode).toBe(0);
    }
    // Into a full pipe: what waits there must not be written over by what comes next.
    const tree = `${scratchDir()}/tree`;
    mkdirSync(tree);
    const words = ['image', 'export', digests.two, '--repo', repo];
    const script = '"${@:2}" | { sleep 1; tar -x -p --xattrs --xattrs-include=* --numeric-owner -C "$1"; }';
    execFileSync('bash', ['-o', 'pipefail', '-c', script, 'bash', tree, process.execPath, PROGRAM, ...words]);
    const repository = requireRepository(host, flat);
    const image = readComposefsImage(readImage(repository, digests.two));
    expectTree(tree, factsOfTree(image, repositoryContent(repository)));
  });
});

describe('a cached image', () => {
  test('is made again when it was dropped or is damaged, and proven by its digest', async () => {
    const own = `${scratchDir()}/repo`;
    pull(own, apps.one, '--layout', 'cached');
    const namespace = await mountNamespace();
    const mount = (): ProgramResult =>
      hostctl(['image', 'mount', digests.one, scratchDir(), '--repo', own, '--verity', 'off'], namespace.prefix);
    const whole = readFileSync(objectPath(digests.one, own));
    rmSync(objectPath(digests.one, own));
    expect(mount()).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(readFileSync(objectPath(digests.one, own)).equals(whole)).toBe(true);
    damage(objectPath(digests.one, own));
    expect(mount()).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(readFileSync(objectPath(digests.one, own)).equals(whole)).toBe(true);
    // What it is made of must be right, and its own.
    rmSync(objectPath(digests.one, own));
    pull(own, apps.two, '--layout', 'cached');
    const record = `${own}/hostctl/${digests.one}`;
    const text = readFileSync(record, 'utf8');
    const other = text.slice(0, text.lastIndexOf(';')).replace(/(?<=^delta = ).*$/m, partsOf(digests.two, own).delta);
    writeFileSync(record, withChecksum(other, ';'));
    expect(mount()).toMatchObject({
      exitCode: 9,
      stderr: expect.stringMatching(/base and its delta make another/) as string,
    });
    writeFileSync(record, text);
    damage(objectPath(partsOf(digests.one, own).base, own));
    expect(mount()).toMatchObject({ exitCode: 9, stderr: expect.stringMatching(/is damaged/) as string });
  });
});

describe('a split image', () => {
  test('is not mounted when a part of it is damaged, and fsck names what needs that', async () => {
    const namespace = await mountNamespace();
    const sysroot = scratchDir();
    mkdirSync(`${sysroot}/boot`);
    const own = `${sysroot}/composefs`;
    pull(own, apps.one, '--layout', 'split');
    const { base, delta } = partsOf(digests.one, own);
    const fsck = (): ProgramResult => hostctl(['fsck', '--deep', '--sysroot', sysroot]);
    expect(fsck()).toMatchObject({ exitCode: 0 });
    for (const part of [base, delta]) {
      const path = objectPath(part, own);
      const whole = readFileSync(path);
      damage(path);
      const args = ['image', 'mount', digests.one, scratchDir(), '--repo', own, '--verity', 'off'];
      expect(hostctl(args, namespace.prefix)).toMatchObject({
        exitCode: 3,
        stderr: expect.stringMatching(new RegExp(`^hostctl: The image ${part} has the digest`)) as string,
      });
      const { exitCode, stdout } = fsck();
      expect({ exitCode, named: stdout.includes(digests.one) || part === base }).toEqual({ exitCode: 9, named: true });
      expect(stdout).toContain(part === base ? base : digests.one);
      writeFileSync(path, whole);
    }
    expect(fsck()).toMatchObject({ exitCode: 0 });
  });

  test('keeps its base, and gc leaves exactly what is needed', async () => {
    const namespace = await mountNamespace();
    const sysroot = scratchDir();
    mkdirSync(`${sysroot}/boot`);
    const own = `${sysroot}/composefs`;
    const paths = ['--sysroot', sysroot];
    pull(own, apps.one, '--layout', 'split');
    const alone = objectsIn(own);
    pull(own, apps.two);
    const collect = (): void => expect(hostctl(['gc', ...paths])).toMatchObject({ exitCode: 0, stderr: '' });
    const both = objectsIn(own);
    collect();
    expect(objectsIn(own)).toEqual(both);
    const directory = scratchDir();
    const mounting = ['image', 'mount', digests.two, directory, ...paths, '--verity', 'off'];
    expect(hostctl(mounting, namespace.prefix).exitCode).toBe(0);
    hostctl(['image', 'remove', apps.two, ...paths]);
    collect();
    expect(objectsIn(own)).toEqual(both);
    hostctl(['image', 'umount', directory], namespace.prefix);
    collect();
    expect(objectsIn(own)).toEqual(alone);
    hostctl(['image', 'remove', apps.one, ...paths]);
    collect();
    expect(readdirSync(`${own}/objects`)).toEqual([]);
    expect(readdirSync(`${own}/images`)).toEqual(['refs']);
  });
});
