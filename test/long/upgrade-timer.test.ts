/** The upgrade timer on a real machine: it fires at its hour, stages what the tag means since, and a reboot applies it. */

import { beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { type Answers, statusOf, type Step } from '../vm/lib/guest.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import { installedDisk, LAYOUT_SERIAL, MOUNT_LAYOUT, MOVE_TAG } from '../vm/lib/installed-disk.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { type TestImage, testImage } from '../vm/lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the upgrade timer: ${reason}`);

/** No machine waits for another one here. */
const AT_ONCE = '/run/systemd/system/hostctl-upgrade.timer.d';

describe.skipIf(reason !== undefined)('The upgrade timer', () => {
  const chain = new GuestChain('timer', say);
  let image: TestImage;

  beforeAll(async () => {
    image = await testImage(await buildPackage(chain.folder), say);
    await chain.start((await installedDisk(image, say)).path);
  });

  async function boot(name: string, steps: readonly Step[]): Promise<Answers> {
    const { answers } = await chain.boot(name, {
      disks: [{ path: chain.disk }, { path: image.disk, serial: LAYOUT_SERIAL }],
      steps: [...steps, { name: 'status', run: 'hostctl status --json' }],
      deadlineMs: 1_800_000,
      shutDown: true,
    });
    return answers;
  }

  test('is not enabled by itself; at its hour it stages what the tag means since', async () => {
    const guest = await boot('timer', [
      { name: 'enabled', run: 'systemctl is-enabled hostctl-upgrade.timer', mayFail: true },
      { name: 'layout', run: `${MOUNT_LAYOUT} && ${MOVE_TAG}` },
      {
        name: 'enable',
        run: [
          `mkdir -p ${AT_ONCE} && printf '[Timer]\\nRandomizedDelaySec=0\\nAccuracySec=1s\\n' >${AT_ONCE}/test.conf`,
          'systemctl daemon-reload && systemctl enable --now hostctl-upgrade.timer',
          'systemctl show --property=ActiveState --value hostctl-upgrade.service',
          'date --set "$(date +%F) 23:59:55"',
        ].join(' && '),
      },
      {
        name: 'fired',
        run: [
          'until systemctl show --property=ExecMainExitTimestamp --value hostctl-upgrade.service | grep -q .; do sleep 5; done',
          'systemctl show --property=Result,ExecMainStatus hostctl-upgrade.service',
          'systemctl show --property=LastTriggerUSec --value hostctl-upgrade.timer',
          'journalctl -b -o cat -u hostctl-upgrade.service',
        ].join('\n'),
      },
    ]);
    expect(guest.of('enabled').output).toBe('disabled\n');
    expect(guest.ok('enable')).toMatch(/^inactive$/m);
    expect(guest.ok('fired')).toMatch(/^Result=success$/m);
    expect(guest.ok('fired')).toMatch(/ 00:00:0\d /);
    expect(statusOf(guest)).toMatchObject({ booted: 1, next: 1, staged: 2 });
  });

  test('has staged what boots next', async () => {
    const guest = await boot('applied', []);
    expect(statusOf(guest)).toMatchObject({ booted: 2, next: 2, staged: null, warnings: [] });
  });
});
