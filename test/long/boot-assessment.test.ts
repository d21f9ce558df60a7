/**
 * Bad updates of every kind, each with one try: after it the machine is back on the good deployment by itself, says which
 * digest failed and why, and does not take it again. The disks are made on this host; every boot is one process.
 */

import { readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../scripts/lib/run.ts';
import { statusOf } from '../vm/lib/guest.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import { required, SYSTEM } from '../vm/lib/required-unit.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import type { Change, ScratchHost, TrialDisk } from '../vm/lib/trial-disk.ts';
import { expectUndone, FAILED_UNIT, Trials } from './lib/trials.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping boot assessment: ${reason}`);

interface Kind extends Change {
  readonly name: string;
  readonly reason: RegExp;
  /** Done to the finished disk. */
  readonly tamper?: (disk: StoppedDisk, made: TrialDisk) => Promise<void>;
  /** Shown with GRUB as well. */
  readonly onGrub?: true;
}

const HANGS = '[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\nTimeoutStartSec=infinity\n';
const objectPath = (digest: string): string => `/composefs/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;

/** The one kernel directory that the good deployment does not use. */
async function ownKernel({ boot }: ScratchHost): Promise<string> {
  const entries = join(boot, 'loader/entries');
  const used = await run('cat', [join(entries, 'hostctl-00000001.conf')]);
  const names = await readdir(join(boot, 'hostctl'));
  const own = names.find((name) => !used.includes(name));
  if (own === undefined) throw new Error('Both deployments have the same kernel');
  return join(boot, 'hostctl', own);
}

/** Makes the kernel directory of the update its own. */
const OTHER_INITRAMFS = { 'etc/changed': 'changed\n' };

const KINDS: readonly Kind[] = [
  {
    name: 'kernel panic',
    onGrub: true,
    initramfs: { init: '#!/bin/sh\nmount -t proc proc /proc\necho c >/proc/sysrq-trigger\nsleep 60\n' },
    reason: /the kernel, the initramfs or a service failed or hung \(incomplete\)/,
  },
  {
    name: 'no init',
    onGrub: true,
    files: { 'usr/lib/bootc/kargs.d/90-init.toml': 'kargs = ["init=/usr/lib/missing"]\n' },
    reason: /\(incomplete\)/,
  },
  {
    name: 'hang in the initramfs',
    initramfs: {
      'etc/systemd/system/hang.service': `[Unit]\nDefaultDependencies=no\nBefore=initrd-root-fs.target\n${HANGS}`,
      'etc/systemd/system/initrd-root-fs.target.requires/hang.service': '-> ../hang.service',
      'etc/systemd/system/initrd.target.d/60-test.conf': '[Unit]\nJobTimeoutSec=30\n',
    },
    reason: /\(incomplete\)/,
  },
  {
    name: 'hang in userspace',
    files: {
      [`${SYSTEM}/hang.service`]: `[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n${HANGS}`,
      [`${SYSTEM}/sysinit.target.requires/hang.service`]: '-> ../hang.service',
      [`${SYSTEM}/boot-complete.target.d/60-test.conf`]: '[Unit]\nJobTimeoutSec=120\n',
    },
    reason: /boot-complete\.target was not reached in time.* \(timeout\)/,
  },
  {
    name: 'failed required unit',
    onGrub: true,
    ...FAILED_UNIT,
    reason: /Units failed: bad\.service.* \(unit-failed\)/,
  },
  {
    name: 'required unit that is not there',
    files: {
      [`${SYSTEM}/boot-complete.target.requires/missing.service`]: '-> ../missing.service',
      [`${SYSTEM}/hostctl-mark-failed.timer.d/60-test.conf`]: '[Timer]\nOnActiveSec=\nOnActiveSec=60\n',
    },
    reason: /boot-complete\.target was not reached in time.* \(timeout\)/,
  },
  {
    name: 'missing image',
    onGrub: true,
    damage: ({ sysroot }, digest) => rm(join(sysroot, 'composefs/images', digest)),
    reason: /does not exist in the repository \(image-missing\)/,
  },
  {
    name: 'corrupt image',
    tamper: (disk, { bad }) => disk.flipByte(objectPath(bad), 1030),
    reason: /\(mount-failed\)/,
  },
  {
    name: 'corrupt object on the boot path',
    own: ['usr/lib/systemd/systemd'],
    tamper: (disk, { own: [systemd = ''] }) => disk.flipByte(objectPath(systemd), 1030),
    reason: /Cannot read \/usr\/lib\/systemd\/systemd of the image: .*\(image-unreadable\)/,
  },
  {
    name: 'missing state directory',
    damage: ({ sysroot }, digest) => rm(join(sysroot, 'state/deploy', digest), { recursive: true }),
    reason: /does not exist \(state-missing\)/,
  },
  {
    name: 'missing kernel',
    onGrub: true,
    initramfs: OTHER_INITRAMFS,
    damage: async (host) => rm(join(await ownKernel(host), 'linux')),
    reason: /left out the entry of deployment 2: .* is missing \(entry-skipped\)/,
  },
  {
    name: 'broken initrd',
    onGrub: true,
    initramfs: OTHER_INITRAMFS,
    damage: async (host) => {
      const initrd = join(await ownKernel(host), 'initrd');
      await truncate(initrd, 0);
      await writeFile(initrd, Buffer.alloc(1 << 20, 'no initrd '));
    },
    reason: /\(incomplete\)/,
  },
  {
    name: 'full root',
    files: required('full', '/usr/bin/dd if=/dev/zero of=/var/full bs=1M'),
    reason: /\((unit-failed|incomplete)\)/,
  },
];

/** systemd-boot with all of them, GRUB with those that differ for it. */
const LOADERS = [
  { loader: 'systemd-boot', kinds: KINDS },
  { loader: 'grub', kinds: KINDS.filter(({ onGrub }) => onGrub) },
] as const;

describe.skipIf(reason !== undefined).each(LOADERS)('A bad update undoes itself with $loader:', ({ loader, kinds }) => {
  const chain = new GuestChain(`assessment-${loader}`, say);
  let trials: Trials;

  beforeAll(async () => {
    trials = await Trials.open(chain, loader, say);
  });
  afterAll(() => trials.close());

  test('one that is not bad stays, and is good', async () => {
    const made = await trials.make('fine', { tries: 3 });
    const guest = await trials.goodBoot('fine', made, [{ name: 'entries', run: 'ls /boot/loader/entries' }]);
    expect(guest.ok('cmdline')).toContain(`:${made.bad} `);
    expect(statusOf(guest)).toMatchObject({
      booted: 2,
      next: 2,
      warnings: [],
      deployments: [{ state: 'good' }, { state: 'good' }],
    });
    expect(guest.ok('entries')).not.toContain('+');
    expect(guest.ok('metrics')).toMatch(/^hostctl_boot_failed 0$/m);
  });

  test.each(kinds)('$name', async (kind) => {
    const name = kind.name.replaceAll(' ', '-');
    const made = await trials.make(name, kind);
    await kind.tamper?.(await StoppedDisk.open(made.path), made);
    // What the loader leaves out is not even tried.
    if (kind.name !== 'missing kernel') await trials.failedBoot(`${name}-bad`, made);
    expectUndone(await trials.goodBoot(`${name}-good`, made), made, kind.reason);
    await rm(made.path);
  });
});
