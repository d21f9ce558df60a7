import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from 'vitest';
import { fsck, isDamaged, type FsckOptions, type FsckResult } from '../../src/ops/fsck.ts';
import { gc } from '../../src/ops/gc.ts';
import { setPinned } from '../../src/ops/pin.ts';
import { withRepositoryLock } from '../../src/store/repository.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarFile } from '../helpers/tar-builder.ts';

const OWN_FILE = 4000;

/** Two good deployments; the kernel is the same unless `kernels` says otherwise. */
async function twoDeployments(
  ownKernels = false,
): Promise<{ sysroot: ScratchSysroot; digests: string[]; layouts: string[] }> {
  const sysroot = scratchSysroot();
  const digests: string[] = [];
  const layouts: string[] = [];
  for (const id of [1, 2]) {
    const more = [tarFile('usr/bin/version', Buffer.alloc(OWN_FILE, `version ${id}`))];
    if (ownKernels) more.push(tarFile('usr/lib/modules/6.12.0/vmlinuz', Buffer.alloc(5000, `kernel ${id}`)));
    const { reference, directory } = bootableLayout({ version: String(id), more });
    digests.push((await sysroot.deploy(reference)).digest);
    layouts.push(directory);
    bless(sysroot, id);
  }
  await gc(sysroot.host, { sysroot: sysroot.path, keep: 3, dryRun: false });
  return { sysroot, digests, layouts };
}

function check({ host, path }: ScratchSysroot, options: Partial<FsckOptions> = {}): Promise<FsckResult> {
  return fsck(host, { sysroot: path, deep: false, repair: false, ...options });
}

function codes({ findings }: FsckResult): string[] {
  return findings.map(({ code, repaired }) => `${code}${repaired ? ' repaired' : ''}`);
}

function objectPath(sysroot: ScratchSysroot, digest: string): string {
  return `${sysroot.path}/composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
}

/** Digest of the object with exactly these bytes. */
function objectWith(sysroot: ScratchSysroot, content: Buffer): string {
  const objects = `${sysroot.path}/composefs/objects`;
  for (const name of readdirSync(objects, { recursive: true, encoding: 'utf8' })) {
    const path = `${objects}/${name}`;
    if (statSync(path).isFile() && readFileSync(path).equals(content)) return name.replace('/', '');
  }
  throw new Error('no such object');
}

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

function contents(sysroot: ScratchSysroot): Record<string, string> {
  const isTold = ([name]: [string, string]): boolean => !/^state\/hostctl\/(lock-holder$|history\/)/.test(name);
  return Object.fromEntries(Object.entries(snapshot(sysroot.path)).filter(isTold));
}

const own = (sysroot: ScratchSysroot): string => objectWith(sysroot, Buffer.alloc(OWN_FILE, 'version 2'));

describe('fsck', () => {
  test('of a whole host finds nothing, changes nothing, and says what each deployment takes', async () => {
    const { sysroot, digests } = await twoDeployments();
    const before = contents(sysroot);
    const result = await check(sysroot, { deep: true });
    expect(result).toMatchObject({ findings: [], failures: [], deep: true });
    // Its own file and the image itself; kernel, initrd and the programs are shared.
    expect(result.usage).toEqual(
      [digests[1], digests[0]].map((digest, at) => ({
        id: 2 - at,
        uniqueBytes: OWN_FILE + statSync(objectPath(sysroot, digest ?? '')).size,
        sharedBytes: expect.any(Number) as number,
      })),
    );
    // At least these, and the other one's file is not among them.
    expect(result.usage[0]?.sharedBytes).toBe(result.usage[1]?.sharedBytes);
    expect(result.usage[0]?.sharedBytes).toBeGreaterThan(5000 + 9000 + 3000);
    expect(contents(sysroot)).toEqual(before);
  });

  test.each<[string, string[], number[], (sysroot: ScratchSysroot, digest: string) => unknown]>([
    ['an object that is gone', ['object-missing'], [2], (sysroot) => rmSync(objectPath(sysroot, own(sysroot)))],
    [
      'an object that was cut',
      ['object-corrupt'],
      [2],
      (sysroot) => writeFileSync(objectPath(sysroot, own(sysroot)), 'cut'),
    ],
    ['a flipped bit in an object', ['object-corrupt'], [2], (sysroot) => flip(objectPath(sysroot, own(sysroot)))],
    ['a flipped bit in an image', ['image-corrupt'], [2], (sysroot, digest) => flip(objectPath(sysroot, digest))],
    [
      'a lost image link',
      ['image-missing'],
      [2],
      (sysroot, digest) => rmSync(`${sysroot.path}/composefs/images/${digest}`),
    ],
    [
      'an image link that leads elsewhere',
      ['image-corrupt'],
      [2],
      (sysroot, digest) => {
        rmSync(`${sysroot.path}/composefs/images/${digest}`);
        symlinkSync(`../objects/00/${'0'.repeat(126)}`, `${sysroot.path}/composefs/images/${digest}`);
      },
    ],
    ['a lost ref', ['ref-missing'], [2], (sysroot) => rmSync(`${sysroot.path}/composefs/images/refs/hostctl/2`)],
    [
      'a flipped bit in a kernel that both deployments use',
      ['kernel-corrupt'],
      [2, 1],
      (sysroot) => flip(sysroot.path + (sysroot.status().deployments[0]?.entry?.linux ?? '')),
    ],
    [
      'a lost kernel directory',
      ['kernel-corrupt'],
      [2, 1],
      (sysroot) => rmSync(`${sysroot.path}/boot/hostctl`, { recursive: true }),
    ],
    [
      'a damaged object that nothing names',
      ['object-corrupt'],
      [],
      (sysroot) => {
        mkdirSync(`${sysroot.path}/composefs/objects/00`, { recursive: true });
        writeFileSync(objectPath(sysroot, '0'.repeat(128)), 'no object');
      },
    ],
  ])('finds and repairs %s', async (_, found, users, damage) => {
    const { sysroot, digests } = await twoDeployments();
    const whole = contents(sysroot);
    const next = sysroot.status();
    damage(sysroot, digests[1] ?? '');
    const damaged = contents(sysroot);
    const result = await check(sysroot, { deep: true });
    const known = result.findings.filter(({ code }) => found.includes(code));
    expect(known.map(({ code }) => code)).toEqual(found);
    expect(known[0]?.deployments).toEqual(users);
    expect(isDamaged(result)).toBe(true);
    expect(contents(sysroot)).toEqual(damaged);
    const repair = await check(sysroot, { deep: true, repair: true });
    expect(repair.failures).toEqual([]);
    expect(repair.findings.every(({ repaired }) => repaired)).toBe(true);
    expect(codes(repair)).toEqual(expect.arrayContaining(found.map((code) => `${code} repaired`)));
    expect(codes(await check(sysroot, { deep: true }))).toEqual([]);
    const after = sysroot.status();
    expect(after.deployments.map(({ id, state, problems }) => ({ id, state, problems }))).toEqual(
      next.deployments.map(({ id, state }) => ({ id, state, problems: [] })),
    );
    expect(after).toMatchObject({ next: next.next, rollback: next.rollback });
    await gc(sysroot.host, { sysroot: sysroot.path, keep: 3, dryRun: false });
    // But for new names of kernels and entries, everything is as it was.
    const lasting = (all: Record<string, string>): Record<string, string> =>
      Object.fromEntries(Object.entries(all).filter(([name]) => !/^boot\//.test(name)));
    expect(lasting(contents(sysroot))).toEqual(lasting(whole));
  });

  test.each<[string, string, (sysroot: ScratchSysroot, digest: string) => void]>([
    ['an entry', 'entry-altered', ({ path }) => flip(`${path}/boot/loader/entries/hostctl-00000002.conf`)],
    [
      "another entry's text in an entry",
      'entry-altered',
      ({ path }) => {
        const entry = (id: number): string => `${path}/boot/loader/entries/hostctl-0000000${id}.conf`;
        writeFileSync(entry(2), readFileSync(entry(1)));
      },
    ],
    [
      'an origin',
      'origin-altered',
      ({ path }, digest) => {
        const file = `${path}/state/deploy/${digest}/${digest}.origin`;
        writeFileSync(file, readFileSync(file, 'utf8').replace('title = ', 'title = x'));
      },
    ],
    [
      'a record',
      'record-altered',
      ({ path }) => {
        const file = `${path}/state/hostctl/history/00000002`;
        writeFileSync(file, readFileSync(file, 'utf8').replace('action = deploy', 'action = deplox'));
      },
    ],
    [
      'the record of an image',
      'record-altered',
      ({ path }, digest) => {
        const file = `${path}/composefs/hostctl/${digest}`;
        writeFileSync(file, readFileSync(file, 'utf8').replace('bootable = true', 'bootable = false'));
      },
    ],
    [
      'a description of the repository that is gone',
      'description-missing',
      ({ path }) => rmSync(`${path}/composefs/meta.json`),
    ],
    [
      'a description of the repository that is cut',
      'repository-unreadable',
      ({ path }) => truncateSync(`${path}/composefs/meta.json`, 40),
    ],
  ])('finds %s that says something else, and invents nothing', async (_, code, damage) => {
    const { sysroot, digests } = await twoDeployments();
    damage(sysroot, digests[1] ?? '');
    const damaged = contents(sysroot);
    const found = await check(sysroot);
    expect(codes(found)).toContain(code);
    expect(isDamaged(found)).toBe(true);
    const repair = await check(sysroot, { repair: true });
    expect(codes(repair)).toContain(code);
    expect(isDamaged(repair)).toBe(true);
    expect(contents(sysroot)).toEqual(damaged);
  });

  test('notes what it does not know in the description of the repository', async () => {
    const { sysroot } = await twoDeployments();
    const file = `${sysroot.path}/composefs/meta.json`;
    writeFileSync(file, readFileSync(file, 'utf8').replace('"version": 1', '"version": 1, "later": true'));
    const found = await check(sysroot);
    expect(codes(found)).toEqual(['description-unknown']);
    expect(isDamaged(found)).toBe(false);
  });

  test.each([
    ['a flipped bit', (record: string) => flip(record)],
    ['another file', (record: string) => writeFileSync(record, 'another')],
    ['a directory', (record: string) => (rmSync(record), mkdirSync(record))],
  ])('finds %s where a record of a layer was, and takes it away', async (_, damage) => {
    const { sysroot } = await twoDeployments();
    const layers = `${sysroot.path}/composefs/hostctl/layers`;
    const [damaged = '', ...whole] = readdirSync(layers).map((name) => `${layers}/${name}`);
    damage(damaged);
    expect(codes(await check(sysroot))).toEqual([]);
    const found = await check(sysroot, { deep: true });
    expect(found.findings.map(({ code, object }) => [code, object])).toEqual([['layer-record-altered', damaged]]);
    expect(isDamaged(found)).toBe(true);
    expect(codes(await check(sysroot, { deep: true, repair: true }))).toEqual(['layer-record-altered repaired']);
    expect(readdirSync(layers).map((name) => `${layers}/${name}`)).toEqual(whole);
    expect(codes(await check(sysroot, { deep: true }))).toEqual([]);
  });

  test('without --deep sees what is missing or cut, not a flipped bit in an object', async () => {
    const { sysroot } = await twoDeployments();
    flip(objectPath(sysroot, own(sysroot)));
    expect(codes(await check(sysroot))).toEqual([]);
    writeFileSync(objectPath(sysroot, own2(sysroot)), 'cut');
    expect(codes(await check(sysroot))).toEqual(['object-corrupt']);
  });

  test('replaces a damaged object by a new file, so that a mounted image keeps the old one', async () => {
    const { sysroot } = await twoDeployments();
    const path = objectPath(sysroot, own(sysroot));
    flip(path);
    const { ino } = statSync(path);
    await check(sysroot, { deep: true, repair: true });
    expect(statSync(path).ino).not.toBe(ino);
  });

  test.each<[string, RegExp, (layout: string) => unknown]>([
    ['the image is gone from where it came from', /Cannot use/, (layout) => rmSync(layout, { recursive: true })],
    [
      'its reference leads to another image',
      /now leads to sha256:/,
      (layout) => {
        rmSync(layout, { recursive: true });
        bootableLayout({ version: '7', directory: layout });
      },
    ],
  ])('says what it cannot repair when %s, and changes no more', async (_, why, spoil) => {
    const { sysroot, layouts } = await twoDeployments();
    rmSync(objectPath(sysroot, own(sysroot)));
    spoil(layouts[1] ?? '');
    const before = contents(sysroot);
    const result = await check(sysroot, { repair: true });
    expect(codes(result)).toEqual(['object-missing']);
    expect(result.failures).toEqual([expect.stringMatching(why) as string]);
    expect(isDamaged(result)).toBe(true);
    expect(contents(sysroot)).toEqual(before);
  });

  /** The host, that does something when what was repaired is durable. */
  const atBarrier = ({ host }: ScratchSysroot, step: () => void): ScratchSysroot['host'] => ({
    ...host,
    syscalls: {
      ...host.syscalls,
      syncfs: (fd, path) => {
        host.syscalls.syncfs(fd, path);
        step();
      },
    },
  });

  test('that is stopped after a repair keeps it, and says so', async () => {
    const { sysroot } = await twoDeployments();
    flip(objectPath(sysroot, own(sysroot)));
    const stop = new AbortController();
    const host = { ...atBarrier(sysroot, () => stop.abort()), signal: stop.signal };
    await expect(check({ ...sysroot, host }, { deep: true, repair: true })).rejects.toMatchObject({
      code: 'interrupted',
      message: 'Stopped; what was repaired so far stays so, and the next run goes on',
    });
    expect(codes(await check(sysroot, { deep: true }))).toEqual([]);
  });

  test('that fails after a repair keeps it, and says so', async () => {
    const { sysroot } = await twoDeployments();
    flip(objectPath(sysroot, own(sysroot)));
    const entries = `${sysroot.path}/boot/loader/entries`;
    const host = atBarrier(sysroot, () => {
      renameSync(entries, `${entries}-away`);
      writeFileSync(entries, '');
    });
    await expect(check({ ...sysroot, host }, { deep: true, repair: true })).rejects.toThrow('ENOTDIR');
    rmSync(entries);
    renameSync(`${entries}-away`, entries);
    expect(host.warnings.at(-1)).toMatch(/what was repaired so far stays so/);
    expect(codes(await check(sysroot, { deep: true }))).toEqual([]);
  });

  test('repairs a kernel under a new name and keeps the order of the menu', async () => {
    const { sysroot } = await twoDeployments(true);
    const first = sysroot.status().deployments[1]?.entry?.linux ?? '';
    flip(sysroot.path + first);
    const result = await check(sysroot, { repair: true });
    expect(codes(result)).toEqual(['kernel-corrupt repaired']);
    const { deployments, next, rollback } = sysroot.status();
    expect({ next, rollback }).toEqual({ next: 2, rollback: 1 });
    expect(deployments.map(({ entry }) => entry?.file)).toEqual(['hostctl-00000004.conf', 'hostctl-00000003.conf']);
    expect(deployments[1]?.entry?.linux).toBe(first.replace('/linux', '-1/linux'));
    // The damaged one is nobody's any more.
    await gc(sysroot.host, { sysroot: sysroot.path, keep: 3, dryRun: false });
    expect(existsSync(sysroot.path + first)).toBe(false);
    expect(codes(await check(sysroot))).toEqual([]);
  });

  test('tells what a killed command left from damage', async () => {
    const { sysroot, digests } = await twoDeployments();
    rmSync(`${sysroot.path}/boot/loader/entries/hostctl-00000001.conf`);
    const result = await check(sysroot);
    expect(codes(result)).toEqual(['entry-missing']);
    expect(isDamaged(result)).toBe(false);
    // One that could take back the image only.
    rmSync(`${sysroot.path}/composefs/images/${String(digests[0])}`);
    rmSync(`${sysroot.path}/composefs/images/refs/hostctl/1`);
    const without = await check(sysroot);
    expect(codes(without)).toEqual(['image-missing', 'entry-missing']);
    expect(isDamaged(without)).toBe(false);
    // What somebody wants to keep no command left.
    await setPinned(sysroot.host, { sysroot: sysroot.path, id: '1', pinned: true });
    const pinned = await check(sysroot);
    expect(codes(pinned)).toEqual(codes(without));
    expect(isDamaged(pinned)).toBe(true);
  });

  test('does not wait for a command that holds the lock, and says so', async () => {
    const { sysroot } = await twoDeployments();
    const result = await withRepositoryLock(sysroot.host, `${sysroot.path}/composefs`, 'exclusive', () =>
      check(sysroot),
    );
    expect(result.findings).toEqual([]);
    expect(sysroot.host.warnings.at(-1)).toMatch(/Another command changes the repository/);
  });
});

/** The object of version 1 of the same file. */
function own2(sysroot: ScratchSysroot): string {
  return objectWith(sysroot, Buffer.alloc(OWN_FILE, 'version 1'));
}

test('the program ends with 9 while something is corrupt, and gc with 0 once it is not', async () => {
  const { sysroot } = await twoDeployments();
  rmSync(objectPath(sysroot, own(sysroot)));
  const run = (...args: string[]) => hostctl(['--sysroot', sysroot.path, ...args]);
  const found = run('fsck', '--json');
  expect(found.exitCode).toBe(9);
  expect((JSON.parse(found.stdout) as FsckResult).findings).toMatchObject([
    { code: 'object-missing', deployments: [2] },
  ]);
  expect(run('fsck', '--repair')).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/^Repaired: /) as string,
  });
  expect(run('fsck', '--deep').exitCode).toBe(0);
  expect(run('gc')).toMatchObject({ exitCode: 0, stdout: 'Nothing to remove\n' });
  expect(run('delete', '2')).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/^Dropped deployment 2\n/) as string,
  });
});
