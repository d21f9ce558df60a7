/**
 * A hundred and fifty application images on one Debian base in one repository: what they take, that each is the tree
 * that its layers say, that every digest is right, and that gc removes what nothing needs and nothing else.
 *
 * The trees come of GNU tar and overlayfs, and which objects have to be there of `fsverity digest`. Each image is
 * compared whole, base included: every type, mode, owner, time, xattr, link target and hard link, and the SHA-256 of
 * every file as it is read through the mount. The tests go on from one another.
 */

import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ensureHostPackages, TEST_NEEDS } from '../../scripts/lib/host-packages.ts';
import { readImage } from '../../src/store/images.ts';
import { requireRepository } from '../../src/store/repository.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { setup } from '../helpers/build-program.ts';
import { appLayer, basePaths, type AppLayer } from '../helpers/debian-apps.ts';
import { factDifferences, factsOfDirectory, type FileFacts } from '../helpers/file-facts.ts';
import { mountNamespace, type MountNamespace } from '../helpers/mount-namespace.ts';
import { pathsBelow } from '../helpers/requires.ts';
import { hostctl } from '../helpers/run-program.ts';
import { testHost } from '../helpers/test-host.ts';
import { unpackApp, unpackBase } from '../helpers/unpacked-image.ts';
import { debianArchive } from '../vm/lib/debian.ts';
import { writeOciLayout, type ImageSpec } from '../vm/lib/oci-layout.ts';

const COUNT = 150;

interface App {
  readonly reference: string;
  readonly archive: string;
  readonly layer: AppLayer;
  readonly digest: VerityDigest;
  /** Objects that its own files are, known when it has been unpacked. */
  objects: ReadonlySet<string>;
}

const host = testHost();
let folder: string;
let sysroot: string;
let repo: string;
let base: { readonly tree: string; readonly digest: VerityDigest; readonly objects: ReadonlySet<string> };
let apps: App[];

beforeAll(async () => {
  setup();
  await ensureHostPackages(TEST_NEEDS, console.log);
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-apps-`);
  sysroot = `${folder}/sysroot`;
  repo = `${sysroot}/composefs`;
  for (const name of ['sysroot/boot', 'base', 'layers']) mkdirSync(`${folder}/${name}`, { recursive: true });
  const archive = `${folder}/base.tar`;
  execFileSync('zstd', ['-qd', await debianArchive(console.log), '-o', archive]);
  const tree = `${folder}/base`;
  unpackBase(archive, tree);
  const paths = basePaths(tree);
  const made = Array.from({ length: COUNT }, (_, index) => {
    const layer = appLayer(index, paths);
    writeFileSync(`${folder}/layers/${index}.tar`, layer.tar);
    return { archive: `${folder}/layers/${index}.tar`, layer, tag: `app-${index}` };
  });
  const below = { tar: archive, compression: 'none' } as const;
  const image = (tag: string, ...layers: ImageSpec['layers']): ImageSpec => ({ tag, layers, labels: {} });
  await writeOciLayout(`${folder}/layout`, [
    image('base', below),
    ...made.map((app) => image(app.tag, below, { tar: app.archive, compression: 'none' })),
  ]);
  base = { tree, digest: pull(repo, reference('base')), objects: objectsOf(tree) };
  apps = made.map(({ tag, ...app }) => {
    return { ...app, reference: reference(tag), digest: pull(repo, reference(tag)), objects: new Set() };
  });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function reference(tag: string): string {
  return `oci:${folder}/layout:${tag}`;
}

/** The output of a command that succeeds. */
function run(...args: string[]): string {
  const { exitCode, stdout, stderr } = hostctl([...args, '--quiet']);
  expect({ exitCode, stderr: stderr.replace(/^.*no fs-verity: a mount.*\n/, '') }).toEqual({ exitCode: 0, stderr: '' });
  return stdout.trim();
}

function pull(into: string, from: string, ...more: string[]): VerityDigest {
  return run('image', 'pull', from, '--repo', into, ...more) as VerityDigest;
}

/** The names of objects that the files below a directory are, those that are no objects for their size left out. */
function objectsOf(directory: string): Set<string> {
  const script = 'find "$1" -type f -size +64c -print0 | xargs -0r fsverity digest --hash-alg=sha512 --compact';
  const digests = execFileSync('bash', ['-o', 'pipefail', '-c', script, 'bash', directory], { maxBuffer: 1 << 28 });
  return new Set(digests.toString().split('\n').filter(Boolean));
}

/** Where an object is, from its repository. */
function objectName(digest: string): string {
  return `objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
}

/** That these objects are there and no others. */
function expectObjects(needed: ReadonlySet<string>): void {
  const stored = new Set(
    pathsBelow(`${repo}/objects`)
      .filter((path) => path.includes('/'))
      .map((path) => path.replace('/', '')),
  );
  const less = (all: ReadonlySet<string>, those: ReadonlySet<string>): string[] =>
    [...all].filter((name) => !those.has(name)).sort();
  expect({ missing: less(needed, stored), unneeded: less(stored, needed) }).toEqual({ missing: [], unneeded: [] });
}

/** The delta of an image, by what its record says. */
function deltaOf({ digest }: App): string {
  return /^delta = ([0-9a-f]{128})$/m.exec(readFileSync(`${repo}/hostctl/${digest}`, 'latin1'))![1]!;
}

/** Everything that has to be there for the base and these images. */
function neededObjects(left: readonly App[]): Set<string> {
  const files = [base.objects, ...left.map(({ objects }) => objects)].flatMap((objects) => [...objects]);
  return new Set([...files, base.digest, ...left.map(deltaOf)]);
}

/** Mounts the image and the tree that it is to be, each below a folder of its own, and compares everything. */
function compare(namespace: MountNamespace, app: App): void {
  const scratch = mkdtempSync(`${folder}/compare-`);
  mkdirSync(`${scratch}/image`);
  const { merged, upper } = unpackApp(namespace, base.tree, app, scratch);
  const expected = factsOf(namespace.path(merged));
  app.objects = objectsOf(upper);
  expectMounted(namespace, app.digest, `${scratch}/image`, expected);
  inNamespace(namespace, 'umount', merged);
  rmSync(scratch, { recursive: true });
}

function expectMounted(namespace: MountNamespace, digest: string, at: string, expected: FileFacts): void {
  const words = ['image', 'mount', digest, at, '--repo', repo, '--verity', 'off'];
  expect(hostctl(words, namespace.prefix)).toEqual({ exitCode: 0, stdout: '', stderr: '' });
  expect(factDifferences(factsOf(namespace.path(at)), expected)).toEqual([]);
  expect(hostctl(['image', 'umount', at], namespace.prefix).exitCode).toBe(0);
}

function factsOf(directory: string): FileFacts {
  return factsOfDirectory(directory, (path) => host.syscalls.listXattrs(path));
}

function inNamespace({ prefix: [program = '', ...words] }: MountNamespace, ...command: string[]): void {
  execFileSync(program, [...words, ...command]);
}

test('each is the tree that its layers say', async () => {
  const namespace = await mountNamespace();
  inNamespace(namespace, 'mount', '--make-rshared', '/');
  for (const app of apps) compare(namespace, app);
});

test('what is no content takes less than a tenth of flat images', () => {
  const contents = new Set([base, ...apps].flatMap(({ objects }) => [...objects]));
  // Blocks on disk: images, deltas, records, links, refs, and all directories, those of the content's names too.
  const onDisk = (path: string): number => lstatSync(`${repo}/${path}`).blocks * 512;
  const paths = pathsBelow(repo).filter((path) => !contents.has(path.replace(/^objects|\//g, '')));
  const metadata = paths.reduce((bytes, path) => bytes + onDisk(path), 0);
  // Of flat ones the bytes of the images alone.
  const repository = requireRepository(host, repo);
  const flatBytes = ({ digest }: App): number => readImage(repository, digest).length;
  const flat = apps.reduce((bytes, app) => bytes + flatBytes(app), 0);
  const deltas = apps.reduce((bytes, app) => bytes + onDisk(objectName(deltaOf(app))), 0);
  const figures = { metadata, deltas, base: onDisk(objectName(base.digest)), flat, ratio: metadata / flat };
  console.log(`${COUNT} images on a base of ${base.objects.size} objects: ${JSON.stringify(figures)}`);
  expect(metadata).toBeLessThanOrEqual(flat / 10);
  for (const app of [apps[0]!, apps.at(-1)!]) {
    expect(pull(`${folder}/flat`, app.reference, '--layout', 'flat')).toBe(app.digest);
    expect(statSync(`${folder}/flat/${objectName(app.digest)}`).size).toBe(flatBytes(app));
  }
});

test('every digest is right', () => {
  for (const { reference: from, digest } of apps) expect(run('image', 'digest', from)).toBe(digest);
  expect(new Set(apps.map(({ digest }) => digest)).size).toBe(COUNT);
  expect(JSON.parse(run('fsck', '--deep', '--sysroot', sysroot, '--json'))).toMatchObject({ deep: true, findings: [] });
});

test('gc leaves exactly what is needed', async () => {
  const collect = (): void => void run('gc', '--sysroot', sysroot);
  const remove = (from: string): void => void run('image', 'remove', from, '--repo', repo);
  const left = apps.filter((_, index) => index % 2 === 0);
  for (const app of apps) if (!left.includes(app)) remove(app.reference);
  const needed = neededObjects(left);
  collect();
  expectObjects(needed);
  const images = [base.digest, ...left.map(({ digest }) => digest)].sort();
  expect(readdirSync(`${repo}/images`).sort()).toEqual([...images, 'refs'].sort());
  expect(readdirSync(`${repo}/hostctl`).sort()).toEqual(images);
  const namespace = await mountNamespace();
  inNamespace(namespace, 'mount', '--make-rshared', '/');
  for (const app of left) compare(namespace, app);

  for (const app of left) remove(app.reference);
  collect();
  expectObjects(neededObjects([]));
  mkdirSync(`${folder}/mounted`);
  expectMounted(namespace, base.digest, `${folder}/mounted`, factsOf(base.tree));
  remove(reference('base'));
  collect();
  expect(readdirSync(`${repo}/objects`)).toEqual([]);
  expect(readdirSync(`${repo}/images`)).toEqual(['refs']);
});
