/**
 * Boots of machines on which an update has just been deployed: those that are to end by themselves, and those on what
 * is good, which are asked what they know of it.
 */

import { expect } from 'vitest';
import { buildPackage } from '../../../scripts/lib/deb.ts';
import type { StatusDocument } from '../../../src/cli/view/status-json.ts';
import type { Loader } from '../../vm/lib/debian.ts';
import { type Answers, statusOf, type Step } from '../../vm/lib/guest.ts';
import type { GuestChain } from '../../vm/lib/guest-chain.ts';
import { required } from '../../vm/lib/required-unit.ts';
import { testImage } from '../../vm/lib/test-image.ts';
import { type Change, type TrialDisk, TrialDisks } from '../../vm/lib/trial-disk.ts';

const BOOT_MS = 1_800_000;

/** What systemd does at the first boot of a machine, which each of these is. */
export const FIRST_BOOT_ONLY = ['ldconfig', 'systemd-journal-catalog-update', 'systemd-update-done'].map(
  (unit) => `systemd.mask=${unit}.service`,
);

/** A boot that is expected to end by itself: nothing here would end it. */
const NEVER_ENDING: readonly Step[] = [{ name: 'wait', run: 'sleep infinity' }];

/** What it says of the update that failed; empty where it says nothing. */
export function failureIn({ warnings }: StatusDocument): string {
  return warnings.find(({ code }) => code === 'boot-failed')?.message ?? '';
}

/** An update with a unit that fails. */
export const FAILED_UNIT: Change = { files: required('bad', '/bin/false') };

export class Trials {
  readonly #chain: GuestChain;
  readonly #disks: TrialDisks;

  private constructor(chain: GuestChain, disks: TrialDisks) {
    this.#chain = chain;
    this.#disks = disks;
  }

  static async open(chain: GuestChain, loader: Loader, say: (line: string) => void): Promise<Trials> {
    const image = await testImage(await buildPackage(chain.folder), say, { loader });
    return new Trials(chain, await TrialDisks.open(image, chain.folder, { loader }));
  }

  close(): Promise<void> {
    return this.#disks.close();
  }

  make(name: string, change: Change): Promise<TrialDisk> {
    this.#chain.forget();
    return this.#disks.make(name, change);
  }

  /** A boot of the update, which ends by itself. */
  async failedBoot(name: string, { path }: TrialDisk): Promise<void> {
    const guest = await this.#chain.boot(name, { ...machine(path), steps: NEVER_ENDING, expectNoBoot: true });
    expect(guest.ended).toBe(true);
  }

  /** A boot that stops where it is with this on its console. */
  async stoppedBoot(name: string, { path }: TrialDisk, message: string): Promise<void> {
    const stopped = { ...machine(path), stopAfter: message };
    const guest = await this.#chain.boot(name, { ...stopped, steps: NEVER_ENDING, expectNoBoot: true });
    expect(guest.serial).toContain(message);
    expect(guest.ended).toBe(false);
  }

  /** A boot that comes up and is asked everything. Where there are further steps it is shut down in order. */
  async goodBoot(name: string, made: TrialDisk, steps: readonly Step[] = []): Promise<Answers> {
    const mount = `mkdir -p ${made.layoutPath} && mount -o ro /dev/disk/by-id/virtio-layout ${made.layoutPath}`;
    const { answers } = await this.#chain.boot(name, {
      ...machine(made.path),
      disks: [{ path: made.path }, { path: made.layout, serial: 'layout' }],
      steps: [
        // For whoever reads the log.
        { name: 'units', run: 'systemctl is-system-running --wait; systemctl --failed', mayFail: true },
        { name: 'status', run: 'hostctl status --json' },
        { name: 'cmdline', run: 'cat /proc/cmdline' },
        { name: 'journal', run: 'journalctl -b -o cat -u hostctl-mark-good' },
        { name: 'metrics', run: 'cat /run/hostctl/metrics.prom' },
        { name: 'layout', run: mount },
        { name: 'upgrade', run: 'hostctl upgrade --unchanged-exit-77', mayFail: true },
        ...steps,
      ],
      shutDown: steps.length > 0,
    });
    return answers;
  }
}

/** Of one processor, see `expectNoBoot`: a boot that is made again would have used up a try. */
function machine(path: string) {
  return { disks: [{ path }], processors: 1, cmdline: FIRST_BOOT_ONLY, deadlineMs: BOOT_MS } as const;
}

/** On the good deployment again, and everybody knows why. */
export function expectUndone(guest: Answers, { good, bad }: TrialDisk, why: RegExp): void {
  expect(guest.ok('cmdline')).toContain(`:${good} `);
  const status = statusOf(guest);
  expect(status).toMatchObject({ booted: 1, next: 1 });
  expect(status.deployments.map(({ id, state }) => [id, state]).sort()).toEqual([
    [1, 'good'],
    [2, 'failed'],
  ]);
  const message = failureIn(status);
  expect(message).toContain(`Deployment 2 (${bad}) `);
  expect(message).toMatch(why);
  expect(guest.ok('journal')).toContain(message);
  expect(guest.ok('metrics')).toMatch(
    new RegExp(`^hostctl_boot_failed\\{id="2",digest="${bad}",reason="[a-z-]+"\\} 1$`, 'm'),
  );
  expect(guest.of('upgrade').output).toContain('failed to boot as deployment 2');
  expect(guest.of('upgrade').status).toBe(77);
}
