/**
 * Applications that a host image is bound to, on a machine that runs them from their images. The tests build on each
 * other; each boot is one process, and the disk with what the references lead to is there in the first of them only.
 */

import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import type { ListedImage } from '../../src/ops/list-images.ts';
import { type Answers, statusOf, type Step } from '../vm/lib/guest.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import type { MachineDisk } from '../vm/lib/qemu.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import { testImage } from '../vm/lib/test-image.ts';
import { AppMachine, APPS, greeting, type Version } from './lib/app-machine.ts';
import { FIRST_BOOT_ONLY } from './lib/trials.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the bound images: ${reason}`);

const SERIAL = 'layouts';
const MOUNT_LAYOUTS = `mkdir -p /run/layouts && mount /dev/disk/by-id/virtio-${SERIAL} /run/layouts`;

/** For each application the image that the root of its process is, and what that process printed. */
const ASK_APPS = `for app in ${APPS.join(' ')}; do
  systemctl is-active --quiet $app || { systemctl status $app $app-root; exit 1; }
  pid=$(systemctl show --property=MainPID --value $app)
  findmnt --task $pid --noheadings --output SOURCE /
  until journalctl -b -o cat _SYSTEMD_UNIT=$app.service _PID=$pid | grep .; do systemctl is-active --quiet $app || exit 1; sleep 1; done
done`;
const STOP_APPS = `systemctl stop ${APPS.map((app) => `${app}-root`).join(' ')}`;
const START_APPS = `systemctl start ${APPS.join(' ')}`;

/** Every file that a deployment could consist of, but for caches and who held the lock last. */
const HOST_FILES = `find /boot /sysroot/composefs /sysroot/state/deploy /sysroot/state/hostctl \\
  -path /sysroot/composefs/hostctl/cache -prune -o -path '/sysroot/state/deploy/*/*' -prune -o \\
  -path '/sysroot/composefs/objects/??' -o -name lock-holder -o \\
  -type d -printf '%p\\n' -o -printf '%p %s %l\\n' | sort`;

const COMMON: readonly Step[] = [
  { name: 'state', run: 'systemctl is-system-running --wait || { systemctl --failed; false; }' },
  { name: 'status', run: 'hostctl status --json' },
  { name: 'apps', run: ASK_APPS },
  { name: 'images', run: 'hostctl image list --json' },
];

/** The images in a repository. What each takes depends on which others are there. */
function imagesIn(guest: Answers, step: string): ListedImage[] {
  return (JSON.parse(guest.ok(step)) as ListedImage[]).map((image) => ({ ...image, bytes: null }));
}

describe.skipIf(reason !== undefined)('A machine whose image is bound to three applications', () => {
  const chain = new GuestChain('bound', say);
  let machine: AppMachine;
  let first: Answers;

  beforeAll(async () => {
    machine = await AppMachine.make(await testImage(await buildPackage(chain.folder), say), chain.folder);
  });

  async function boot(name: string, steps: readonly Step[], more: readonly MachineDisk[] = []): Promise<Answers> {
    const { answers } = await chain.boot(name, {
      disks: [{ path: machine.disk }, ...more],
      steps: [...COMMON, ...steps],
      cmdline: FIRST_BOOT_ONLY,
      processors: 1,
      deadlineMs: 1_800_000,
      shutDown: true,
    });
    return answers;
  }

  /** Every application runs from its image of this version. */
  function expectApps(guest: Answers, version: Version, step = 'apps'): void {
    const expected = APPS.map((app) => `composefs:${machine.digest(app, version)}\n${greeting(app, version)}\n`);
    expect(guest.ok(step)).toBe(expected.join(''));
  }

  test('stages nothing and says why while one of them is not to be had, and everything once it is', async () => {
    const guest = await boot(
      'installed',
      [
        {
          name: 'publish',
          run: `${MOUNT_LAYOUTS} && ${machine.publish(2)} && mv /run/layouts/2/two /run/layouts/away`,
        },
        { name: 'files-before', run: HOST_FILES },
        { name: 'refused', run: 'hostctl upgrade', mayFail: true },
        { name: 'files-after', run: HOST_FILES },
        { name: 'images-after', run: 'hostctl image list --json' },
        { name: 'status-after', run: 'hostctl status --json' },
        { name: 'available', run: 'mv /run/layouts/away /run/layouts/2/two' },
        { name: 'upgrade', run: 'hostctl upgrade' },
        { name: 'files-staged', run: HOST_FILES },
        { name: 'status-staged', run: 'hostctl status --json' },
        { name: 'apps-staged', run: ASK_APPS },
      ],
      [{ path: machine.layoutDisk, serial: SERIAL, discardWrites: true }],
    );
    first = guest;
    expect(guest.ok('state')).toBe('running\n');
    expect(statusOf(guest)).toMatchObject({ booted: 1, next: 1, staged: null, warnings: [] });
    expectApps(guest, 1);
    const bound = imagesIn(guest, 'images').filter((image) => image.bound.length > 0);
    expect(bound.map(({ digest }) => digest).sort()).toEqual(APPS.map((app) => machine.digest(app, 1)).sort());
    expect(bound.map(({ layout }) => layout).sort()).toEqual(['flat', 'split', 'split']);

    expect(guest.of('refused').status).toBe(7);
    expect(guest.of('refused').output).toContain(`hostctl: Cannot get the bound image "${machine.reference('two')}": `);
    expect(guest.ok('files-after')).toBe(guest.ok('files-before'));
    expect(guest.ok('files-staged')).not.toBe(guest.ok('files-before'));
    expect(guest.ok('images-after')).toBe(guest.ok('images'));
    expect(guest.ok('status-after')).toBe(guest.ok('status'));

    expect(statusOf(guest, 'status-staged')).toMatchObject({ booted: 1, next: 1, staged: 2 });
    expectApps(guest, 1, 'apps-staged');
    expect(await (await StoppedDisk.open(machine.disk)).bootFiles('/loader/entries')).toEqual([
      'hostctl-00000001.conf',
      'hostctl-00000002+3-0.conf',
    ]);
  });

  test('runs the new ones after a reboot, by the same names; is rolled back', async () => {
    const guest = await boot('upgraded', [
      { name: 'rollback', run: 'hostctl rollback' },
      { name: 'status-after', run: 'hostctl status --json' },
    ]);
    expect(guest.ok('state')).toBe('running\n');
    expect(statusOf(guest)).toMatchObject({ booted: 2, next: 2, staged: null, warnings: [] });
    expectApps(guest, 2);
    expect(statusOf(guest, 'status-after')).toMatchObject({ booted: 2, next: 1 });
  });

  test('runs the old ones again after the rollback; gc and delete leave what they need', async () => {
    const guest = await boot('rolled-back', [
      { name: 'stop', run: STOP_APPS },
      { name: 'stopped', run: 'hostctl image list --json' },
      { name: 'gc', run: 'hostctl gc' },
      { name: 'collected', run: 'hostctl image list --json' },
      { name: 'delete', run: 'hostctl delete 2 && hostctl gc' },
      { name: 'deleted', run: 'hostctl image list --json' },
      { name: 'start', run: START_APPS },
      { name: 'apps-after', run: ASK_APPS },
      { name: 'fsck', run: 'hostctl fsck --deep' },
      { name: 'status-after', run: 'hostctl status --json' },
    ]);
    expect(guest.ok('state')).toBe('running\n');
    expect(statusOf(guest)).toMatchObject({ booted: 1, next: 1, staged: null, warnings: [] });
    expectApps(guest, 1);
    // Nothing is mounted any more: what stays is kept by its deployment alone.
    const stopped = imagesIn(guest, 'stopped');
    expect(stopped.flatMap(({ mounts, deployments }) => (deployments.length > 0 ? [] : mounts))).toEqual([]);
    expect(stopped.filter(({ bound }) => bound.includes(2))).toHaveLength(APPS.length);
    expect(imagesIn(guest, 'collected')).toEqual(stopped);
    // With the other deployment go its images, and those alone.
    const withoutMounts = (step: string, of = guest) => imagesIn(of, step).map((image) => ({ ...image, mounts: [] }));
    expect(withoutMounts('deleted')).toEqual(withoutMounts('images', first));
    expectApps(guest, 1, 'apps-after');
    expect(statusOf(guest, 'status-after')).toMatchObject({ booted: 1, next: 1, warnings: [] });
  });
});
