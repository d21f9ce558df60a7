/**
 * Bad updates of every kind on a machine with systemd-boot: each has one try, and after it the machine is back on the
 * good deployment by itself, says which digest failed and why, and does not take it again. The disks are made on this
 * host; every boot is one process.
 */

import { readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { run } from '../../scripts/lib/run.ts';
import { type Answers, runGuest, type Step } from '../vm/lib/guest.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import { testImage } from '../vm/lib/test-image.ts';
import { type Change, TrialDisks, type ScratchHost, type TrialDisk } from '../vm/lib/trial-disk.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping boot assessment: ${reason}`);

const BOOT_MS = 900_000;

/** A boot that is expected to end by itself: nothing here would end it. */
const NEVER_ENDING: readonly Step[] = [{ name: 'wait', run: 'sleep infinity' }];

interface Status {
  readonly booted: number | null;
  readonly next: number | null;
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
  readonly deployments: readonly { readonly id: number; readonly state: string }[];
}

interface Kind extends Change {
  readonly name: string;
  readonly reason: RegExp;
  /** Done to the finished disk. */
  readonly tamper?: (disk: StoppedDisk, made: TrialDisk) => Promise<void>;
}

const SYSTEM = 'usr/lib/systemd/system';
const HANGS = '[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\nTimeoutStartSec=infinity\n';
const FAILS = (before: string, command: string): string =>
  `[Unit]\nBefore=${before}\n[Service]\nType=oneshot\nExecStart=${command}\n`;
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
    initramfs: { init: '#!/bin/sh\nmount -t proc proc /proc\necho c >/proc/sysrq-trigger\nsleep 60\n' },
    reason: /the kernel, the initramfs or a service failed or hung \(incomplete\)/,
  },
  {
    name: 'no init',
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
    files: {
      [`${SYSTEM}/bad.service`]: FAILS('boot-complete.target', '/bin/false'),
      [`${SYSTEM}/boot-complete.target.requires/bad.service`]: '-> ../bad.service',
    },
    reason: /Units failed: bad\.service.* \(unit-failed\)/,
  },
  {
    name: 'missing image',
    damage: ({ sysroot }, digest) => rm(join(sysroot, 'composefs/images', digest)),
    reason: /does not exist in the repository \(image-missing\)/,
  },
  {
    name: 'corrupt image',
    tamper: (disk, { bad }) => disk.flipByte(objectPath(bad), 1030),
    reason: /\(mount-failed\)/,
  },
  {
    name: 'missing state directory',
    damage: ({ sysroot }, digest) => rm(join(sysroot, 'state/deploy', digest), { recursive: true }),
    reason: /does not exist \(state-missing\)/,
  },
  {
    name: 'missing kernel',
    initramfs: OTHER_INITRAMFS,
    damage: async (host) => rm(join(await ownKernel(host), 'linux')),
    reason: /left out the entry of deployment 2: .* is missing \(entry-skipped\)/,
  },
  {
    name: 'broken initrd',
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
    files: {
      [`${SYSTEM}/full.service`]: FAILS('boot-complete.target', '/usr/bin/dd if=/dev/zero of=/var/full bs=1M'),
      [`${SYSTEM}/boot-complete.target.requires/full.service`]: '-> ../full.service',
    },
    reason: /\((unit-failed|incomplete)\)/,
  },
];

describe.skipIf(reason !== undefined)('A bad update undoes itself:', () => {
  let folder: string;
  let disks: TrialDisks;
  let failures = 0;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hostctl-assessment-'));
    disks = await TrialDisks.open(await testImage(await buildPackage(folder), say), folder);
  });
  afterAll(async () => {
    await disks.close();
    if (failures > 0) say(`Disks and logs are kept in ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  });

  /** A boot of the update, which ends by itself. */
  async function failedBoot(name: string, made: TrialDisk): Promise<string> {
    const guest = await runGuest({
      folder,
      name,
      disks: [{ path: made.path }],
      steps: NEVER_ENDING,
      expectNoBoot: true,
      deadlineMs: BOOT_MS,
    });
    say(`${name}: ${guest.seconds} s, ended ${guest.ended}`);
    expect(guest.ended).toBe(true);
    return guest.serial;
  }

  async function goodBoot(name: string, made: TrialDisk, steps: readonly Step[]): Promise<Answers> {
    const guest = await runGuest({
      folder,
      name,
      disks: [{ path: made.path }, { path: made.layout, serial: 'layout' }],
      steps: [
        {
          name: 'units',
          run: 'systemctl is-system-running --wait; systemctl list-units --failed; journalctl -b --no-pager -o short-monotonic | grep -E "hostctl" | tail -60',
          mayFail: true,
        },
        { name: 'status', run: 'hostctl status --json' },
        { name: 'cmdline', run: 'cat /proc/cmdline' },
        { name: 'journal', run: 'journalctl -b -o cat -u hostctl-mark-good' },
        { name: 'metrics', run: 'cat /run/hostctl/metrics.prom' },
        {
          name: 'state',
          run: 'ls -l /sysroot/state/hostctl; cd /sysroot/state/hostctl && head -v -n 20 trial-* boot-failure-* failed fallback',
          mayFail: true,
        },
        {
          name: 'layout',
          run: `mkdir -p ${made.layoutPath} && mount -o ro /dev/disk/by-id/virtio-layout ${made.layoutPath}`,
        },
        { name: 'upgrade', run: 'hostctl upgrade --unchanged-exit-77', mayFail: true },
        ...steps,
      ],
      deadlineMs: BOOT_MS,
    });
    say(`${name}: ${guest.seconds} s`);
    return guest.answers;
  }

  /** On the good deployment again, and everybody knows why. */
  function expectUndone(guest: Answers, { good, bad }: TrialDisk, why: RegExp): void {
    expect(guest.ok('cmdline')).toContain(`:${good} `);
    const status = JSON.parse(guest.ok('status')) as Status;
    expect(status).toMatchObject({
      booted: 1,
      next: 1,
      deployments: [
        { id: 2, state: 'failed' },
        { id: 1, state: 'good' },
      ],
    });
    const message = status.warnings.find(({ code }) => code === 'boot-failed')?.message ?? '';
    expect(message).toContain(`Deployment 2 (${bad}) `);
    expect(message).toMatch(why);
    expect(guest.ok('journal')).toContain(message);
    expect(guest.ok('metrics')).toMatch(
      new RegExp(`^hostctl_boot_failed\\{id="2",digest="${bad}",reason="[a-z-]+"\\} 1$`, 'm'),
    );
    expect(guest.of('upgrade').output).toContain('failed to boot as deployment 2');
    expect(guest.of('upgrade').status).toBe(77);
  }

  test('one that is not bad stays, and is good', async () => {
    failures += 1;
    const made = await disks.make('fine', {});
    const guest = await goodBoot('fine', made, [{ name: 'entries', run: 'ls /boot/loader/entries' }]);
    expect(guest.ok('cmdline')).toContain(`:${made.bad} `);
    const status = JSON.parse(guest.ok('status')) as Status;
    expect(status).toMatchObject({
      booted: 2,
      next: 2,
      warnings: [],
      deployments: [{ state: 'good' }, { state: 'good' }],
    });
    expect(guest.ok('entries')).toBe('hostctl-00000001.conf\nhostctl-00000002.conf\n');
    expect(guest.ok('metrics')).toMatch(/^hostctl_boot_failed 0$/m);
    failures -= 1;
  });

  test.each(KINDS)('$name', async (kind) => {
    failures += 1;
    const name = kind.name.replaceAll(' ', '-');
    const made = await disks.make(name, kind);
    await kind.tamper?.(await StoppedDisk.open(made.path), made);
    // What the loader leaves out is not even tried.
    if (kind.name !== 'missing kernel') await failedBoot(`${name}-bad`, made);
    expectUndone(await goodBoot(`${name}-good`, made, []), made, kind.reason);
    failures -= 1;
    await rm(made.path);
  });
});
