import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { rollback } from '../../src/ops/rollback.ts';
import { bless } from '../helpers/bless.ts';
import { bootableLayout, INITRD, KERNEL } from '../helpers/bootable-layout.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarDir, tarFile } from '../helpers/tar-builder.ts';

const MODULE = 'usr/lib/modules/6.12.0/vmlinuz';
const conf = (text: string) => [tarDir('usr/lib/hostctl'), tarFile('usr/lib/hostctl/hostctl.conf', text)];

describe('deploy', () => {
  test('puts image, state, kernel and one entry in their places', async () => {
    const sysroot = scratchSysroot();
    const result = await sysroot.deploy(bootableLayout().reference, { kargs: ['root=UUID=abc', 'quiet', 'rw'] });
    const { digest } = result;
    expect(result).toMatchObject({
      changed: true,
      id: 1,
      parameters: 'v1-sha512-12',
      entryFile: 'hostctl-00000001+3-0.conf',
    });
    const document = sysroot.status();
    expect(document).toMatchObject({ booted: null, next: 1, staged: null, rollback: null, warnings: [] });
    expect(document.deployments).toHaveLength(1);
    expect(document.deployments[0]).toMatchObject({
      id: 1,
      state: 'trying',
      triesLeft: 3,
      composefs: { digest, hash: 'sha512', version: 1, verity: 'optional' },
      problems: [],
    });
    expect(document.deployments[0]?.entry?.kargs).toEqual([
      'root=UUID=abc',
      'rw',
      `composefs.digest=?v1-sha512-12:${digest}`,
      'panic=30',
      'rd.shell=0',
      'rd.emergency=reboot',
      'console=ttyS0',
      'quiet',
    ]);
    const linux = document.deployments[0]?.entry?.linux ?? '';
    expect(readFileSync(sysroot.path + linux).equals(KERNEL)).toBe(true);
    expect(readFileSync(sysroot.path + linux.replace(/linux$/, 'initrd')).equals(INITRD)).toBe(true);
    expect(readFileSync(`${sysroot.path}/state/deploy/${digest}/etc/hostname`, 'utf8')).toBe('example\n');
    expect(readFileSync(`${sysroot.path}/state/deploy/${digest}/var/lib/shipped`, 'utf8')).toBe('from the image');
    expect(existsSync(`${sysroot.path}/composefs/images/refs/hostctl/1`)).toBe(true);
    expect(statSync(`${sysroot.path}/composefs`).mode & 0o777).toBe(0o700);
    expect(readdirSync(`${sysroot.path}/composefs`).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('of an unchanged image writes no object and no entry', async () => {
    const sysroot = scratchSysroot();
    const { reference } = bootableLayout();
    await sysroot.deploy(reference);
    const before = snapshot(sysroot.path);
    const again = await sysroot.deploy(reference);
    expect(again).toMatchObject({ changed: false, id: 1 });
    expect(snapshot(sysroot.path)).toEqual(before);
  });

  test('of another version adds an entry and keeps the first', async () => {
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(bootableLayout({ version: '1' }).reference, { kargs: ['root=UUID=abc'] });
    const second = await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    expect(second.digest).not.toBe(first.digest);
    expect(sysroot.entries()).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000002+3-0.conf']);
    const document = sysroot.status();
    expect(document.next).toBe(2);
    expect(document.deployments[0]?.entry?.kargs[0]).toBe('root=UUID=abc');
  });

  test('of an earlier image again gives it a state directory of its own', async () => {
    const sysroot = scratchSysroot();
    const one = bootableLayout({ version: '1' }).reference;
    const first = await sysroot.deploy(one);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    const third = await sysroot.deploy(one);
    expect(third).toMatchObject({ changed: true, id: 3, digest: first.digest });
    expect(sysroot.status().deployments[0]?.entry?.kargs).toContain(`hostctl.state=${first.digest}.3`);
    expect(third.objects.writtenObjects).toBe(0);
  });

  test('carries local changes of /etc over, and leaves them where they were', async () => {
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    const etc = `${sysroot.path}/state/deploy/${first.digest}/etc`;
    writeFileSync(`${etc}/hostname`, 'mine\n');
    writeFileSync(`${etc}/machine-id`, '0123456789abcdef0123456789abcdef\n');
    writeFileSync(`${etc}/ssh/new-key`, 'secret', { mode: 0o600 });
    rmSync(`${etc}/motd`);
    const before = snapshot(etc);
    const second = await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    const next = `${sysroot.path}/state/deploy/${second.digest}/etc`;
    expect(snapshot(next)).toEqual(before);
    expect(snapshot(etc)).toEqual(before);
  });

  test('does not touch what belongs to others on the boot partition', async () => {
    const sysroot = scratchSysroot();
    mkdirSync(`${sysroot.path}/boot/loader/entries`, { recursive: true });
    writeFileSync(`${sysroot.path}/boot/loader/entries/other.conf`, 'title Other\nlinux /other/linux\n');
    writeFileSync(`${sysroot.path}/boot/loader/loader.conf`, 'timeout 5\n');
    const before = snapshot(`${sysroot.path}/boot`);
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    expect(snapshot(`${sysroot.path}/boot`)).toMatchObject(before);
    expect(sysroot.status().next).toBe(2);
  });

  test('leaves a damaged kernel directory alone and takes the next name', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    const linux = `${sysroot.path}${sysroot.status().deployments[0]?.entry?.linux ?? ''}`;
    writeFileSync(linux, 'damaged');
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    const second = sysroot.status().deployments[0]?.entry?.linux ?? '';
    expect(second).toMatch(/-1\/linux$/);
    expect(readFileSync(sysroot.path + second).equals(KERNEL)).toBe(true);
    expect(readFileSync(linux, 'utf8')).toBe('damaged');
  });

  test('replaces an object that was damaged in the store', async () => {
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    const objects = `${sysroot.path}/composefs/objects`;
    for (const name of readdirSync(objects, { recursive: true, encoding: 'utf8' })) {
      if (statSync(`${objects}/${name}`).isFile()) writeFileSync(`${objects}/${name}`, 'short');
    }
    rmSync(`${sysroot.path}/composefs/images/${first.digest}`);
    const again = await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    expect(again).toMatchObject({ changed: true, digest: first.digest });
    expect(again.objects.writtenObjects).toBeGreaterThan(0);
  });
});

describe('a deploy that fails at its last step', () => {
  test('takes back the state directory, the ref, the kernel and the image', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    const before = snapshot(sysroot.path);
    // Entries can be read but none can be written.
    const entries = `${sysroot.path}/boot/loader/entries`;
    execFileSync('mount', ['--bind', entries, entries]);
    try {
      execFileSync('mount', ['-o', 'remount,bind,ro', entries]);
      const more = [tarFile('usr/lib/modules/6.12.0/vmlinuz', Buffer.alloc(7000, 'another kernel'))];
      const failed = sysroot.deploy(bootableLayout({ version: '2', more }).reference);
      await expect(failed).rejects.toMatchObject({ code: 'EROFS' });
    } finally {
      execFileSync('umount', [entries]);
    }
    const after = snapshot(sysroot.path);
    const isDirectoryOfObjects = (name: string): boolean => /^composefs\/objects\/[0-9a-f]{2}$/.test(name);
    const left = Object.keys(after).filter((name) => !(name in before) && !isDirectoryOfObjects(name));
    expect(left).toEqual([]);
    expect(after).toMatchObject(before);
  });
});

describe('deploy of an image with a hostctl.conf', () => {
  test.each([
    ['that its boot hook would refuse', '[etc]\nmode = volatile\n', 'image-not-bootable', /would refuse to boot/],
    ['that leaves /var to a host without one', '[var]\nmode = mount\n', 'host-unsupported', /leaves \/var to the host/],
  ])('%s is refused, and the host boots what it booted', async (_, text, code, message) => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    const before = [sysroot.entries(), readdirSync(`${sysroot.path}/state/deploy`), sysroot.status()];
    const failed = sysroot.deploy(bootableLayout({ version: '2', more: conf(text) }).reference);
    await expect(failed).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
    expect([sysroot.entries(), readdirSync(`${sysroot.path}/state/deploy`), sysroot.status()]).toEqual(before);
  });

  test.each([
    ['a line of the local fstab', '[var]\nmode = mount\n', true],
    ['a line of the local fstab that the boot will not see', '[var]\nmode = mount\n[etc]\nmode = transient\n', false],
  ])('that leaves /var to the host looks for %s', async (_, text, taken) => {
    const sysroot = scratchSysroot();
    const { digest } = await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    writeFileSync(`${sysroot.path}/state/deploy/${digest}/etc/fstab`, 'LABEL=var /var ext4 defaults 0 2\n');
    const deployed = sysroot.deploy(bootableLayout({ version: '2', more: conf(text) }).reference);
    if (taken) await expect(deployed).resolves.toMatchObject({ changed: true });
    else await expect(deployed).rejects.toMatchObject({ code: 'host-unsupported' });
  });
});

describe('a first deployment that fails', () => {
  test('takes its /var back, so that the next one brings its own', async () => {
    const sysroot = scratchSysroot();
    const refused = bootableLayout({ more: conf('[var]\nmode = mount\n') }).reference;
    await expect(sysroot.deploy(refused)).rejects.toMatchObject({ code: 'host-unsupported' });
    expect(readdirSync(`${sysroot.path}/state/os/default`)).toEqual([]);
    await sysroot.deploy(
      bootableLayout({ version: '2', more: [tarFile('var/lib/second', 'of the second')] }).reference,
    );
    expect(readFileSync(`${sysroot.path}/state/os/default/var/lib/second`, 'utf8')).toBe('of the second');
  });

  test('leaves a /var alone that was there before', async () => {
    const sysroot = scratchSysroot();
    mkdirSync(`${sysroot.path}/state/os/default/var/mine`, { recursive: true });
    const refused = bootableLayout({ more: conf('[var]\nmode = mount\n') }).reference;
    await expect(sysroot.deploy(refused)).rejects.toMatchObject({ code: 'host-unsupported' });
    expect(readdirSync(`${sysroot.path}/state/os/default/var`)).toEqual(['mine']);
  });
});

describe('rollback', () => {
  test('gives the good deployment a new entry without counter and edits nothing', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    bless(sysroot, 1);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    const before = snapshot(sysroot.path);
    const result = await rollback(sysroot.host, { sysroot: sysroot.path });
    expect(result).toMatchObject({ changed: true, from: 2, to: 1, entryFile: 'hostctl-00000003.conf', unstaged: null });
    expect(sysroot.entries()).toEqual(['hostctl-00000001.conf', 'hostctl-00000002+3-0.conf', 'hostctl-00000003.conf']);
    delete before['state/hostctl/lock-holder'];
    for (const name of ['state/hostctl', 'state/hostctl/history']) delete before[name];
    expect(snapshot(sysroot.path)).toMatchObject(before);
    const document = sysroot.status();
    expect(document).toMatchObject({ next: 1 });
    const kargs = document.deployments.find(({ id }) => id === 1)?.entry?.kargs ?? [];
    // A good one stops with its reason on the console instead of booting again and again.
    expect(kargs).not.toContain('rd.emergency=reboot');
    expect(kargs).toContain('panic=30');
  });

  test('and back again leads to the deployment it came from', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    bless(sysroot, 1);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    bless(sysroot, 2);
    await rollback(sysroot.host, { sysroot: sysroot.path });
    expect(sysroot.status()).toMatchObject({ next: 1, rollback: 2 });
    await rollback(sysroot.host, { sysroot: sysroot.path });
    expect(sysroot.status()).toMatchObject({ next: 2, rollback: 1 });
  });

  test.each([
    ['by number', () => '1'],
    ['by the beginning of its digest', (digest: string) => digest.slice(0, 12)],
  ])('takes a deployment %s, with tries while it is unproven', async (_, idOf) => {
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    const result = await rollback(sysroot.host, { sysroot: sysroot.path, to: idOf(first.digest) });
    expect(result).toMatchObject({ changed: true, to: 1, entryFile: 'hostctl-00000003+3-0.conf' });
  });

  test('to what boots next anyway changes nothing', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    const before = sysroot.entries();
    expect(await rollback(sysroot.host, { sysroot: sysroot.path, to: '1' })).toMatchObject({ changed: false });
    expect(sysroot.entries()).toEqual(before);
  });

  test.each([
    ['nothing to go to', undefined, 'deployment-not-found'],
    ['a number that does not exist', '99', 'deployment-not-found'],
    ['something that is no id', '../etc', 'usage'],
  ])('refuses %s', async (_, to, code) => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    await expect(rollback(sysroot.host, { sysroot: sysroot.path, to })).rejects.toMatchObject({ code });
  });

  test('refuses a deployment whose image is gone', async () => {
    const sysroot = scratchSysroot();
    const first = await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    bless(sysroot, 1);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    rmSync(`${sysroot.path}/composefs/images/${first.digest}`);
    await expect(rollback(sysroot.host, { sysroot: sysroot.path, to: '1' })).rejects.toMatchObject({
      code: 'state-invalid',
      message: expect.stringContaining('is not in') as string,
    });
  });
});

describe('status', () => {
  test.each([
    [
      'a lost origin',
      (path: string, name: string) => rmSync(`${path}/state/deploy/${name}/${name}.origin`),
      ['origin-missing'],
    ],
    [
      'a garbled origin',
      (path: string, name: string) => writeFileSync(`${path}/state/deploy/${name}/${name}.origin`, '\0\0'),
      ['origin-unreadable'],
    ],
    [
      'a missing state directory',
      (path: string, name: string) => rmSync(`${path}/state/deploy/${name}`, { recursive: true }),
      ['state-missing'],
    ],
    ['a missing image', (path: string, name: string) => rmSync(`${path}/composefs/images/${name}`), ['image-missing']],
    [
      'a missing kernel',
      (path: string) => rmSync(`${path}/boot/hostctl`, { recursive: true }),
      ['kernel-missing', 'kernel-missing'],
    ],
    [
      'a missing entry',
      (path: string) => rmSync(`${path}/boot/loader/entries/hostctl-00000001+3-0.conf`),
      ['entry-missing'],
    ],
  ])('shows %s as a problem of that deployment', async (_, damage, codes) => {
    const sysroot = scratchSysroot();
    const { digest } = await sysroot.deploy(bootableLayout().reference);
    damage(sysroot.path, digest);
    const document = sysroot.status();
    expect(document.deployments).toHaveLength(1);
    expect(document.deployments[0]?.problems.map(({ code }) => code)).toEqual(codes);
  });

  test('shows why the initramfs refused an image, and still rolls back to it', async () => {
    const sysroot = scratchSysroot();
    const { digest } = await sysroot.deploy(bootableLayout({ version: '1' }).reference);
    bless(sysroot, 1);
    await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    writeFileSync(
      `${sysroot.path}/state/hostctl/boot-failure-${digest}`,
      `version=1\nreason=mount-failed\nmessage=Cannot mount the image\ndigest=${digest}\n`,
    );
    const document = sysroot.status();
    expect(document.rollback).toBe(1);
    expect(document.deployments.find(({ id }) => id === 1)?.problems).toEqual([
      { code: 'boot-failed', message: 'The last boot failed: Cannot mount the image (mount-failed)' },
    ]);
  });

  test('shows an entry that cannot be read as a warning and the rest as ever', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout().reference);
    writeFileSync(`${sysroot.path}/boot/loader/entries/broken.conf`, Buffer.of(0xff, 0xfe, 0));
    const document = sysroot.status();
    expect(document.next).toBe(1);
    expect(document.warnings.map(({ code }) => code)).toEqual(['entry-unreadable']);
  });

  test.each([
    [
      'the kernel of the newest',
      (boot: string, linux: string) => rmSync(boot.replace(/boot$/, '') + linux),
      // GRUB looks for the file only when it starts the entry.
      ['entry-skipped', 'loader-dependent'],
    ],
    [
      'what the newest entry starts',
      (boot: string) =>
        writeFileSync(`${boot}/loader/entries/hostctl-00000002+3-0.conf`, 'version 2\nsort-key hostctl\n'),
      ['entry-skipped'],
    ],
  ])('says what boots where %s is lost, and goes on from there', async (_, damage, codes) => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout({ version: '1' }).reference, { kargs: ['root=UUID=abc'] });
    await sysroot.deploy(bootableLayout({ version: '2', more: [tarFile(MODULE, 'another kernel')] }).reference);
    damage(`${sysroot.path}/boot`, sysroot.status().deployments[0]?.entry?.linux ?? '');
    const document = sysroot.status();
    expect(document.next).toBe(1);
    expect(document.warnings.map(({ code }) => code)).toEqual(codes);
    await sysroot.deploy(bootableLayout({ version: '3' }).reference);
    expect(sysroot.status().next).toBe(3);
  });

  test('goes on from a deployment that nothing can start any more', async () => {
    const sysroot = scratchSysroot();
    const { digest } = await sysroot.deploy(bootableLayout({ version: '1' }).reference, { kargs: ['root=UUID=abc'] });
    writeFileSync(`${sysroot.path}/state/deploy/${digest}/etc/mine`, 'kept');
    rmSync(`${sysroot.path}/boot/hostctl`, { recursive: true });
    expect(sysroot.status()).toMatchObject({ next: null, warnings: [{ code: 'entry-skipped' }, { code: 'no-entry' }] });
    const second = await sysroot.deploy(bootableLayout({ version: '2' }).reference);
    expect(sysroot.status().next).toBe(2);
    expect(sysroot.status().deployments[0]?.entry?.kargs[0]).toBe('root=UUID=abc');
    expect(readFileSync(`${sysroot.path}/state/deploy/${second.digest}/etc/mine`, 'utf8')).toBe('kept');
  });

  test('says when a foreign entry would boot', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(bootableLayout().reference);
    writeFileSync(`${sysroot.path}/boot/loader/entries/aaa.conf`, 'title A\nsort-key a\nlinux /a\n');
    const document = sysroot.status();
    expect(document.next).toBeNull();
    expect(document.warnings.map(({ code }) => code)).toEqual(['foreign-default']);
  });

  test('of an empty sysroot is empty', () => {
    const document = scratchSysroot().status();
    expect(document).toMatchObject({ booted: null, next: null, rollback: null, deployments: [], warnings: [] });
  });
});

test('what is in a deployment keeps the owners and modes of the image', async () => {
  const sysroot = scratchSysroot();
  const { digest } = await sysroot.deploy(bootableLayout().reference);
  const etc = statSync(`${sysroot.path}/state/deploy/${digest}/etc`);
  expect([etc.uid, etc.gid, etc.mode & 0o7777]).toEqual([0, 0, 0o755]);
});
