import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, test } from 'vitest';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { deleteDeployment } from '../../src/ops/delete-deployment.ts';
import { gc, pruneDeployments, type GcOptions, type GcResult } from '../../src/ops/gc.ts';
import { setPinned } from '../../src/ops/pin.ts';
import { pullImage } from '../../src/ops/pull-image.ts';
import { rollback } from '../../src/ops/rollback.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarFile } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';

/** An image with a kernel and a file of its own. */
function image(version: number): string {
  const more = [
    tarFile('usr/lib/modules/6.12.0/vmlinuz', Buffer.alloc(5000, `kernel ${version}`)),
    tarFile('usr/bin/version', Buffer.alloc(4000, `version ${version}`)),
  ];
  return bootableLayout({ version: String(version), more }).reference;
}

/** A sysroot with deployments 1 to `count`, all good. */
async function sysrootWith(count: number): Promise<{ sysroot: ScratchSysroot; digests: string[] }> {
  const sysroot = scratchSysroot();
  const digests: string[] = [];
  for (let id = 1; id <= count; id += 1) {
    digests.push((await sysroot.deploy(image(id))).digest);
    bless(sysroot, id);
  }
  // Of the kernel that the last layer replaces, each deploy leaves an object that no image names.
  await collect(sysroot, { keep: count + 1 });
  return { sysroot, digests };
}

function collect(sysroot: ScratchSysroot, options: Partial<GcOptions> = {}, host = sysroot.host): Promise<GcResult> {
  return gc(host, { sysroot: sysroot.path, keep: 3, dryRun: false, ...options });
}

/** Everything but what only a message needs. */
function contents(sysroot: ScratchSysroot): Record<string, string> {
  const isTold = ([name]: [string, string]): boolean => !/^state\/hostctl\/(lock-holder$|history\/)/.test(name);
  return Object.fromEntries(Object.entries(snapshot(sysroot.path)).filter(isTold));
}

function ids(sysroot: ScratchSysroot): (number | null)[] {
  return sysroot.status().deployments.map(({ id }) => id);
}

describe('gc', () => {
  test('drops the oldest deployment beyond the policy with all it had, and shows the same beforehand', async () => {
    const { sysroot, digests } = await sysrootWith(3);
    const three = contents(sysroot);
    await sysroot.deploy(image(4));
    bless(sysroot, 4);
    const before = contents(sysroot);
    const plan = await collect(sysroot, { dryRun: true });
    expect(contents(sysroot)).toEqual(before);
    const result = await collect(sysroot);
    expect(result).toEqual({ ...plan, dryRun: false });
    expect(result.deployments).toEqual([1]);
    expect(ids(sysroot)).toEqual([4, 3, 2]);
    const after = contents(sysroot);
    const gone = Object.keys(before).filter((name) => !(name in after));
    expect(result.items.map(({ path }) => path.slice(sysroot.path.length + 1)).sort()).toEqual(
      gone.filter((name) => !/^(state\/deploy|boot\/hostctl)\/[^/]+\/./.test(name)),
    );
    expect(gone.filter((name) => name.includes(digests[0] ?? '?'))).not.toEqual([]);
    // What the first and the others share is still there.
    expect(Object.keys(three).filter((name) => name in after).length).toBeGreaterThan(50);
    expect(await collect(sysroot)).toMatchObject({ items: [], deployments: [] });
  });

  test('counts what it frees by file system as the file system does', async () => {
    const { sysroot } = await sysrootWith(4);
    const used = (): number =>
      Number(execFileSync('du', ['-s', '-B1', sysroot.path], { encoding: 'utf8' }).split('\t')[0]);
    const before = used();
    const { freed } = await collect(sysroot);
    expect(freed).toEqual([{ fileSystem: `${sysroot.path}/boot`, bytes: expect.any(Number) as number }]);
    // Directories of objects that became empty are not in the sum.
    const emptied = before - used() - (freed[0]?.bytes ?? 0);
    expect(emptied).toBeGreaterThanOrEqual(0);
    expect(emptied % 4096).toBe(0);
  });

  test.each<[string, (sysroot: ScratchSysroot, digest: string) => unknown]>([
    ['a pin', (sysroot) => setPinned(sysroot.host, { sysroot: sysroot.path, id: '1', pinned: true })],
    [
      'a foreign entry that names it',
      (sysroot, digest) =>
        writeFileSync(
          `${sysroot.path}/boot/loader/entries/other.conf`,
          `title Other\nsort-key zzz\nlinux /other/linux\noptions composefs=${digest}\n`,
        ),
    ],
    ['a rollback to it', (sysroot) => rollback(sysroot.host, { sysroot: sysroot.path, to: '1' })],
  ])('keeps a deployment for %s', async (_, keepIt) => {
    const { sysroot, digests } = await sysrootWith(4);
    await keepIt(sysroot, digests[0] ?? '');
    await collect(sysroot);
    expect(ids(sysroot)).toContain(1);
    expect(existsSync(`${sysroot.path}/composefs/images/${digests[0] ?? ''}`)).toBe(true);
    expect(sysroot.status().deployments.flatMap(({ problems }) => problems)).toEqual([]);
  });

  test('keeps an image for a mount of it, and one that has a name', async () => {
    const { sysroot, digests } = await sysrootWith(4);
    const { digest } = await pullImage(sysroot.host, { sysroot: sysroot.path, image: image(9), algorithm: undefined });
    const { mounts } = sysroot.host;
    const [of] = mounts.table();
    const mounted = { ...of!, mountPoint: '/mnt', type: 'overlay', source: `composefs:${digests[0] ?? ''}` };
    const host = testHost({ mounts: { ...mounts, everywhere: () => [...mounts.everywhere(), mounted] } });
    await collect(sysroot, {}, host);
    expect(ids(sysroot)).toEqual([4, 3, 2]);
    const images = (): string[] => readdirSync(`${sysroot.path}/composefs/images`).filter((name) => name !== 'refs');
    expect(images().sort()).toEqual([...digests, digest].sort());
    await collect(sysroot);
    expect(images().sort()).toEqual([...digests.slice(1), digest].sort());
  });

  test('keeps all of what is staged, and removes what a staged record names no more', async () => {
    const { sysroot } = await sysrootWith(2);
    const before = contents(sysroot);
    const staged = await sysroot.deploy(image(3), { stage: true });
    await collect(sysroot, { keep: 2 });
    expect(sysroot.status().deployments[0]).toMatchObject({ id: 3, state: 'staged', problems: [] });
    expect(existsSync(`${sysroot.path}/composefs/images/${staged.digest}`)).toBe(true);
    rmSync(`${sysroot.path}/state/hostctl/staged`);
    expect((await collect(sysroot)).deployments).toEqual([3]);
    expect(contents(sysroot)).toEqual(before);
  });

  test('removes nothing of what may be staged while the record cannot be read', async () => {
    const { sysroot } = await sysrootWith(1);
    await sysroot.deploy(image(2), { stage: true });
    writeFileSync(`${sysroot.path}/state/hostctl/staged`, 'garbled');
    const before = contents(sysroot);
    const result = await collect(sysroot);
    expect(result.notes.map(({ code }) => code)).toContain('staged-unreadable');
    expect(result.items.filter(({ kind }) => kind !== 'object' && kind !== 'object-directory')).toEqual([]);
    expect(contents(sysroot)).toMatchObject(
      Object.fromEntries(Object.entries(before).filter(([name]) => !name.startsWith('composefs/objects/'))),
    );
  });

  test('keeps what runs: the deployment, and its image where nothing else tells of it', async () => {
    const { sysroot, digests } = await sysrootWith(4);
    const [first = ''] = digests;
    const host = testHost({ kernelCmdline: () => `quiet composefs.digest=?v1-sha512-12:${first}` });
    const running = { ...openSysroot(host, { sysroot: sysroot.path }), isRunning: true };
    const run = () => pruneDeployments(host, running, { keep: 2 });
    expect(await run()).toMatchObject({ deployments: [2] });
    expect(ids(sysroot)).toEqual([4, 3, 1]);
    rmSync(`${sysroot.path}/boot/loader/entries/hostctl-00000001.conf`);
    rmSync(`${sysroot.path}/state/deploy/${first}`, { recursive: true });
    await run();
    expect(existsSync(`${sysroot.path}/composefs/images/${first}`)).toBe(true);
    await collect(sysroot);
    expect(existsSync(`${sysroot.path}/composefs/images/${first}`)).toBe(false);
  });

  test('returns disk use to what it was after a command that was killed', async () => {
    const { sysroot } = await sysrootWith(2);
    const before = contents(sysroot);
    const { digest } = await sysroot.deploy(image(3));
    // Killed before the last rename, with temporary files of every place.
    const entries = `${sysroot.path}/boot/loader/entries`;
    renameSync(`${entries}/hostctl-00000003+3-0.conf`, `${entries}/hostctl-00000003+3-0.conf.tmp`);
    const random = '.0123456789abcdef.tmp';
    mkdirSync(`${sysroot.path}/boot/hostctl/.half${random}`);
    writeFileSync(`${sysroot.path}/boot/hostctl/.half${random}/linux`, 'half');
    mkdirSync(`${sysroot.path}/state/deploy/.half${random}/etc`, { recursive: true });
    mkdirSync(`${sysroot.path}/state/os/default/.var${random}`);
    writeFileSync(`${sysroot.path}/state/hostctl/.staged${random}`, 'half');
    writeFileSync(`${sysroot.path}/state/hostctl/pinned-77`, '');
    symlinkSync('nowhere', `${sysroot.path}/composefs/images/.link${random}`);
    symlinkSync('nowhere', `${sysroot.path}/composefs/images/refs/hostctl/.link${random}`);
    writeFileSync(`${sysroot.path}/composefs/hostctl/.record${random}`, 'half');
    writeFileSync(`${sysroot.path}/composefs/.dirty.0123456789abcdef`, '');
    const result = await collect(sysroot);
    expect(result.deployments).toEqual([3]);
    expect(result.items.map(({ name }) => name)).toContain(digest);
    expect(contents(sysroot)).toEqual(before);
  });

  test('removes entries that a later good one of the same deployment makes superfluous', async () => {
    const { sysroot } = await sysrootWith(2);
    await rollback(sysroot.host, { sysroot: sysroot.path });
    await rollback(sysroot.host, { sysroot: sysroot.path });
    expect(sysroot.entries()).toHaveLength(4);
    const { next, rollback: back } = sysroot.status();
    const result = await collect(sysroot);
    expect(result).toMatchObject({ deployments: [], items: [{ kind: 'entry' }, { kind: 'entry' }] });
    expect(sysroot.entries()).toEqual(['hostctl-00000003.conf', 'hostctl-00000004.conf']);
    expect(sysroot.status()).toMatchObject({ next, rollback: back });
  });

  test.each<[string, string, RegExp, (path: string, digest: string) => unknown]>([
    [
      'an image that cannot be read',
      'corrupt',
      /its object is missing/,
      (path, digest) => rmSync(`${path}/composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`),
    ],
    [
      'an image whose bytes are others',
      'corrupt',
      /its content is another/,
      (path, digest) => writeFileSync(`${path}/composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`, 'other'),
    ],
    [
      'an image that is gone',
      'corrupt',
      /that deployment 4 needs is not in/,
      (path, digest) => rmSync(`${path}/composefs/images/${digest}`),
    ],
    [
      'refs that are gone',
      'state-invalid',
      /has lost its directory "images\/refs"/,
      (path) => rmSync(`${path}/composefs/images/refs`, { recursive: true }),
    ],
    [
      'a boot partition that is not mounted',
      'state-invalid',
      /None of the boot entries/,
      (path) => {
        rmSync(`${path}/boot`, { recursive: true });
        mkdirSync(`${path}/boot`);
      },
    ],
    [
      'a repository that is gone',
      'corrupt',
      /There is no repository/,
      (path) => rmSync(`${path}/composefs`, { recursive: true }),
    ],
  ])('stops at %s and removes nothing', async (_, code, message, damage) => {
    const { sysroot, digests } = await sysrootWith(4);
    damage(sysroot.path, digests[3] ?? '');
    const before = contents(sysroot);
    await expect(collect(sysroot)).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
    expect(contents(sysroot)).toEqual(before);
  });

  test.each<[string, string, (path: string) => unknown, string[]]>([
    [
      'streams of another tool',
      'foreign-streams',
      (path) => symlinkSync('../../objects/00/0', `${path}/composefs/streams/refs/layer`),
      ['image', 'image-record', 'object', 'object-directory', 'marker'],
    ],
    [
      'a ref that names no image',
      'ref-unreadable',
      (path) => symlinkSync('somewhere', `${path}/composefs/images/refs/other`),
      ['image', 'image-record', 'object', 'object-directory', 'marker'],
    ],
    [
      'an entry that cannot be read',
      'entry-unreadable',
      (path) => writeFileSync(`${path}/boot/loader/entries/hostctl-00000009.conf`, Buffer.of(0xff, 0)),
      ['kernel'],
    ],
  ])('says that %s keeps things, and keeps them', async (_, code, disturb, kinds) => {
    const { sysroot } = await sysrootWith(4);
    disturb(sysroot.path);
    const result = await collect(sysroot);
    expect(result.notes.map((note) => note.code)).toEqual([code]);
    expect(result.items.filter(({ kind }) => kinds.includes(kind))).toEqual([]);
    expect(ids(sysroot)).toEqual([4, 3, 2]);
  });

  test('leaves a state directory of another tool alone', async () => {
    const { sysroot } = await sysrootWith(1);
    const other = `${sysroot.path}/state/deploy/${'a'.repeat(128)}`;
    mkdirSync(`${other}/etc`, { recursive: true });
    writeFileSync(`${other}/${'a'.repeat(128)}.origin`, '[origin]\ncontainer-image-reference = docker://x\n');
    const result = await collect(sysroot);
    expect(result.notes.map(({ code }) => code)).toEqual(['state-unknown']);
    expect(existsSync(`${other}/etc`)).toBe(true);
  });

  test('waits for the next boot where the loader may still see the entries that went', async () => {
    const { sysroot, digests } = await sysrootWith(4);
    const at = (bootId: string, settles: boolean) => {
      const { syscalls, mounts } = sysroot.host;
      const bootMount = {
        mountPoint: `${sysroot.path}/boot`,
        root: '/',
        type: 'ext4',
        source: '/dev/x',
        device: '9:9',
        isShared: false,
      };
      return testHost({
        bootId: () => bootId,
        syscalls: { ...syscalls, freezeThaw: () => settles },
        mounts: { ...mounts, table: () => [...mounts.table(), { ...bootMount, options: ['rw'], superOptions: [] }] },
      });
    };
    const kernels = readdirSync(`${sysroot.path}/boot/hostctl`);
    const first = await collect(sysroot, {}, at('a', false));
    expect(first.items.map(({ kind }) => kind)).toEqual(['entry']);
    expect(first.waiting.map(({ kind }) => kind)).toContain('kernel');
    const again = await collect(sysroot, {}, at('a', false));
    expect(again.items).toEqual([]);
    expect(readdirSync(`${sysroot.path}/boot/hostctl`)).toEqual(kernels);
    expect(existsSync(`${sysroot.path}/state/deploy/${digests[0] ?? ''}`)).toBe(true);
    const later = await collect(sysroot, {}, at('b', false));
    expect(later.items.map(({ name }) => name)).toEqual(first.waiting.map(({ name }) => name));
    expect(later.waiting).toEqual([]);
    expect(existsSync(`${sysroot.path}/state/hostctl/waiting`)).toBe(false);
  });
});

describe('delete', () => {
  test('takes one deployment away and nothing else', async () => {
    const { sysroot } = await sysrootWith(1);
    const before = contents(sysroot);
    await sysroot.deploy(image(2));
    const result = await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '2' });
    expect(result.deployments).toEqual([2]);
    expect(result.items[0]).toMatchObject({ kind: 'entry', name: 'hostctl-00000002+3-0.conf' });
    expect(contents(sysroot)).toEqual(before);
  });

  test('takes away a deployment whose image is damaged, and keeps the objects of one that cannot be told', async () => {
    const { sysroot, digests } = await sysrootWith(3);
    for (const digest of digests.slice(0, 2)) rmSync(`${sysroot.path}/composefs/images/${digest}`);
    const result = await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '1' });
    expect(result.notes.map(({ code }) => code)).toEqual(['corrupt']);
    expect(ids(sysroot)).toEqual([3, 2]);
    expect(result.items.filter(({ kind }) => kind === 'object')).toEqual([]);
    expect((await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '2' })).notes).toEqual([]);
    expect(ids(sysroot)).toEqual([3]);
  });

  test.each<[string, string, RegExp, (sysroot: ScratchSysroot) => unknown]>([
    [
      'a pinned one',
      '1',
      /it is pinned/,
      (sysroot) => setPinned(sysroot.host, { sysroot: sysroot.path, id: '1', pinned: true }),
    ],
    [
      'the last good one',
      '2',
      /no other one is good/,
      (sysroot) => rmSync(`${sysroot.path}/boot/loader/entries/hostctl-00000001.conf`),
    ],
    [
      'the next one when what boots instead is broken',
      '2',
      /what would boot instead is not sound/,
      (sysroot) => {
        renameSync(
          `${sysroot.path}/boot/loader/entries/hostctl-00000002.conf`,
          `${sysroot.path}/boot/loader/entries/hostctl-00000002+3-0.conf`,
        );
        const digest = sysroot.status().deployments[1]?.composefs.digest ?? '';
        rmSync(`${sysroot.path}/composefs/images/${digest}`);
      },
    ],
    [
      'the next one when the only other one is staged',
      '2',
      /no other one has a boot entry/,
      async (sysroot) => {
        const [first, second] = ['hostctl-00000001.conf', 'hostctl-00000002.conf'];
        const entries = `${sysroot.path}/boot/loader/entries`;
        rmSync(`${entries}/${first}`);
        renameSync(`${entries}/${second}`, `${entries}/hostctl-00000002+3-0.conf`);
        await sysroot.deploy(image(3), { stage: true });
      },
    ],
    [
      'one that a foreign entry starts',
      '1',
      /not hostctl's starts it/,
      (sysroot) => {
        const digest = sysroot.status().deployments[1]?.composefs.digest ?? '';
        writeFileSync(
          `${sysroot.path}/boot/loader/entries/other.conf`,
          `title Other\nsort-key zzz\nlinux /other/linux\noptions composefs=${digest}\n`,
        );
      },
    ],
  ])('refuses %s', async (_, id, message, prepare) => {
    const { sysroot } = await sysrootWith(2);
    await prepare(sysroot);
    const before = contents(sysroot);
    await expect(deleteDeployment(sysroot.host, { sysroot: sysroot.path, id })).rejects.toMatchObject({
      code: 'deployment-in-use',
      message: expect.stringMatching(message) as string,
    });
    expect(contents(sysroot)).toEqual(before);
  });

  test('leaves the kernel that another deployment uses', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    bless(sysroot, 1);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    await deleteDeployment(sysroot.host, { sysroot: sysroot.path, id: '2' });
    expect(sysroot.status().deployments).toMatchObject([{ id: 1, problems: [] }]);
    expect(statSync(`${sysroot.path}${sysroot.status().deployments[0]?.entry?.linux ?? ''}`).size).toBe(5000);
  });
});

test('pin and unpin are idempotent and shown by status', async () => {
  const { sysroot } = await sysrootWith(2);
  const set = (pinned: boolean) => setPinned(sysroot.host, { sysroot: sysroot.path, id: '1', pinned });
  const pinned = (): boolean[] => sysroot.status().deployments.map((item) => item.pinned);
  expect(await set(true)).toEqual({ changed: true, id: 1, pinned: true });
  expect(await set(true)).toEqual({ changed: false, id: 1, pinned: true });
  expect(pinned()).toEqual([false, true]);
  expect(readFileSync(`${sysroot.path}/state/hostctl/pinned-1`, 'utf8')).toBe('');
  expect(await set(false)).toEqual({ changed: true, id: 1, pinned: false });
  expect(await set(false)).toEqual({ changed: false, id: 1, pinned: false });
  expect(pinned()).toEqual([false, false]);
});
