/**
 * A machine started by GRUB, once on a BIOS and once on UEFI, from one and the same disk that `hostctl install to-disk`
 * made: upgraded, rolled back, and rolled back by itself from a deployment that does not come up.
 */

import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { type Answers, statusOf, type Step } from '../vm/lib/guest.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import { installedDisk, LAYOUT_SERIAL, MOUNT_LAYOUT } from '../vm/lib/installed-disk.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import { type TestImage, testImage } from '../vm/lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);

const BOOT_MS = 1_800_000;

const COMMON: readonly Step[] = [
  { name: 'state', run: 'systemctl is-system-running --wait || { systemctl --failed; false; }' },
  { name: 'cmdline', run: 'cat /proc/cmdline' },
  { name: 'status', run: 'hostctl status --json' },
  { name: 'variables', run: "grep -a '^hostctl_' /boot/grub/grubenv" },
];

/** The variables of ours in GRUB's environment block on a stopped disk. */
async function variablesOn(disk: string): Promise<string[]> {
  const block = await (await StoppedDisk.open(disk)).bootFile('/grub/grubenv');
  expect(block).toHaveLength(1024);
  return block.split('\n').filter((line) => line.startsWith('hostctl_'));
}

describe.skipIf(reason !== undefined).each(['bios', 'uefi'] as const)('A machine started by GRUB on %s', (firmware) => {
  const chain = new GuestChain(`grub-${firmware}`, say);
  let image: TestImage;

  beforeAll(async () => {
    image = await testImage(await buildPackage(chain.folder), say, { loader: 'grub' });
    await chain.start((await installedDisk(image, say, 'grub')).path);
  });

  async function boot(name: string, steps: readonly Step[]): Promise<Answers> {
    const { answers } = await chain.boot(name, {
      firmware,
      disks: [{ path: chain.disk }, { path: image.disk, serial: LAYOUT_SERIAL }],
      steps: [...COMMON, ...steps],
      // A boot that is made again, see `KERNEL_DEATH`, would have used up a try.
      processors: 1,
      deadlineMs: BOOT_MS,
      shutDown: true,
    });
    return answers;
  }

  test('boots what was installed, and GRUB shows that it can count', async () => {
    expect(await variablesOn(chain.disk)).toEqual(['hostctl_check=0', 'hostctl_good=1']);
    const guest = await boot('installed', [
      { name: 'efi', run: 'test -d /sys/firmware/efi', mayFail: true },
      { name: 'layout', run: MOUNT_LAYOUT },
      { name: 'switch', run: 'hostctl switch oci:/run/layout:v2' },
    ]);
    expect(guest.of('efi').status).toBe(firmware === 'uefi' ? 0 : 1);
    expect(guest.ok('state')).toBe('running\n');
    expect(guest.ok('variables')).toBe('hostctl_check=1\nhostctl_good=1\n');
    expect(statusOf(guest)).toMatchObject({
      booted: 1,
      next: 1,
      warnings: [],
      deployments: [{ id: 1, state: 'good' }],
    });
    // What was staged got its name at shutdown, and GRUB was told.
    expect(await (await StoppedDisk.open(chain.disk)).bootFiles('/loader/entries')).toEqual([
      'hostctl-00000001.cfg',
      'hostctl-00000001.conf',
      'hostctl-00000002+3-0.conf',
      'hostctl-00000002.cfg',
    ]);
    expect(await variablesOn(chain.disk)).toEqual([
      'hostctl_check=1',
      'hostctl_try=2',
      'hostctl_left=3',
      'hostctl_good=1',
    ]);
  });

  test('tries the upgrade, which is good, and is rolled back', async () => {
    const guest = await boot('upgraded', [
      { name: 'rollback', run: 'hostctl rollback' },
      { name: 'after', run: 'hostctl status --json' },
    ]);
    expect(guest.ok('cmdline')).toContain(' hostctl.counted=2/3');
    expect(guest.ok('state')).toBe('running\n');
    expect(statusOf(guest)).toMatchObject({ booted: 2, next: 2, rollback: 1, warnings: [] });
    expect(guest.ok('variables')).toBe('hostctl_check=1\nhostctl_good=2\n');
    expect(statusOf(guest, 'after')).toMatchObject({ booted: 2, next: 1 });
    expect(await variablesOn(chain.disk)).toEqual(['hostctl_check=1', 'hostctl_good=3']);
  });

  test('runs what it was rolled back to; a deployment without an init is published', async () => {
    const guest = await boot('rolled-back', [
      { name: 'layout', run: MOUNT_LAYOUT },
      { name: 'deploy', run: 'hostctl deploy --tries 1 --karg init=/none oci:/run/layout:v2' },
      { name: 'after', run: 'hostctl status --json' },
    ]);
    expect(guest.ok('cmdline')).not.toContain('hostctl.counted');
    expect(statusOf(guest)).toMatchObject({ booted: 1, next: 1, warnings: [] });
    expect(statusOf(guest, 'after')).toMatchObject({ booted: 1, next: 4 });
    expect(await variablesOn(chain.disk)).toEqual([
      'hostctl_check=1',
      'hostctl_try=4',
      'hostctl_left=1',
      'hostctl_good=3',
    ]);
  });

  test('goes back by itself from what does not come up, and stays there', async () => {
    const disks = [{ path: chain.disk }];
    const bad = await chain.boot('bad', { firmware, disks, steps: COMMON, deadlineMs: BOOT_MS, expectNoBoot: true });
    expect(bad.ended).toBe(true);
    expect(await variablesOn(chain.disk)).toContain('hostctl_left=0');
    const guest = await boot('back', []);
    expect(guest.ok('state')).toBe('running\n');
    const { warnings } = statusOf(guest);
    expect(statusOf(guest)).toMatchObject({ booted: 1, next: 1, warnings: [{ code: 'boot-failed' }] });
    expect(warnings[0]?.message).toMatch(
      /^Deployment 4 \([0-9a-f]{128}\) failed to boot once and was left by itself: /,
    );
    expect(statusOf(guest).deployments[0]).toMatchObject({ id: 4, state: 'failed', triesLeft: 0 });
  });
});
