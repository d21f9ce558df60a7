import { copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { defaultOf, isUnified, listEntries } from '../../src/deploy/boot-entries.ts';
import {
  blessEntry,
  commitEntry,
  removeEntries,
  settleEntry,
  writeInertEntry,
} from '../../src/deploy/publish-entry.ts';
import { openBootPartition, type BootPartition } from '../../src/deploy/boot-partition.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';

/** A boot partition with the program `/k/linux` and these entries. */
function bootWith(entries: Readonly<Record<string, string>>, prefix = ''): BootPartition {
  const path = scratchDir();
  mkdirSync(`${path}/loader/entries`, { recursive: true });
  mkdirSync(`${path}/k`);
  writeFileSync(`${path}/k/linux`, 'a kernel');
  for (const [file, text] of Object.entries(entries)) writeFileSync(`${path}/loader/entries/${file}`, text);
  return { path, prefix, isFat: false, isLoaderRead: false, isReadOnly: false, isGrub: false, takesUki: false };
}

/** What sorts behind everything that is tried before it. */
const LAST = { '0.conf': 'sort-key zzz\nlinux /k/linux\n' };

describe('the default entry', () => {
  test.each([
    ['names a kernel that is there', 'linux /k/linux\n', undefined],
    ['names it without the leading slash', 'linux k/linux\n', undefined],
    ['names another program that is there', 'efi /k/linux\n', undefined],
    ['names a unified kernel that is there', 'uki /k/linux\n', undefined],
    ['names what is elsewhere', 'uki-url http://example.org/a.efi\n', undefined],
    ['lacks its initrd alone', 'linux /k/linux\ninitrd /k/initrd\n', undefined],
    ['names nothing to start', 'title A\n', 'it names nothing to start'],
    ['is empty but for its place in the menu', '', 'it names nothing to start'],
    ['names a kernel that is missing', 'linux /k/other\n', '"/k/other" is missing'],
    ['names a program that is missing', 'efi /k/other.efi\n', '"/k/other.efi" is missing'],
    ['repeats its kernel, the last of which is missing', 'linux /k/linux\nlinux /k/b\n', '"/k/b" is missing'],
    ['wants to be started in two ways', 'linux /k/linux\nefi /k/linux\n', 'it has both "linux" and "efi"'],
  ])('where the first %s', (_, text, skipped) => {
    const { entries } = listEntries(bootWith({ ...LAST, '1.conf': `sort-key a\n${text}` }));
    expect(entries.map(({ file }) => file)).toEqual(['1.conf', '0.conf']);
    expect(entries[0]?.skipped).toBe(skipped);
    expect(defaultOf(entries)?.file).toBe(skipped === undefined ? '1.conf' : '0.conf');
  });

  test('is none whose name loaders keep for themselves', () => {
    const { entries } = listEntries(bootWith({ ...LAST, 'auto-a.conf': 'sort-key a\nlinux /k/linux\n' }));
    expect(defaultOf(entries)?.file).toBe('0.conf');
  });

  test('is undefined where nothing can be started', () => {
    const { entries } = listEntries(bootWith({ '1.conf': 'title A\n', '2.conf': 'linux /x\n' }));
    expect(entries).toHaveLength(2);
    expect(defaultOf(entries)).toBeUndefined();
  });

  test.each([
    ['/boot/k/linux', undefined],
    ['/boot/k/other', '"/boot/k/other" is missing'],
    // Outside of what is mounted here: nobody can tell.
    ['/elsewhere/linux', undefined],
  ])('of a boot directory inside a file system: %s', (linux, skipped) => {
    const { entries } = listEntries(bootWith({ '1.conf': `linux ${linux}\n` }, '/boot'));
    expect(entries.map((entry) => entry.skipped)).toEqual([skipped]);
  });
});

describe('the entry of a unified kernel image', () => {
  /** A machine that some loader started, by what it says of itself. */
  function startedBy(info: string | undefined, isRunning = true): BootPartition {
    const host = testHost({
      loaderVariable: (name) =>
        name === 'LoaderInfo' && info !== undefined ? Buffer.from(`${info}\0`, 'utf16le') : undefined,
    });
    return openBootPartition(host, scratchDir(), isRunning, scratchDir());
  }

  test.each([
    ['systemd-boot 258-1', 'uki'],
    ['systemd-boot 261~rc1-2', 'uki'],
    ['systemd-boot 257.9-1~deb13u1', 'efi'],
    ['systemd-boot 252.39-1~deb12u2', 'efi'],
    ['systemd-boot', 'efi'],
    ['GRUB 2.12', 'efi'],
    [undefined, 'efi'],
  ])('says to %s by a key that it knows and counts: %s', async (info, key) => {
    const boot = startedBy(info);
    const options = `composefs.digest=v1-sha512-12:${'ab'.repeat(64)}`;
    const inert = await writeInertEntry(testHost(), boot, {
      ...{ sequence: 1, counter: undefined, title: 'A', sortKey: 'hostctl', options },
      program: { efi: '/k/uki.efi' },
    });
    await commitEntry(testHost(), boot, inert);
    const [entry] = listEntries(boot).entries;
    expect(readFileSync(inert.finalPath, 'utf8').split('\n').slice(3, 5)).toEqual([
      `${key} /k/uki.efi`,
      `x-hostctl-options ${options}`,
    ]);
    expect(entry).toMatchObject({ efi: '/k/uki.efi', kargs: [options] });
    expect(entry === undefined ? undefined : isUnified(entry)).toBe(true);
  });

  test('says nothing of the loader of another machine', () => {
    expect(startedBy('systemd-boot 259', false).takesUki).toBe(false);
  });
});

/** systemd-bless-boot takes the counter off an entry and knows no lock of ours. */
describe('an entry that is blessed at the same time', () => {
  const COUNTED = 'hostctl-00000002+2-1.conf';
  const BLESSED = 'hostctl-00000002.conf';
  const ENTRY = { [COUNTED]: 'sort-key a\nlinux /k/linux\n', 'other.conf': 'sort-key b\nlinux /k/linux\n' };

  test('is never taken for none', async () => {
    const boot = bootWith(ENTRY);
    const [from, to] = [COUNTED, BLESSED].map((file) => `${boot.path}/loader/entries/${file}`);
    const renaming = `
      const { renameSync } = require('node:fs');
      const { workerData: [from, to], parentPort } = require('node:worker_threads');
      parentPort.postMessage('begun');
      for (;;) { renameSync(from, to); renameSync(to, from); }`;
    const worker = new Worker(renaming, { eval: true, workerData: [from, to] });
    await new Promise((resolve) => worker.once('message', resolve));
    try {
      for (let count = 0; count < 2000; count += 1) {
        const { entries, problems } = listEntries(boot);
        const files = [...entries, ...problems].map(({ file }) => file);
        expect(files.filter((file) => file === COUNTED || file === BLESSED)).toHaveLength(1);
      }
    } finally {
      await worker.terminate();
    }
  });

  test('is settled and removed under the name it has', async () => {
    const boot = bootWith(ENTRY);
    renameSync(`${boot.path}/loader/entries/${COUNTED}`, `${boot.path}/loader/entries/${BLESSED}`);
    await expect(settleEntry(testHost(), boot, COUNTED)).resolves.toBe(true);
    await removeEntries(testHost(), boot, [COUNTED]);
    expect(readdirSync(`${boot.path}/loader/entries`)).toEqual(['other.conf']);
    await expect(removeEntries(testHost(), boot, [COUNTED])).rejects.toThrow('ENOENT');
  });

  test('is blessed by us as well, and refused where there are two of it', async () => {
    const boot = bootWith(ENTRY);
    const [found] = listEntries(boot).entries;
    if (found === undefined) throw new Error('no entry');
    const [from, to] = [COUNTED, BLESSED].map((file) => `${boot.path}/loader/entries/${file}`) as [string, string];
    renameSync(from, to);
    await expect(blessEntry(testHost(), boot, found)).resolves.toBe(BLESSED);
    expect(readdirSync(`${boot.path}/loader/entries`)).toEqual([BLESSED, 'other.conf']);
    copyFileSync(to, from);
    await expect(blessEntry(testHost(), boot, found)).rejects.toThrow('Both');
  });

  test.each([1, 2])('is tried as before, by GRUB too, where barrier %i of its blessing fails', async (failing) => {
    const boot = { ...bootWith(ENTRY), isGrub: true };
    const block = '# GRUB Environment Block\nhostctl_check=1\nhostctl_try=2\nhostctl_left=1\n'.padEnd(1024, '#');
    mkdirSync(`${boot.path}/grub`);
    writeFileSync(`${boot.path}/grub/grubenv`, block);
    const found = listEntries(boot).entries.find(({ sequence }) => sequence === 2);
    if (found === undefined) throw new Error('no entry');
    const host = testHost();
    let barriers = 0;
    const syncfs = (): void => {
      barriers += 1;
      if (barriers === failing) throw new Error('no barrier');
    };
    const failingHost = { ...host, syscalls: { ...host.syscalls, syncfs } };
    await expect(blessEntry(failingHost, boot, found)).rejects.toThrow('no barrier');
    expect(readdirSync(`${boot.path}/loader/entries`)).toEqual([COUNTED, 'other.conf']);
    expect(readFileSync(`${boot.path}/grub/grubenv`, 'latin1')).toBe(block);
    await expect(blessEntry(host, boot, found)).resolves.toBe(BLESSED);
    expect(readFileSync(`${boot.path}/grub/grubenv`, 'latin1')).toMatch(/hostctl_good=2\n/);
  });
});
