/** Objects that threads read are found to be what they are without threads, and what a thread throws is told. */

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { expect, test } from 'vitest';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import type * as Check from '../../src/store/check.ts';
import { lookAtObject } from '../../src/store/check-object.ts';
import { checkRepository, type ObjectFinding } from '../../src/store/check.ts';
import { objectFile, requireRepository, type Repository } from '../../src/store/repository.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';
import { makeFifo } from '../helpers/special-file.ts';
import { tarFile } from '../helpers/tar-builder.ts';
import { testHost, type TestHost } from '../helpers/test-host.ts';

// Threads run the built program, so what starts them is the built one too.
const built = (await import(new URL('../../dist/store/check.js', import.meta.url).href)) as typeof Check;

const LARGE = 12 << 20;
const contents = (kind: string, count: number, size: number): Buffer[] =>
  Array.from({ length: count }, (_, i) => Buffer.alloc(size - i, `${kind} ${i} `));
const small = contents('small', 8, 5000);
// More than is read without threads.
const large = contents('large', 4, LARGE);

interface Stored {
  readonly repository: Repository;
  readonly sysroot: string;
  readonly findings: (threads: number, host?: TestHost) => Promise<readonly ObjectFinding[]>;
  readonly objectWith: (content: Buffer) => string;
}

/** A repository with one image of all the contents. */
async function stored(): Promise<Stored> {
  const sysroot = scratchSysroot();
  const files = [...small, ...large].map((bytes, i) => tarFile(`usr/lib/file-${i}`, bytes));
  await sysroot.deploy(bootableLayout({ more: files }).reference);
  const repository = requireRepository(sysroot.host, `${sysroot.path}/composefs`);
  return {
    repository,
    sysroot: sysroot.path,
    findings: async (threads, by = testHost({ threads })) => {
      const check = threads === 0 ? checkRepository : built.checkRepository;
      return (await check(by, repository, true)).findings;
    },
    objectWith: (content) => objectFile(repository, fsverityDigest('sha512', content)),
  };
}

/** What nobody needs, under a name of so many digits. */
function strayObject({ repository }: Stored, digits = 128): string {
  const path = objectFile(repository, '0'.repeat(digits));
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, 'stray');
  return path;
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at]! ^= 1;
  writeFileSync(path, bytes);
}

function replace(path: string, make: (path: string) => void): void {
  rmSync(path);
  make(path);
}

test('threads find nothing where nothing is wrong', async () => {
  const { findings } = await stored();
  for (const threads of [0, 1, 2, 4]) expect(await findings(threads)).toEqual([]);
});

test('threads find what is found without them, in the same order and words', async () => {
  const place = await stored();
  const { objectWith, findings } = place;
  const [first, second, third, fourth, fifth, sixth, seventh, eighth] = small.map(objectWith) as [
    ...[string, string, string, string],
    ...[string, string, string, string],
  ];
  const [whole, last, cut] = large.map(objectWith) as [string, string, string];
  const strays = [strayObject(place), strayObject(place, 64)];
  flip(whole, LARGE >> 1);
  flip(last, LARGE - 2);
  truncateSync(cut, LARGE - 4096);
  flip(first, 0);
  truncateSync(second, 0);
  replace(third, makeFifo);
  replace(fourth, (path) => symlinkSync(eighth, path));
  replace(fifth, (path) => mkdirSync(path));
  rmSync(sixth);
  flip(seventh, 4990);
  const said: Readonly<Record<string, string>> = {
    [whole]: 'is damaged: its content is another',
    [last]: 'is damaged: its content is another',
    [cut]: `is damaged: it has ${LARGE - 4096} bytes, not ${LARGE - 2}`,
    [first]: 'is damaged: its content is another',
    [second]: 'is damaged: it has 0 bytes, not 4999',
    [third]: 'is damaged: it is not a regular file',
    [fourth]: `is damaged: ELOOP: too many symbolic links encountered, open '${fourth}'`,
    [fifth]: 'is damaged: it is not a regular file',
    [sixth]: 'is missing',
    [seventh]: 'is damaged: its content is another',
    ...Object.fromEntries(strays.map((path) => [path, 'is damaged: its content is another'])),
  };
  const expected = await findings(0);
  expect(
    Object.fromEntries(expected.map(({ digest, message }) => [objectFile(place.repository, digest), message])),
  ).toEqual(
    Object.fromEntries(Object.entries(said).map(([path, how]) => [path, `The object ${digestOf(path)} ${how}`])),
  );
  for (const threads of [1, 2, 4]) expect(await findings(threads)).toEqual(expected);
});

function digestOf(path: string): string {
  return basename(dirname(path)) + basename(path);
}

test('where the file system has fs-verity, threads ask the kernel', async () => {
  const { repository } = await stored();
  const { findings } = await built.checkRepository(testHost({ threads: 2 }), { ...repository, hasVerity: true }, true);
  expect(findings.length).toBeGreaterThan(small.length + large.length);
  expect(new Set(findings.map(({ code }) => code))).toEqual(new Set(['object-unprotected']));
});

/** A file of the kernel in the place of an object. */
async function withFile(file: string, path: string, body: () => Promise<void>): Promise<void> {
  execFileSync('mount', ['--bind', file, path]);
  try {
    await body();
  } finally {
    execFileSync('umount', [path]);
  }
}

test('what the disk cannot give is damaged', async () => {
  const place = await stored();
  const path = strayObject(place);
  // A regular file that reads as EIO: nothing is mapped at its start.
  await withFile(`/proc/${process.pid}/mem`, path, async () => {
    const expected = await place.findings(0);
    expect(expected).toMatchObject([{ message: `The object ${digestOf(path)} is damaged: it cannot be read` }]);
    expect(await place.findings(2)).toEqual(expected);
  });
});

test('what a thread throws ends the run, and reaches whoever started it', async () => {
  const place = await stored();
  // A regular file that has no read.
  await withFile(`/proc/${process.pid}/clear_refs`, strayObject(place), async () => {
    const expected = { code: 'EINVAL', syscall: 'read' };
    await expect(place.findings(0)).rejects.toMatchObject(expected);
    await expect(place.findings(2)).rejects.toMatchObject(expected);
    const { exitCode, stderr } = hostctl(['--sysroot', place.sysroot, 'fsck', '--deep']);
    expect([exitCode, stderr]).toEqual([7, expect.stringContaining('EINVAL')]);
  });
});

test('a process without descriptors says nothing about an object', async () => {
  const { repository, objectWith } = await stored();
  const own = ['--pid', `${process.pid}`];
  const before = execFileSync('prlimit', [...own, '--nofile', '--output=SOFT', '--noheadings'], { encoding: 'utf8' });
  const look = (): unknown => lookAtObject(repository, digestOf(objectWith(small[0]!)), true, undefined);
  const held: number[] = [];
  execFileSync('prlimit', [...own, `--nofile=${readdirSync('/proc/self/fd').length + 100}:`]);
  try {
    expect(() => {
      for (;;) held.push(openSync('/dev/null', 'r'));
    }).toThrow('EMFILE');
    expect(look).toThrow('EMFILE');
  } finally {
    held.forEach((fd) => closeSync(fd));
    execFileSync('prlimit', [...own, `--nofile=${before.trim()}:`]);
  }
  expect(look()).toEqual({ sizeBytes: small[0]!.length, problem: undefined });
});

test('an interrupt ends what threads read, however long that would take', { timeout: 60_000 }, async () => {
  const place = await stored();
  // All of it is a hole; reading it takes a quarter of an hour.
  truncateSync(strayObject(place), 2 ** 40);
  const host = testHost({ threads: 2 });
  const found = place.findings(2, host);
  setTimeout(() => host.abort(), 500);
  await expect(found).rejects.toMatchObject({ code: 'interrupted', message: 'Stopped checking' });
});

test('the program finds a flipped bit by its threads', async () => {
  const { sysroot, objectWith } = await stored();
  const path = objectWith(large[3]!);
  flip(path, LARGE - 10);
  const { exitCode, stdout } = hostctl(['--sysroot', sysroot, 'fsck', '--deep', '--json']);
  expect(exitCode).toBe(9);
  expect(JSON.parse(stdout)).toMatchObject({ findings: [{ code: 'object-corrupt', object: digestOf(path) }] });
});
