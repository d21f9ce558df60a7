/**
 * `image mount` on this kernel: one line in the mount table and none afterwards, the tree that was pulled, nothing left
 * when it is refused or killed.
 */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repositoryContent } from '../../src/deploy/materialize.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { mountImage, unmountImage } from '../../src/ops/mount-image.ts';
import { readImage } from '../../src/store/images.ts';
import { requireRepository, withRepositoryLock } from '../../src/store/repository.ts';
import { SyscallError, type MountCalls } from '../../src/sys/native.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { factDifferences, factsOfDirectory, factsOfTree, type FileFacts } from '../helpers/file-facts.ts';
import { noRestart } from '../helpers/no-restart.ts';
import { loopsOf, runMountCycles } from '../helpers/mount-cycles.ts';
import { mountNamespace, type MountNamespace } from '../helpers/mount-namespace.ts';
import { hostctl, type ProgramResult } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { paxHeader, tarDir, tarEntry, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';
import { watchMounts } from '../helpers/watch-mounts.ts';
import { testHost } from '../helpers/test-host.ts';

const LARGE = Buffer.alloc(300_000, 'a line of a large file\n');
const MORE = [
  Buffer.concat([paxHeader({ mtime: '1600000000.123456789' }), tarDir('usr/share', { mode: 0o2775, uid: 7, gid: 8 })]),
  tarFile('usr/share/large', LARGE, { mode: 0o4750, uid: 1, gid: 70_000, mtime: 1_600_000_001 }),
  tarHardlink('usr/share/large-too', 'usr/share/large'),
  Buffer.concat([
    paxHeader({ 'SCHILY.xattr.security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex') }),
    tarFile('usr/share/small', 'small', { mode: 0o755, mtime: 1_600_000_002 }),
  ]),
  tarHardlink('usr/bin/small', 'usr/share/small'),
  tarSymlink('usr/share/link', 'nowhere', { uid: 5, mtime: 1_600_000_003 }),
  tarEntry('usr/share/fifo', { type: '6', mode: 0o600, mtime: 1_600_000_004 }),
  tarEntry('usr/share/null', { type: '3', devmajor: 1, devminor: 3, mode: 0o666, mtime: 1_600_000_005 }),
  tarFile('usr/share/new\nline \xff', '', { mtime: 1_600_000_006 }),
];

const host = testHost();
let folder: string;
let repo: string;
let digest: VerityDigest;
let facts: FileFacts;

beforeAll(() => {
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-mount-`);
  repo = `${folder}/repo`;
  mkdirSync(`${folder}/layout`);
  digest = pull(repo);
  const repository = requireRepository(host, repo);
  facts = factsOfTree(readComposefsImage(readImage(repository, digest)), repositoryContent(repository));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function pull(into: string): VerityDigest {
  const { reference } = bootableLayout({ directory: `${folder}/layout`, more: MORE });
  return hostctl(['image', 'pull', reference, '--repo', into]).stdout.trim() as VerityDigest;
}

function expectTree(directory: string): void {
  const shown = factsOfDirectory(directory, (path) => host.syscalls.listXattrs(path));
  expect(factDifferences(shown, facts)).toEqual([]);
}

function mount(namespace: MountNamespace, directory: string, ...more: string[]): ProgramResult {
  return hostctl(['image', 'mount', digest, directory, '--repo', repo, ...more], namespace.prefix);
}

describe('image mount', () => {
  test('adds one line to the mount table, at no moment another, and umount takes it away', async () => {
    const namespace = await mountNamespace();
    const directory = scratchDir();
    const before = namespace.table();
    const linesBefore = readFileSync(namespace.tableFile, 'utf8').split('\n').filter(Boolean);
    const stop = await watchMounts(namespace.tableFile);
    expect(mount(namespace, directory, '--verity', 'off')).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    const during = namespace.table();
    expect(during.slice(0, -1)).toEqual(before);
    expect(during.at(-1)).toMatchObject({ mountPoint: directory, type: 'overlay', source: `composefs:${digest}` });
    expect(during.at(-1)?.options).toContain('ro');
    expectTree(namespace.path(directory));
    const umount = hostctl(['image', 'umount', directory], namespace.prefix);
    expect(umount).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(namespace.table()).toEqual(before);
    const { reads, lines } = await stop();
    expect(reads).toBeGreaterThan(50);
    // No EROFS among them, at no moment.
    expect(lines.filter((line) => !linesBefore.includes(line))).toEqual([
      expect.stringMatching(` ${directory} ro,\\S* - overlay composefs:${digest} `) as string,
    ]);
  });

  test('by name says with --json which image it was', async () => {
    const namespace = await mountNamespace();
    const args = ['image', 'mount', `oci:${folder}/layout`, scratchDir(), '--repo', repo, '--verity', 'off', '--json'];
    const { exitCode, stdout } = hostctl(args, namespace.prefix);
    expect({ exitCode, result: JSON.parse(stdout) as unknown }).toEqual({ exitCode: 0, result: { digest } });
  });

  test('with --rw takes changes into UPPER and leaves the image as it is', async () => {
    const namespace = await mountNamespace();
    const [directory, layer] = [scratchDir(), scratchDir()];
    const [upper, work] = [`${layer}/upper`, `${layer}/work`];
    mkdirSync(upper);
    mkdirSync(work);
    expect(mount(namespace, directory, '--verity', 'off', '--rw', upper, work).exitCode).toBe(0);
    const inside = namespace.path(directory);
    writeFileSync(`${inside}/usr/share/small`, 'changed');
    rmSync(`${inside}/usr/share/large`);
    expect(readFileSync(`${inside}/usr/share/small`, 'utf8')).toBe('changed');
    expect(readdirSync(`${upper}/usr/share`)).toEqual(['large', 'small']);
    expect(hostctl(['image', 'umount', directory], namespace.prefix).exitCode).toBe(0);
    expect(mount(namespace, directory, '--verity', 'off').exitCode).toBe(0);
    expectTree(inside);
  });

  test('through a loop device, where the kernel takes no image from a file, frees the device again', async () => {
    const directory = scratchDir();
    const replaced = { ...host, syscalls: { ...host.syscalls, mountApi: withoutFileMounts(host.syscalls.mountApi!) } };
    const object = `${repo}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    await mountImage(replaced, { image: digest, repo, directory, verity: 'off', writable: undefined }, noRestart);
    try {
      const devices = loopsOf(object).map((name) => `/dev/${name}`);
      expect(devices).toHaveLength(1);
      expect(host.mounts.table().filter(({ source }) => devices.includes(source))).toEqual([]);
      expectTree(directory);
    } finally {
      await unmountImage(host, directory);
    }
    // The kernel takes the last mount apart a moment later.
    await expect.poll(() => loopsOf(object), { timeout: 10_000 }).toEqual([]);
  });
});

describe('a mounted image', () => {
  test('is kept by gc although nothing else names it, in whichever mount namespace, until it is unmounted', async () => {
    const namespace = await mountNamespace();
    const [sysroot, directory] = [scratchDir(), scratchDir()];
    mkdirSync(`${sysroot}/boot`);
    const own = `${sysroot}/composefs`;
    const paths = ['--sysroot', sysroot];
    pull(own);
    const mounting = ['image', 'mount', digest, directory, ...paths, '--verity', 'off'];
    expect(hostctl(mounting, namespace.prefix).exitCode).toBe(0);
    expect(hostctl(['image', 'remove', `oci:${folder}/layout`, ...paths]).exitCode).toBe(0);
    const collect = (): ProgramResult => hostctl(['gc', ...paths]);
    expect(collect()).toMatchObject({ exitCode: 0, stderr: '' });
    expectTree(namespace.path(directory));
    hostctl(['image', 'umount', directory], namespace.prefix);
    expect(collect()).toMatchObject({ exitCode: 0, stderr: '' });
    expect(readdirSync(`${own}/objects`)).toEqual([]);
  });

  test('is not mounted while something is removed from the repository', async () => {
    const namespace = await mountNamespace();
    const result = await withRepositoryLock(host, repo, 'exclusive', () =>
      Promise.resolve(mount(namespace, scratchDir(), '--verity', 'off', '--wait', '0')),
    );
    expect(result).toMatchObject({ exitCode: 6, stdout: '' });
  });
});

/** Without koffi, as where the kernel is too old: by mount(8), from a mount namespace of the command's own. */
describe('image mount without the mount API', () => {
  const object = (): string => `${repo}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;

  /** As `mount`, and the table of a namespace whose mounts are shared, as systemd makes them. */
  async function sharedNamespace(): Promise<MountNamespace> {
    const namespace = await mountNamespace();
    const [program = '', ...args] = namespace.prefix;
    execFileSync(program, [...args, 'mount', '--make-rshared', '/']);
    return namespace;
  }

  function run(namespace: MountNamespace, ...args: string[]): ProgramResult {
    return hostctl(args, [...namespace.prefix, 'env', 'NODE_OPTIONS=--no-addons']);
  }

  test('adds one line, at no moment another, and frees its loop device again', async () => {
    const namespace = await sharedNamespace();
    const directory = scratchDir();
    const before = namespace.table();
    const linesBefore = readFileSync(namespace.tableFile, 'utf8').split('\n').filter(Boolean);
    const stop = await watchMounts(namespace.tableFile);
    const mounted = run(namespace, 'image', 'mount', digest, directory, '--repo', repo, '--verity', 'off', '--json');
    expect(mounted).toEqual({ exitCode: 0, stdout: `${JSON.stringify({ digest }, undefined, 2)}\n`, stderr: '' });
    expectTree(namespace.path(directory));
    expect(run(namespace, 'image', 'umount', directory)).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    expect(namespace.table()).toEqual(before);
    const { lines } = await stop();
    expect(lines.filter((line) => !linesBefore.includes(line))).toEqual([
      expect.stringMatching(` ${directory} ro,\\S* shared:\\d+ - overlay composefs:${digest} `) as string,
    ]);
    await expect.poll(() => loopsOf(object()), { timeout: 10_000 }).toEqual([]);
  });

  test('with --rw takes changes into UPPER', async () => {
    const namespace = await sharedNamespace();
    const [directory, layer] = [scratchDir(), scratchDir()];
    const [upper, work] = [`${layer}/upper`, `${layer}/work`];
    mkdirSync(upper);
    mkdirSync(work);
    const args = ['image', 'mount', digest, directory, '--repo', repo, '--verity', 'off', '--rw', upper, work];
    expect(run(namespace, ...args).exitCode).toBe(0);
    writeFileSync(`${namespace.path(directory)}/usr/share/small`, 'changed');
    expect(readdirSync(`${upper}/usr/share`)).toEqual(['small']);
  });

  test('refuses where the mount would be lost, and paths that cannot be quoted', async () => {
    const namespace = await mountNamespace();
    const args = ['image', 'mount', digest, scratchDir(), '--repo', repo, '--verity', 'off'];
    expect(run(namespace, ...args)).toEqual({
      exitCode: 7,
      stdout: '',
      stderr: expect.stringMatching(/Cannot mount on .*\n {2}hint: Run "mount --make-shared \//) as string,
    });
    const shared = await sharedNamespace();
    const before = shared.table();
    const odd = `${scratchDir()}/a,b`;
    mkdirSync(odd);
    expect(run(shared, ...args, '--rw', odd, odd)).toEqual({
      exitCode: 7,
      stdout: '',
      stderr: expect.stringMatching(/path ".*a,b", which has special characters/) as string,
    });
    expect(shared.table()).toEqual(before);
  });
});

/** A kernel before 6.12: EROFS needs a block device. */
function withoutFileMounts(api: MountCalls): MountCalls {
  const ofFiles = new Set<number>();
  return {
    ...api,
    setString(fd, key, value) {
      if (key === 'source') ofFiles.delete(fd);
      if (value.startsWith('/proc/self/fd/')) ofFiles.add(fd);
      api.setString(fd, key, value);
    },
    create(fd) {
      if (ofFiles.has(fd)) throw new SyscallError('fsconfig', os.constants.errno.ENOTSUP, 'create');
      api.create(fd);
    },
  };
}

describe('image mount refuses', () => {
  const cases: readonly (readonly [string, (directory: string) => string[], number, RegExp])[] = [
    ['an image without fs-verity', (at) => [digest, at], 7, /has no fs-verity\n {2}hint: .*--verity off/],
    ['the same where it is asked for', (at) => [digest, at, '--verity', 'require'], 7, /has no fs-verity\n {2}hint: /],
    ['an image it does not have', (at) => ['0'.repeat(128), at, '--verity', 'off'], 7, /There is no image "0{128}"/],
    ['a place that is not there', (at) => [digest, `${at}/no`, '--verity', 'off'], 2, /no" is not a directory/],
    [
      'a place that is a file',
      () => [digest, '/etc/passwd', '--verity', 'off'],
      2,
      /"\/etc\/passwd" is not a directory/,
    ],
    ['--rw with one directory', (at) => [digest, at, '--verity', 'off', '--rw', at], 2, /rw/],
    ['--rw without its directories', (at) => [digest, at, '--verity', 'off', '--rw', '/no/a', '/no/b'], 2, /"\/no\/a"/],
    ['an unknown kind of verity', (at) => [digest, at, '--verity', 'maybe'], 2, /maybe/],
  ];
  test.each(cases)('%s', async (_, args, exitCode, message) => {
    const namespace = await mountNamespace();
    const before = namespace.table();
    const result = hostctl(['image', 'mount', ...args(scratchDir()), '--repo', repo], namespace.prefix);
    expect(result).toEqual({ exitCode, stdout: '', stderr: expect.stringMatching(message) as string });
    expect(result.stderr.split('\n').length).toBeLessThanOrEqual(4);
    expect(namespace.table()).toEqual(before);
  });

  test.each<[string, (image: Buffer) => Buffer]>([
    ['a byte changed', (image) => (image.fill(image[2000]! ^ 1, 2000, 2001), image)],
    ['its end missing', (image) => image.subarray(0, image.length - 4096)],
    ['no byte', () => Buffer.alloc(0)],
  ])('an image with %s', async (_, damage) => {
    const namespace = await mountNamespace();
    const own = `${scratchDir()}/repo`;
    pull(own);
    const object = `${own}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    const damaged = damage(readFileSync(object));
    rmSync(object);
    writeFileSync(object, damaged);
    const before = namespace.table();
    const args = ['image', 'mount', digest, scratchDir(), '--repo', own, '--verity', 'off'];
    expect(hostctl(args, namespace.prefix)).toEqual({
      exitCode: 3,
      stdout: '',
      stderr: expect.stringMatching(
        /^hostctl: The image [0-9a-f]{128} has the digest [0-9a-f]{128} instead\n$/,
      ) as string,
    });
    expect(namespace.table()).toEqual(before);
  });

  test.each([
    ['a directory where nothing is mounted', () => scratchDir()],
    ['what is mounted but no image', () => '/proc'],
  ])('to unmount %s', (_, directory) => {
    const result = hostctl(['image', 'umount', directory()]);
    expect(result).toEqual({
      exitCode: 2,
      stdout: '',
      stderr: expect.stringMatching(/^hostctl: "[^"]+" is not a mounted image\n$/) as string,
    });
  });
});

test('mounting over and over, also when it is killed, leaves all of the mount or nothing, and shows no EROFS', async () => {
  const { killed, finished, seen } = await runMountCycles({ count: 8, repo, digest, checkTree: expectTree });
  expect({ killed: killed > 0, finished: finished >= 4 }).toEqual({ killed: true, finished: true });
  expect(seen.asked).toBeGreaterThan(5);
  expect(seen.lines.filter((line) => line.includes('erofs'))).toEqual([]);
  const object = `${repo}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
  await expect.poll(() => loopsOf(object), { timeout: 10_000 }).toEqual([]);
});
