/** The upgrade timer on a real machine: it fires at its hour, stages what the tag means since, and a reboot applies it. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { type Answers, runGuest, statusOf, type Step } from '../vm/lib/guest.ts';
import { copyDisk, installedDisk, LAYOUT_SERIAL, MOUNT_LAYOUT, MOVE_TAG } from '../vm/lib/installed-disk.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { type TestImage, testImage } from '../vm/lib/test-image.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the upgrade timer: ${reason}`);

/** No machine waits for another one here. */
const AT_ONCE = '/run/systemd/system/hostctl-upgrade.timer.d';

describe.skipIf(reason !== undefined)('The upgrade timer', () => {
  let image: TestImage;
  let folder: string;
  let disk: string;
  let isKept = false;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hostctl-timer-'));
    image = await testImage(await buildPackage(folder), say);
    disk = await copyDisk((await installedDisk(image, say)).path, join(folder, 'disk.img'));
  });
  afterAll(async () => {
    if (isKept) say(`Disk and logs are kept in ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  });

  async function boot(name: string, steps: readonly Step[]): Promise<Answers> {
    onTestFailed(() => {
      isKept = true;
    });
    const guest = await runGuest({
      folder,
      name,
      disks: [{ path: disk }, { path: image.disk, serial: LAYOUT_SERIAL }],
      steps: [...steps, { name: 'status', run: 'hostctl status --json' }],
      deadlineMs: 1_800_000,
      shutDown: true,
    });
    say(`${name}: ${guest.seconds} s`);
    return guest.answers;
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
