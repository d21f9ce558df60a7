/**
 * The chain on a real machine: installed by `hostctl install to-disk`, booted by firmware and systemd-boot, updated and
 * rolled back from inside; then its disk is tampered with. The tests build on each other; each boot is one process.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { type Answer, type Answers, runGuest, type Step } from './lib/guest.ts';
import {
  copyDisk,
  installedDisk,
  LAYOUT_SERIAL,
  type MadeDisk,
  MOUNT_LAYOUT,
  updatedDisk,
} from './lib/installed-disk.ts';
import { verityTail } from './lib/offline-verity.ts';
import { reasonNoMachines } from './lib/requirements.ts';
import { StoppedDisk } from './lib/stopped-disk.ts';
import { PROBE_FOLDER, probe, type TestImage, testImage } from './lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the machine tests: ${reason}`);

interface Status {
  readonly booted: number | null;
  readonly next: number | null;
  readonly deployments: readonly {
    readonly id: number;
    readonly state: string;
    readonly composefs: { readonly digest: string; readonly verity: string };
    readonly entry: { readonly file: string; readonly kargs: readonly string[] } | null;
  }[];
}

interface Mount {
  readonly target: string;
  readonly source: string;
  readonly fstype: string;
  readonly options: string;
}

/** What every boot of a deployment is asked. */
const COMMON: readonly Step[] = [
  { name: 'state', run: 'systemctl is-system-running --wait || { systemctl --failed; false; }' },
  { name: 'cmdline', run: 'cat /proc/cmdline' },
  { name: 'mounts', run: 'findmnt --json --list --output TARGET,SOURCE,FSTYPE,OPTIONS' },
  { name: 'status', run: 'hostctl status --json' },
  { name: 'release', run: `cat /${PROBE_FOLDER}/release; ls /${PROBE_FOLDER}` },
];

/** The first boot: what every boot is asked, marks left in /etc and /var, and version 2 deployed. */
const FIRST_BOOT: readonly Step[] = [
  ...COMMON,
  { name: 'usr', run: 'touch /usr/x', mayFail: true },
  { name: 'remount', run: 'mount -o remount,rw /', mayFail: true },
  { name: 'local', run: 'echo local >/etc/local && echo data >/var/data && cat /etc/machine-id' },
  { name: 'first', run: 'cat /var/lib/hostctl-test/first' },
  { name: 'blessed', run: 'ls /boot/loader/entries' },
  { name: 'layout', run: MOUNT_LAYOUT },
  { name: 'deploy', run: 'hostctl deploy oci:/run/layout:v2' },
  { name: 'after', run: 'hostctl status --json' },
];

/** The composefs digest that `install` and `deploy` print. */
function imageIn(output: string): string {
  const digest = /^Image ([0-9a-f]{128})$/m.exec(output)?.[1];
  if (digest === undefined) throw new Error(`No digest in: ${output}`);
  return digest;
}

function statusOf(guest: Answers, step = 'status'): Status {
  return JSON.parse(guest.ok(step)) as Status;
}

function mountsOf(guest: Answers): readonly Mount[] {
  return (JSON.parse(guest.ok('mounts')) as { filesystems: readonly Mount[] }).filesystems;
}

/** The one digest: on the command line, in the mount source, in the status. */
function expectBootedDigest(guest: Answers, digest: string): void {
  expect(guest.ok('cmdline')).toContain(` composefs.digest=v1-sha512-12:${digest} `);
  expect(mountsOf(guest).find(({ target }) => target === '/')).toMatchObject({
    source: `composefs:${digest}`,
    fstype: 'overlay',
  });
  const status = statusOf(guest);
  const booted = status.deployments.find(({ id }) => id === status.booted);
  expect(booted?.composefs).toMatchObject({ digest, verity: 'required' });
}

describe.skipIf(reason !== undefined)('A machine installed by hostctl', () => {
  let image: TestImage;
  let folder: string;
  /** After the first boot: version 1 ran, version 2 is deployed. The reboots and the tampering start from here. */
  let updated: MadeDisk;
  /** The disk under test. */
  let disk: string;
  let v1: string;
  let v2: string;
  let kept = false;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hostctl-machine-'));
    image = await testImage(await buildPackage(folder), say);
    const installed = await installedDisk(image, say);
    updated = await updatedDisk(image, installed, FIRST_BOOT, say);
    v1 = imageIn(installed.answers.ok('install'));
    v2 = imageIn(updated.answers.ok('deploy'));
    disk = await copyDisk(updated.path, join(folder, 'disk.img'));
  });
  afterAll(async () => {
    if (kept) say(`Disk, variable store and logs are kept in ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  });

  /** Boots the disk with the image's layout beside it. */
  async function boot(name: string, steps: readonly Step[]): Promise<Answers> {
    onTestFailed(() => {
      kept = true;
    });
    const guest = await runGuest({
      folder,
      name,
      disks: [{ path: disk }, { path: image.disk, serial: LAYOUT_SERIAL }],
      steps: [...COMMON, ...steps],
    });
    say(`${name}: ${guest.seconds} s`);
    return guest.answers;
  }

  test('boots the installed image, verified and with nothing else in the mount table', () => {
    const guest = updated.answers;
    expect(guest.ok('state')).toBe('running\n');
    expectBootedDigest(guest, v1);
    const mounts = mountsOf(guest);
    expect(mounts.filter(({ fstype, source }) => fstype === 'erofs' || /hostctl|loop/.test(source))).toEqual([]);
    const options = (target: string): string | undefined =>
      mounts.find((mount) => mount.target === target)?.options.split(',')[0];
    expect(['/', '/sysroot', '/etc', '/var'].map(options)).toEqual(['ro', 'ro', 'rw', 'rw']);
    expect(guest.of('usr').output).toContain('Read-only file system');
    expect(guest.of('remount').status).not.toBe(0);
    expect(guest.ok('first')).toBe('copied at the first installation\n');
    expect(guest.ok('release')).toMatch(/^1\nonly-in-1\n/);
    expect(guest.ok('blessed')).toBe('hostctl-00000001.conf\n');

    expect(v2).not.toBe(v1);
    expect(statusOf(guest, 'after')).toMatchObject({
      booted: 1,
      next: 2,
      deployments: [
        { id: 2, composefs: { digest: v2 }, state: 'trying' },
        { id: 1, composefs: { digest: v1 }, state: 'good' },
      ],
    });
  });

  test('runs the second version after a reboot, with /etc and /var as they were left', async () => {
    const guest = await boot('version-2', [
      { name: 'kept', run: 'cat /etc/local /var/data' },
      { name: 'default', run: 'cat /etc/hostctl-test.conf' },
      { name: 'blessed', run: 'ls /boot/loader/entries' },
      { name: 'rollback', run: 'hostctl rollback' },
      { name: 'after', run: 'hostctl status --json' },
    ]);
    expect(guest.ok('state')).toBe('running\n');
    expectBootedDigest(guest, v2);
    expect(guest.ok('release')).toBe('2\nprobe-a\nprobe-b\nprobe-c\nprobe-d\nprobe-e\nrelease\n');
    expect(guest.ok('kept')).toBe('local\ndata\n');
    expect(guest.ok('default')).toBe('default of version 2\n');
    expect(guest.ok('blessed')).toContain('hostctl-00000002.conf\n');
    expect(statusOf(guest)).toMatchObject({ booted: 2, next: 2 });
    guest.ok('rollback');
    expect(statusOf(guest, 'after')).toMatchObject({ booted: 2, next: 1 });
  });

  test('runs the first version again after a rollback, on its own /etc and the shared /var', async () => {
    const guest = await boot('version-1-again', [
      { name: 'kept', run: 'cat /etc/local /var/data /etc/hostctl-test.conf' },
    ]);
    expect(guest.ok('state')).toBe('running\n');
    expectBootedDigest(guest, v1);
    expect(guest.ok('kept')).toBe('local\ndata\ndefault of version 1\n');
    expect(statusOf(guest)).toMatchObject({ booted: 1, next: 1 });
  });

  describe('whose disk was tampered with', () => {
    const objectPath = (digest: string): string => `/composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    const probeObject = (name: string): string => objectPath(verityTail(Buffer.from(probe(name)), 'sha512').digest);

    beforeAll(async () => {
      await copyDisk(updated.path, disk);
    });

    /** Boots version 2, which must not come up, and returns what the hook recorded. */
    async function refusedBoot(name: string): Promise<Record<string, string>> {
      onTestFailed(() => {
        kept = true;
      });
      const guest = await runGuest({ folder, name, disks: [{ path: disk }], steps: COMMON, expectNoBoot: true });
      say(`${name}: ${guest.seconds} s`);
      // By itself, into the next try: the command line says so while tries are counted.
      expect(guest.ended).toBe(true);
      const record = await (await StoppedDisk.open(disk)).read(`/state/hostctl/boot-failure-${v2}`);
      const fields = Object.fromEntries(
        record
          .split('\n')
          .filter(Boolean)
          .map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]),
      );
      expect(guest.serial).toContain(`Refusing to boot: ${fields.message} (${fields.reason})`);
      return fields;
    }

    test('does not boot an image with one changed byte', async () => {
      const stopped = await StoppedDisk.open(disk);
      await stopped.flipByte(objectPath(v2), 1030);
      expect(await refusedBoot('byte-of-the-image')).toMatchObject({ digest: v2, reason: 'mount-failed' });
      await (await StoppedDisk.open(disk)).flipByte(objectPath(v2), 1030);
    });

    test('does not boot another image under the name', async () => {
      const stopped = await StoppedDisk.open(disk);
      const inode = await stopped.inode(objectPath(v2));
      await stopped.relink(objectPath(v2), await stopped.inode(objectPath(v1)));
      expect(await refusedBoot('other-image')).toMatchObject({
        reason: 'image-mismatch',
        message: `The image ${v2} has the digest sha512:${v1} instead`,
      });
      await (await StoppedDisk.open(disk)).relink(objectPath(v2), inode);
    });

    test('does not boot an image that is missing, and its tries are then used up', async () => {
      const stopped = await StoppedDisk.open(disk);
      await stopped.unlink(`/composefs/images/${v2}`);
      expect(await refusedBoot('missing-image')).toMatchObject({ reason: 'image-missing' });
      expect(await (await StoppedDisk.open(disk)).bootFiles('/loader/entries')).toEqual([
        'hostctl-00000001.conf',
        'hostctl-00000002+0-3.conf',
      ]);
    });

    test('falls back to the good version and serves no wrong byte of it', async () => {
      const stopped = await StoppedDisk.open(disk);
      await stopped.flipByte(probeObject('a'), 5000);
      await stopped.relink(probeObject('b'), await stopped.inode(probeObject('c')));
      await stopped.replace(probeObject('e'), probe('e'));

      const folderIn = (root: string): string => `${root}/${PROBE_FOLDER}`;
      const readAll = (root: string): Step[] =>
        ['a', 'b', 'c', 'e'].map((name) => ({
          name: `${root === '' ? 'root' : 'control'}-${name}`,
          run: `cat ${folderIn(root)}/probe-${name}`,
        }));
      const guest = await boot('tampered-objects', [
        ...readAll(''),
        {
          name: 'control',
          run: [
            'mkdir -p /run/control/lower /run/control/root',
            `mount -t erofs -o ro /sysroot/composefs/images/${v1} /run/control/lower`,
            'mount -t overlay -o ro,metacopy=on,redirect_dir=on,lowerdir=/run/control/lower::/sysroot/composefs/objects overlay /run/control/root',
          ].join(' && '),
        },
        ...readAll('/run/control/root'),
      ]);
      expectBootedDigest(guest, v1);

      const eio = /Input\/output error/;
      const answer = (step: string): Answer => guest.of(step);
      // A changed block: what is read before it is right, the rest an error.
      const prefix = answer('root-a').output.replace(/cat: .*\n$/, '') ?? '';
      expect(probe('a').startsWith(prefix)).toBe(true);
      expect(answer('root-a')).toMatchObject({ status: 1, output: expect.stringMatching(eio) as string });
      // Another valid file, and the right bytes without fs-verity: not opened at all.
      expect(answer('root-b')).toMatchObject({
        status: 1,
        output: expect.stringMatching(/^cat: .*error\n$/) as string,
      });
      expect(answer('root-e')).toMatchObject({
        status: 1,
        output: expect.stringMatching(/^cat: .*error\n$/) as string,
      });
      expect(guest.ok('root-c')).toBe(probe('c'));

      // The same disk without verity=require, which shows that the checks above can fail.
      guest.ok('control');
      expect(answer('control-a')).toMatchObject({ status: 1, output: expect.stringMatching(eio) as string });
      expect(guest.ok('control-b')).toBe(probe('c'));
      expect(guest.ok('control-e')).toBe(probe('e'));
    });
  });
});
