/**
 * `install to-filesystem` onto loop devices. Few test machines have FAT: what says that a partition is the ESP is a
 * stand-in, everything that is written is real.
 */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { gc } from '../../src/ops/gc.ts';
import { installToFilesystem } from '../../src/ops/install-to-filesystem.ts';
import { status } from '../../src/ops/status.ts';
import type { Host } from '../../src/sys/host.ts';
import { withFakeVerity } from '../helpers/fake-verity.ts';
import { unifiedLayout } from '../helpers/unified-layout.ts';
import { bootableLayout, KERNEL } from '../helpers/bootable-layout.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarDir, tarFile, tarSymlink } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';

const reason = process.getuid?.() === 0 ? undefined : 'mounting needs root';
if (reason !== undefined) console.error(`Skipping the installation's tests: ${reason}`);

const ESP_TYPE = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';
const XBOOTLDR_TYPE = 'bc13c2ff-59e6-4262-a352-b275fd6f7172';

interface Prepared {
  readonly root: string;
  readonly host: Host;
  readonly uuid: (place: string) => string;
  readonly install: (
    reference: string,
    more?: Partial<Parameters<typeof installToFilesystem>[1]>,
    by?: Host,
  ) => Promise<unknown>;
}

/** ext4 at a root and at `places` below it; `/efi` is said to be an ESP and `/boot` to be XBOOTLDR. */
function prepared(places: readonly string[], espMib = 8): Prepared {
  const scratch = scratchDir();
  const root = `${scratch}/root`;
  mkdirSync(root);
  const uuids = new Map<string, string>();
  const sources = new Map<string, string>();
  for (const place of ['', ...places]) {
    const disk = `${scratch}/disk${place.replaceAll('/', '-')}`;
    execFileSync('truncate', ['-s', `${place === '/efi' ? espMib : 24}M`, disk]);
    execFileSync('mkfs.ext4', ['-q', '-m', '0', disk]);
    mkdirSync(root + place, { recursive: true });
    execFileSync('mount', ['-o', 'loop', disk, root + place]);
    onTestFinished(() => void execFileSync('umount', [root + place]));
    uuids.set(place, execFileSync('blkid', ['-p', '-o', 'value', '-s', 'UUID', disk], { encoding: 'utf8' }).trim());
    const source = execFileSync('findmnt', ['-n', '-o', 'SOURCE', root + place], { encoding: 'utf8' }).trim();
    sources.set(source, place);
  }
  const real = testHost();
  const types = new Map([
    ['/efi', ESP_TYPE],
    ['/boot', XBOOTLDR_TYPE],
  ]);
  const host: Host = {
    ...real,
    mounts: {
      ...real.mounts,
      table: () =>
        real.mounts.table().map((mount) => (mount.mountPoint === `${root}/efi` ? { ...mount, type: 'vfat' } : mount)),
    },
    exec: {
      ...real.exec,
      run: async (program, args, options) => {
        const result = await real.exec.run(program, args, options);
        const type = program === 'blkid' ? types.get(sources.get(args.at(-1) ?? '') ?? '') : undefined;
        return type === undefined ? result : { ...result, stdout: `${result.stdout}\nPART_ENTRY_TYPE=${type}\n` };
      },
    },
  };
  return {
    root,
    host,
    uuid: (place) => uuids.get(place) ?? '',
    install: (image, more = {}, by = host) =>
      installToFilesystem(by, {
        root,
        image,
        kargs: [],
        algorithm: undefined,
        allowMissingVerity: true,
        authorizedKeys: undefined,
        ...more,
      }),
  };
}

const entryOf = (boot: string): string => readFileSync(`${boot}/loader/entries/hostctl-00000001.conf`, 'utf8');

describe.skipIf(reason !== undefined)('install to-filesystem', () => {
  test('puts loader, kernel, entry and deployment onto root and ESP', async () => {
    const { root, host, uuid, install } = prepared(['/efi']);
    await install(bootableLayout().reference, { kargs: ['quiet'] });
    const esp = `${root}/efi`;
    const efi = Buffer.alloc(2000, 'efi');
    expect(readFileSync(`${esp}/EFI/BOOT/BOOTX64.EFI`).equals(efi)).toBe(true);
    expect(readFileSync(`${esp}/EFI/systemd/systemd-bootx64.efi`).equals(efi)).toBe(true);
    expect(readFileSync(`${esp}/loader/loader.conf`, 'utf8')).toBe('timeout 3\n');
    const linux = /^linux (\/hostctl\/.*)$/m.exec(entryOf(esp))?.[1] ?? '';
    expect(readFileSync(esp + linux).equals(KERNEL)).toBe(true);
    const { deployments } = status(host, { sysroot: root, boot: esp });
    expect(deployments.list).toHaveLength(1);
    expect(deployments.next).toMatchObject({ id: 1, state: 'good', problems: [] });
    const kargs = deployments.next?.entries[0]?.kargs ?? [];
    expect(kargs.slice(0, 2)).toEqual([`root=UUID=${uuid('')}`, 'rw']);
    expect(kargs.at(-1)).toBe('quiet');
    expect(readFileSync(`${root}/state/os/default/var/lib/shipped`, 'utf8')).toBe('from the image');
  });

  test('installs an image that boots by a unified kernel image, and says what that does not get', async () => {
    const { root, host, uuid, install } = prepared(['/efi']);
    const cmdlines = (d: string) => [`root=LABEL=x composefs.digest=v1-sha512-12:${d}`];
    const { reference, digest, uki } = await unifiedLayout({ cmdlines });
    const by = withFakeVerity(host);
    const warnings: string[] = [];
    const log = { ...by.log, warn: (message: string) => void warnings.push(message) };
    await install(reference, { allowMissingVerity: false }, { ...by, log });
    const efi = /^efi (\/hostctl\/.*)$/m.exec(entryOf(`${root}/efi`))?.[1] ?? '';
    expect(readFileSync(`${root}/efi${efi}`)).toEqual(uki);
    expect(entryOf(`${root}/efi`)).toContain(
      `\nx-hostctl-options root=LABEL=x composefs.digest=v1-sha512-12:${digest}\n`,
    );
    expect(warnings).toContain(
      `The unified kernel image "/boot/EFI/Linux/example.efi" has its own command line, and these are not in it: root=UUID=${uuid('')} rw`,
    );
  });

  test('refuses such an image where it would not find its root or its /var, and leaves nothing', async () => {
    const { root, host, uuid, install } = prepared(['/efi', '/var']);
    const before = snapshot(root);
    const by = withFakeVerity(host);
    const refused = async (cmdline: string, lacking: string): Promise<void> => {
      const { reference } = await unifiedLayout({ cmdlines: (d) => [`${cmdline} composefs.digest=v1-sha512-12:${d}`] });
      await expect(install(reference, { allowMissingVerity: false }, by)).rejects.toMatchObject({
        code: 'host-unsupported',
        message: expect.stringMatching(new RegExp(`lacks what this host is found by, "${lacking}"$`)) as string,
      });
      expect(snapshot(root)).toEqual(before);
    };
    const ownVar = `systemd.mount-extra=UUID=${uuid('/var')}:/var:ext4`;
    await refused('quiet', `root=UUID=${uuid('')} ${ownVar}`);
    await refused('root=LABEL=x', ownVar);
  });

  test('refuses such an image where GRUB would be the loader and it has no other kernel, and leaves nothing', async () => {
    const { root, host, install } = prepared(['/boot', '/efi']);
    const { reference } = await unifiedLayout({ kernels: [], more: [tarDir('usr/lib/grub')] });
    const before = snapshot(root);
    await expect(install(reference, { allowMissingVerity: false }, withFakeVerity(host))).rejects.toMatchObject({
      code: 'host-unsupported',
      message: expect.stringContaining('GRUB starts this host') as string,
    });
    expect(snapshot(root)).toEqual(before);
  });

  test('takes the signed loader where the image has one', async () => {
    const { root, install } = prepared(['/efi']);
    const signed = Buffer.alloc(2100, 'signed');
    const more = [
      tarSymlink('usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed', '../../../../share/signed.efi'),
      tarFile('usr/share/signed.efi', signed),
    ];
    await install(bootableLayout({ more }).reference);
    expect(readFileSync(`${root}/efi/EFI/BOOT/BOOTX64.EFI`)).toEqual(signed);
  });

  test('takes /boot of its own for entries and kernels, and the ESP for the loader', async () => {
    const { root, install } = prepared(['/boot', '/efi']);
    mkdirSync(`${root}/efi/EFI/systemd/drivers`, { recursive: true });
    writeFileSync(`${root}/efi/EFI/systemd/drivers/ext4_x64.efi`, 'driver');
    await install(bootableLayout().reference);
    expect(entryOf(`${root}/boot`)).toMatch(/^linux \/hostctl\//m);
    expect(readFileSync(`${root}/boot/loader/entries.srel`, 'utf8')).toBe('type1\n');
    expect(readdirSync(`${root}/efi/loader`)).toEqual(['loader.conf']);
    expect(readdirSync(`${root}/boot`).sort()).toEqual(['hostctl', 'loader', 'lost+found']);
  });

  test.each([
    ['an image that shares its own', ''],
    ['an image that leaves it to the host', '[var]\nmode = mount\n'],
  ])("copies the image's /var onto a file system of its own, with %s", async (_, conf) => {
    const { root, uuid, install } = prepared(['/efi', '/var']);
    const more = [
      tarDir('var/spool', { mode: 0o1770, gid: 12 }),
      tarDir('usr/lib/hostctl'),
      tarFile('usr/lib/hostctl/hostctl.conf', conf),
    ];
    await install(bootableLayout({ more }).reference);
    expect(entryOf(`${root}/efi`)).toContain(` systemd.mount-extra=UUID=${uuid('/var')}:/var:ext4`);
    expect(readdirSync(`${root}/var`).sort()).toEqual(['lib', 'lost+found', 'spool']);
    expect(readFileSync(`${root}/var/lib/shipped`, 'utf8')).toBe('from the image');
    const spool = statSync(`${root}/var/spool`);
    expect([spool.mode & 0o7777, spool.gid]).toEqual([0o1770, 12]);
    expect(readdirSync(`${root}/state/os/default/var`)).toEqual([]);
  });

  test.each<[string, Partial<Parameters<typeof bootableLayout>[0]>, string, object]>([
    [
      'an image that leaves /var to a host without one',
      { more: [confOf('[var]\nmode=mount\n')] },
      'host-unsupported',
      {},
    ],
    ['an image whose hook would refuse', { more: [confOf('[etc]\nmode=x\n')] }, 'image-not-bootable', {}],
    ['a kernel that does not fit', { more: [kernelOf(12 << 20)] }, 'boot-full', {}],
    ['keys for an image that forgets /etc', { more: [confOf('[etc]\nmode=transient\n')] }, 'usage', { withKeys: true }],
    ['a kernel argument that is none', {}, 'usage', { kargs: ['a b'] }],
    ['a host without fs-verity', {}, 'verity-unsupported', { allowMissingVerity: false }],
  ])('leaves everything as it was when it refuses %s', async (_, image, code, options) => {
    const { root, install } = prepared(['/efi']);
    writeFileSync(`${root}/efi/theirs`, 'kept');
    const before = [snapshot(root), snapshot(`${root}/efi`)];
    const keys = `${scratchDir()}/keys`;
    writeFileSync(keys, 'ssh-ed25519 AAAA somebody\n');
    const { withKeys, ...rest } = { withKeys: false, ...options };
    const failed = install(bootableLayout(image).reference, {
      ...rest,
      ...(withKeys ? { authorizedKeys: keys } : {}),
    });
    await expect(failed).rejects.toMatchObject({ code });
    expect([snapshot(root), snapshot(`${root}/efi`)]).toEqual(before);
  });

  test.each([
    ['a deployment', 'state/deploy/x'],
    ['an object repository', 'composefs/objects'],
    ['another loader', 'efi/EFI/BOOT/BOOTX64.EFI'],
    ['a configured loader', 'efi/loader/loader.conf'],
    ['kernels of ours', 'efi/hostctl'],
    ['entries of ours', 'efi/loader/entries/hostctl-00000004.conf'],
  ])('refuses a place that holds %s', async (_, path) => {
    const { root, install } = prepared(['/efi']);
    mkdirSync(`${root}/${path}`, { recursive: true });
    const before = snapshot(root);
    const failed = install(bootableLayout().reference);
    await expect(failed).rejects.toMatchObject({
      code: 'host-unsupported',
      message: expect.stringMatching(/exists already; nothing was changed/) as string,
    });
    expect(snapshot(root)).toEqual(before);
  });

  test('takes its entry away before its kernel, also where its commit cannot be taken back', async () => {
    const { root, host, install } = preparedWithBoot();
    const entries = `${root}/boot/loader/entries`;
    mkdirSync(entries, { recursive: true });
    writeFileSync(`${entries}/theirs.conf`, 'title Theirs\n');
    const entry = `${entries}/hostctl-00000001.conf`;
    const freezeThaw = (fd: number): boolean => {
      if (!existsSync(entry)) return host.syscalls.freezeThaw(fd);
      mkdirSync(`${entry}.tmp`);
      throw new Error('the disk failed');
    };
    const syscalls = { ...host.syscalls, freezeThaw };
    await expect(install(bootableLayout().reference, {}, { ...host, syscalls })).rejects.toThrow('the disk failed');
    expect(readdirSync(entries)).toEqual(['theirs.conf']);
    expect(existsSync(`${root}/boot/hostctl`)).toBe(false);
  });

  describe('that was killed', () => {
    const marks = (root: string): string[] =>
      ['', '/boot', '/efi', '/var'].filter((place) => existsSync(`${root}${place}/.hostctl-installing`));

    test('before its entry had a name is replaced by the next one', async () => {
      const { root, host, install } = preparedWithBoot();
      writeFileSync(`${root}/efi/theirs`, 'kept');
      await killedAt(host, 1, (by) => install(bootableLayout({ version: '1' }).reference, {}, by));
      expect(marks(root)).toEqual(['', '/boot', '/efi', '/var']);
      expect(readdirSync(`${root}/boot/loader/entries`)).toEqual(['hostctl-00000001.conf.tmp']);
      const [first] = readdirSync(`${root}/boot/hostctl`);
      const more = [tarFile('var/lib/second', 'of the second'), kernelOf(6000)];
      await install(bootableLayout({ version: '2', more }).reference);
      expect(readFileSync(`${root}/efi/theirs`, 'utf8')).toBe('kept');
      expect(readdirSync(`${root}/var/lib`).sort()).toEqual(['second', 'shipped']);
      expect(readdirSync(`${root}/boot/hostctl`)).not.toContain(first);
      expect(readdirSync(`${root}/boot/loader/entries`)).toEqual(['hostctl-00000001.conf']);
      const { deployments } = status(host, { sysroot: root, boot: `${root}/boot` });
      expect(deployments.list.map(({ id, problems }) => ({ id, problems }))).toEqual([{ id: 1, problems: [] }]);
      expect(marks(root)).toEqual([]);
      await expect(install(bootableLayout().reference)).rejects.toMatchObject({ code: 'host-unsupported' });
    });

    test.each([['state'], ['state/hostctl']])(
      'when it had made no more than "%s" is replaced by the next one',
      async (path) => {
        const { root, install } = prepared(['/efi']);
        mkdirSync(`${root}/${path}`, { recursive: true });
        await install(bootableLayout().reference);
        expect(entryOf(`${root}/efi`)).toContain('root=UUID=');
        expect(marks(root)).toEqual([]);
      },
    );

    test('is taken away too where the next one fails', async () => {
      const { root, host, install } = preparedWithBoot();
      await killedAt(host, 1, (by) => install(bootableLayout().reference, {}, by));
      const failed = install(bootableLayout({ withInitrd: false }).reference);
      await expect(failed).rejects.toMatchObject({ code: 'image-not-bootable' });
      expect([marks(root), existsSync(`${root}/state`), existsSync(`${root}/composefs`)]).toEqual([[], false, false]);
    });

    test('when its entry had a name is a machine that boots, and stays', async () => {
      const { root, host, install } = preparedWithBoot();
      await killedAt(host, 2, (by) => install(bootableLayout().reference, {}, by));
      const before = snapshot(`${root}/state/deploy`);
      await expect(install(bootableLayout().reference)).rejects.toMatchObject({ code: 'host-unsupported' });
      expect(snapshot(`${root}/state/deploy`)).toEqual(before);
      const places = { sysroot: root, boot: `${root}/boot` };
      const { items } = await gc(host, { ...places, keep: 3, dryRun: false });
      expect(items.map(({ path }) => path)).toEqual([
        `${root}/boot/.hostctl-installing`,
        `${root}/.hostctl-installing`,
      ]);
      expect(marks(root)).toEqual(['/efi', '/var']);
    });

    test('before its entry had a name keeps its marks, whoever removes garbage', async () => {
      const { root, host, install } = preparedWithBoot();
      await killedAt(host, 1, (by) => install(bootableLayout().reference, {}, by));
      await gc(host, { sysroot: root, boot: `${root}/boot`, keep: 3, dryRun: false });
      expect(marks(root)).toEqual(['', '/boot', '/efi', '/var']);
      await install(bootableLayout().reference);
    });

    test.each([
      ['something was published once', 'state/hostctl/history/00000001', '/state/hostctl/history/00000001'],
      ['another file system is not the one it wrote to', 'efi/loader/loader.conf', '/efi/loader/loader.conf'],
    ])('is not what is found where %s', async (_, path, kept) => {
      const { root, install } = preparedWithBoot();
      mkdirSync(`${root}/${path}`.replace(/[^/]*$/, ''), { recursive: true });
      writeFileSync(`${root}/${path}`, 'theirs');
      writeFileSync(`${root}/.hostctl-installing`, '');
      await expect(install(bootableLayout().reference)).rejects.toMatchObject({ code: 'host-unsupported' });
      expect(readFileSync(root + kept, 'utf8')).toBe('theirs');
    });

    test('is not one that still runs', async () => {
      const { root, host, install } = preparedWithBoot();
      const end = await stoppedAt(host, 1, (by) => install(bootableLayout().reference, {}, by));
      await expect(install(bootableLayout().reference)).rejects.toMatchObject({ code: 'locked' });
      end.resume();
      await end.result;
      expect(readdirSync(`${root}/boot/loader/entries`)).toEqual(['hostctl-00000001.conf']);
    });
  });

  test('refuses the root of the running machine and what is no mount point', async () => {
    const { install } = prepared(['/efi']);
    await expect(install(bootableLayout().reference, { root: '/' })).rejects.toMatchObject({ code: 'usage' });
    const plain = scratchDir();
    await expect(install(bootableLayout().reference, { root: plain })).rejects.toMatchObject({
      code: 'host-unsupported',
    });
    expect(existsSync(`${plain}/state`)).toBe(false);
  });
});

/** Boot partition, ESP and `/var` of their own. */
function preparedWithBoot(): Prepared {
  const found = prepared(['/boot', '/efi', '/var']);
  mkdirSync(`${found.root}/efi/EFI/systemd/drivers`, { recursive: true });
  writeFileSync(`${found.root}/efi/EFI/systemd/drivers/ext4_x64.efi`, 'driver');
  return found;
}

/** Stops an installation for good when it makes the boot partition durable for the n-th time, its locks forgotten. */
async function killedAt(host: Host, nth: number, install: (by: Host) => Promise<unknown>): Promise<void> {
  const syscalls = { ...host.syscalls, tryLock: () => true };
  await stoppedAt({ ...host, syscalls }, nth, install);
}

async function stoppedAt(
  host: Host,
  nth: number,
  install: (by: Host) => Promise<unknown>,
): Promise<{ readonly resume: () => void; readonly result: Promise<unknown> }> {
  let left = nth;
  const reached = deferred();
  const gate = deferred();
  const stopping: Host = {
    ...host,
    exec: {
      ...host.exec,
      watchdog: () => ({
        end: () => {
          left -= 1;
          if (left !== 0) return Promise.resolve();
          reached.resolve();
          return gate.promise;
        },
      }),
    },
  };
  const result = install(stopping).then(
    () => undefined,
    (error: unknown) => error,
  );
  // What it holds open would keep its file systems from being unmounted.
  onTestFinished(async () => {
    gate.reject(new Error('killed'));
    await result;
  });
  await Promise.race([reached.promise, result]);
  return { resume: () => gate.resolve(), result };
}

function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let settle: { resolve: () => void; reject: (error: Error) => void } | undefined;
  const promise = new Promise<void>((resolve, reject) => (settle = { resolve, reject }));
  return { promise, resolve: () => settle?.resolve(), reject: (error) => settle?.reject(error) };
}

function confOf(text: string): Uint8Array {
  return Buffer.concat([tarDir('usr/lib/hostctl'), tarFile('usr/lib/hostctl/hostctl.conf', text)]);
}

function kernelOf(bytes: number): Uint8Array {
  return tarFile('usr/lib/modules/6.12.0/vmlinuz', Buffer.alloc(bytes, 'a large kernel'));
}
