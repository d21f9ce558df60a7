/**
 * The chain on a real machine: installed by `hostctl install to-disk`, booted by firmware and systemd-boot, upgraded,
 * switched, rolled back with a power cut right after, and upgraded again from inside; then its disk is tampered with.
 * The tests build on each other; each boot is one process.
 */

import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { checkBootPartition, cutPower, markedSteps, recordMachine } from '../proof/machine-cuts.ts';
import { type Answer, type Answers, statusOf, type Step } from './lib/guest.ts';
import { GuestChain } from './lib/guest-chain.ts';
import {
  installedDisk,
  LAYOUT_SERIAL,
  type MadeDisk,
  MOUNT_LAYOUT,
  MOVE_TAG,
  updatedDisk,
} from './lib/installed-disk.ts';
import { verityTail } from './lib/offline-verity.ts';
import type { MachineDisk } from './lib/qemu.ts';
import { required } from './lib/required-unit.ts';
import { reasonNoMachines } from './lib/requirements.ts';
import { StoppedDisk } from './lib/stopped-disk.ts';
import { PROBE_FOLDER, probe, type TestImage, testImage } from './lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the machine tests: ${reason}`);

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

/** What is asked where an upgrade was undone. */
const UNDONE: readonly Step[] = [
  { name: 'journal', run: 'journalctl -b -o cat -u hostctl-mark-good' },
  { name: 'layout', run: `${MOUNT_LAYOUT} && ${MOVE_TAG}` },
  { name: 'retaken', run: 'hostctl upgrade --unchanged-exit-77', mayFail: true },
];

/** What is local in /etc, and the one file whose default differs between the versions. */
const READ_ETC = 'cd /etc && grep -s . local late two three four hostctl-test.conf; cat /var/data';

/** The first boot: what every boot is asked, marks left in /etc and /var, and version 2 staged. */
const FIRST_BOOT: readonly Step[] = [
  ...COMMON,
  { name: 'usr', run: 'touch /usr/x', mayFail: true },
  { name: 'remount', run: 'mount -o remount,rw /', mayFail: true },
  { name: 'local', run: 'echo 1 >/etc/local && echo data >/var/data && cat /etc/machine-id' },
  { name: 'first', run: 'cat /var/lib/hostctl-test/first' },
  { name: 'blessed', run: 'ls /boot/loader/entries' },
  { name: 'layout', run: MOUNT_LAYOUT },
  { name: 'nothing-new', run: 'hostctl upgrade --unchanged-exit-77', mayFail: true },
  { name: 'move', run: MOVE_TAG },
  { name: 'check', run: 'hostctl upgrade --check' },
  { name: 'upgrade', run: 'hostctl upgrade' },
  { name: 'late', run: 'echo 1 >/etc/late' },
  { name: 'after', run: 'hostctl status --json' },
];

/** The composefs digest that `install` and `deploy` print. */
function imageIn(output: string): string {
  const digest = /^Image ([0-9a-f]{128})$/m.exec(output)?.[1];
  if (digest === undefined) throw new Error(`No digest in: ${output}`);
  return digest;
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
  const chain = new GuestChain('machine', say);
  let image: TestImage;
  /** After the first boot: version 1 ran, version 2 was staged and finalized. The reboots and the tampering start from here. */
  let updated: MadeDisk;
  let v1: string;
  let v2: string;

  beforeAll(async () => {
    image = await testImage(await buildPackage(chain.folder), say);
    const installed = await installedDisk(image, say);
    updated = await updatedDisk(image, installed, FIRST_BOOT, say);
    v1 = imageIn(installed.answers.ok('install'));
    v2 = imageIn(updated.answers.ok('upgrade'));
    await chain.start(updated.path);
  });

  /** Boots the disk with the image's layout beside it, or other disks. */
  async function boot(name: string, steps: readonly Step[], disks?: readonly MachineDisk[]): Promise<Answers> {
    const { answers } = await chain.boot(name, {
      disks: disks ?? [{ path: chain.disk }, { path: image.disk, serial: LAYOUT_SERIAL }],
      steps: [...COMMON, ...steps],
      deadlineMs: 900_000,
      shutDown: true,
    });
    return answers;
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
    expect(guest.of('nothing-new').status).toBe(77);
    expect(statusOf(guest, 'after')).toMatchObject({
      booted: 1,
      next: 1,
      staged: 2,
      warnings: [],
      deployments: [
        { id: 2, composefs: { digest: v2 }, state: 'staged' },
        { id: 1, composefs: { digest: v1 }, state: 'good' },
      ],
    });
  });

  /** That what booted is what `status` says, and `/etc` and `/var` what they should be. */
  function expectDeployment(guest: Answers, id: number, digest: string, etc: readonly string[]): void {
    expect(guest.ok('state')).toBe('running\n');
    expectBootedDigest(guest, digest);
    expect(statusOf(guest)).toMatchObject({ booted: id, next: id, staged: null, warnings: [] });
    expect(statusOf(guest).deployments.find((deployment) => deployment.id === id)?.state).toBe('good');
    expect(guest.ok('etc')).toBe([...etc, 'data', ''].join('\n'));
  }

  test('runs the upgrade after a reboot, with what was changed in /etc until the shutdown; switches back', async () => {
    const guest = await boot('upgraded', [
      { name: 'etc', run: READ_ETC },
      { name: 'blessed', run: 'ls /boot/loader/entries' },
      { name: 'overlay', run: 'hostctl usr-overlay >/dev/null && touch /usr/x && hostctl status --json' },
      { name: 'layout', run: MOUNT_LAYOUT },
      { name: 'edit', run: 'rm /etc/late' },
      { name: 'switch', run: 'hostctl switch --allow-downgrade oci:/run/layout:v1' },
      { name: 'more', run: 'echo 2 >/etc/two' },
      { name: 'after', run: 'hostctl status --json' },
    ]);
    expectDeployment(guest, 2, v2, ['local:1', 'late:1', 'hostctl-test.conf:default of version 2']);
    expect(guest.ok('release')).toBe('2\nprobe-a\nprobe-b\nprobe-c\nprobe-d\nprobe-e\nrelease\n');
    expect(guest.ok('blessed')).toContain('hostctl-00000002.conf\n');
    expect(statusOf(guest, 'overlay').warnings).toMatchObject([{ code: 'usr-overlay' }]);
    expect(imageIn(guest.ok('switch'))).toBe(v1);
    expect(statusOf(guest, 'after')).toMatchObject({ booted: 2, next: 2, staged: 3 });
  });

  test('runs the image it was switched to after a reboot; rolls back, and loses its power', async () => {
    const machine = await recordMachine(chain.folder, chain.disk, (disks) =>
      boot(
        'switched',
        [
          { name: 'etc', run: READ_ETC },
          { name: 'usr', run: 'ls /usr/x', mayFail: true },
          { name: 'edit', run: 'echo 3 >/etc/three' },
          ...markedSteps([{ name: 'rollback', run: 'hostctl rollback' }]),
          { name: 'after', run: 'hostctl status --json' },
        ],
        disks,
      ),
    );
    const guest = machine.result;
    const { states, problems } = await checkBootPartition(chain.folder, machine);
    expect(problems).toEqual([]);
    expect(states).toBeGreaterThan(20);
    await cutPower(machine);
    expectDeployment(guest, 3, v1, ['local:1', 'two:2', 'hostctl-test.conf:default of version 1']);
    expect(guest.of('usr').status).not.toBe(0);
    expect(statusOf(guest, 'after')).toMatchObject({ booted: 3, next: 2, staged: null });
  });

  test('runs what it was rolled back to after the power cut, on its own /etc; upgrades with local changes', async () => {
    const guest = await boot('rolled-back', [
      { name: 'etc', run: READ_ETC },
      { name: 'layout', run: MOUNT_LAYOUT },
      { name: 'left', run: 'hostctl upgrade --unchanged-exit-77', mayFail: true },
      { name: 'upgrade', run: 'hostctl upgrade --tag v1 --allow-downgrade' },
      { name: 'edit', run: 'echo 4 >/etc/four && echo mine >/etc/hostctl-test.conf' },
      { name: 'after', run: 'hostctl status --json' },
    ]);
    expectDeployment(guest, 2, v2, ['local:1', 'two:2', 'hostctl-test.conf:default of version 2']);
    expect(guest.of('left').status).toBe(77);
    expect(guest.of('left').output).toContain('was left by hand (deployment 3)');
    expect(statusOf(guest, 'after')).toMatchObject({ booted: 2, next: 2, staged: 5 });
  });

  test('runs the last upgrade; gc drops what it may, and fsck reads every byte', async () => {
    const guest = await boot('upgraded-again', [
      { name: 'etc', run: READ_ETC },
      { name: 'gc', run: 'hostctl gc' },
      { name: 'fsck', run: 'hostctl fsck --deep' },
      { name: 'after', run: 'hostctl status --json' },
      { name: 'history', run: 'hostctl history --json' },
    ]);
    expectDeployment(guest, 5, v1, ['local:1', 'two:2', 'four:4', 'hostctl-test.conf:mine']);
    expect(statusOf(guest, 'after').deployments.map(({ id }) => id)).toEqual([5, 3, 2]);
    expect(statusOf(guest, 'after')).toMatchObject({ booted: 5, next: 5, warnings: [] });
    const events = JSON.parse(guest.ok('history')) as readonly { readonly action: string }[];
    expect(events.map(({ action }) => action)).toEqual(['upgrade', 'rollback', 'switch', 'upgrade', 'install']);
  });

  /** On version 1 again, which says which digest was left and why, and does not take it a second time. */
  function expectUndone(guest: Answers, howOften: string, why: RegExp): void {
    expectBootedDigest(guest, v1);
    const status = statusOf(guest);
    expect(status).toMatchObject({ booted: 1, next: 1, deployments: [{ id: 2, state: 'failed' }, { state: 'good' }] });
    const message = status.warnings.find(({ code }) => code === 'boot-failed')?.message ?? '';
    expect(message).toContain(`Deployment 2 (${v2}) ${howOften} and was left by itself: `);
    expect(message).toMatch(why);
    expect(guest.ok('journal')).toContain(message);
    expect(guest.of('retaken')).toMatchObject({
      status: 77,
      output: expect.stringContaining('failed to boot as deployment 2') as string,
    });
  }

  test('leaves an upgrade by itself in which a required service fails', async () => {
    await chain.start(updated.path);
    const entries = '/loader/entries';
    const stopped = await StoppedDisk.open(chain.disk);
    await stopped.renameBootFile(`${entries}/hostctl-00000002+3-0.conf`, 'hostctl-00000002+1-0.conf');
    const units = `/state/deploy/${v2}/etc/systemd/system`;
    await stopped.add({
      [`${units}/boot-complete.target.requires`]: '',
      ...required('bad', '/bin/false', units),
    });
    await endedBoot('failed-unit');
    const guest = await boot('failed-unit-undone', UNDONE);
    expectUndone(guest, 'failed to boot once', /Units failed: bad\.service \(unit-failed\)/);
  });

  /** A boot of version 2, which must not come up and ends by itself, into the next one. Returns its serial log. */
  async function endedBoot(name: string): Promise<string> {
    const disks = [{ path: chain.disk }];
    const guest = await chain.boot(name, { disks, steps: COMMON, expectNoBoot: true, deadlineMs: 900_000 });
    expect(guest.ended).toBe(true);
    return guest.serial;
  }

  describe('whose disk was tampered with', () => {
    const objectPath = (digest: string): string => `/composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    const probeObject = (name: string): string => objectPath(verityTail(Buffer.from(probe(name)), 'sha512').digest);

    beforeAll(async () => {
      await chain.start(updated.path);
    });

    /** Boots version 2 and returns what the hook recorded. */
    async function refusedBoot(name: string): Promise<Record<string, string>> {
      const serial = await endedBoot(name);
      const record = await (await StoppedDisk.open(chain.disk)).read(`/state/hostctl/boot-failure-${v2}`);
      const fields = Object.fromEntries(
        record
          .split('\n')
          .filter(Boolean)
          .map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]),
      );
      expect(serial).toContain(`Refusing to boot: ${fields.message} (${fields.reason})`);
      return fields;
    }

    test('does not boot an image with one changed byte', async () => {
      const stopped = await StoppedDisk.open(chain.disk);
      await stopped.flipByte(objectPath(v2), 1030);
      expect(await refusedBoot('byte-of-the-image')).toMatchObject({ digest: v2, reason: 'mount-failed' });
      await (await StoppedDisk.open(chain.disk)).flipByte(objectPath(v2), 1030);
    });

    test('does not boot another image under the name', async () => {
      const stopped = await StoppedDisk.open(chain.disk);
      const inode = await stopped.inode(objectPath(v2));
      await stopped.relink(objectPath(v2), await stopped.inode(objectPath(v1)));
      expect(await refusedBoot('other-image')).toMatchObject({
        reason: 'image-mismatch',
        message: `The image ${v2} has the digest sha512:${v1} instead`,
      });
      await (await StoppedDisk.open(chain.disk)).relink(objectPath(v2), inode);
    });

    test('does not boot an image that is missing, and its tries are then used up', async () => {
      const stopped = await StoppedDisk.open(chain.disk);
      await stopped.unlink(`/composefs/images/${v2}`);
      expect(await refusedBoot('missing-image')).toMatchObject({ reason: 'image-missing' });
      expect(await (await StoppedDisk.open(chain.disk)).bootFiles('/loader/entries')).toEqual([
        'hostctl-00000001.conf',
        'hostctl-00000002+0-3.conf',
      ]);
    });

    test('falls back to the good version and serves no wrong byte of it', async () => {
      const stopped = await StoppedDisk.open(chain.disk);
      await stopped.flipByte(probeObject('a'), 5000);
      await stopped.relink(probeObject('b'), await stopped.inode(probeObject('c')));
      await stopped.replace(probeObject('e'), probe('e'));

      const folderIn = (root: string): string => `${root}/${PROBE_FOLDER}`;
      const readAll = (root: string): Step[] =>
        ['a', 'b', 'c', 'e'].map((name) => ({
          name: `${root === '' ? 'root' : 'control'}-${name}`,
          run: `cat ${folderIn(root)}/probe-${name}`,
          mayFail: true,
        }));
      const guest = await boot('tampered-objects', [
        ...UNDONE,
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
      expectUndone(guest, 'failed to boot 3 times', /does not exist in the repository \(image-missing\)/);

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
