/**
 * Boots of machines on which an update has just been deployed: those that are to end by themselves, and those on what
 * is good, which are asked what they know of it.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFailed } from 'vitest';
import { buildPackage } from '../../../scripts/lib/deb.ts';
import type { StatusDocument } from '../../../src/cli/view/status-json.ts';
import type { Loader } from '../../vm/lib/debian.ts';
import { type Answers, runGuest, statusOf, type Step } from '../../vm/lib/guest.ts';
import type { MachineDisk } from '../../vm/lib/qemu.ts';
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
  readonly #folder: string;
  readonly #disks: TrialDisks;
  readonly #say: (line: string) => void;
  #isKept = false;

  private constructor(folder: string, disks: TrialDisks, say: (line: string) => void) {
    this.#folder = folder;
    this.#disks = disks;
    this.#say = say;
  }

  static async open(loader: Loader, say: (line: string) => void): Promise<Trials> {
    const folder = await mkdtemp(join(tmpdir(), `hostctl-assessment-${loader}-`));
    const image = await testImage(await buildPackage(folder), say, { loader });
    return new Trials(folder, await TrialDisks.open(image, folder, { loader }), say);
  }

  async close(): Promise<void> {
    await this.#disks.close();
    if (this.#isKept) this.#say(`Disks and logs are kept in ${this.#folder}`);
    else await rm(this.#folder, { recursive: true, force: true });
  }

  make(name: string, change: Change): Promise<TrialDisk> {
    onTestFailed(() => {
      this.#isKept = true;
    });
    return this.#disks.make(name, change);
  }

  /** A boot of the update, which ends by itself. */
  async failedBoot(name: string, { path }: TrialDisk): Promise<void> {
    const guest = await runGuest({ ...this.#machine(name, path), steps: NEVER_ENDING, expectNoBoot: true });
    this.#say(`${name}: ${guest.seconds} s, ended ${guest.ended}`);
    expect(guest.ended).toBe(true);
  }

  /** A boot that stops where it is with this on its console. */
  async stoppedBoot(name: string, { path }: TrialDisk, message: string): Promise<void> {
    const machine = { ...this.#machine(name, path), stopAfter: message };
    const guest = await runGuest({ ...machine, steps: NEVER_ENDING, expectNoBoot: true });
    this.#say(`${name}: ${guest.seconds} s, ended ${guest.ended}`);
    expect(guest.serial).toContain(message);
    expect(guest.ended).toBe(false);
  }

  /** A boot that comes up and is asked everything. Where there are further steps it is shut down in order. */
  async goodBoot(name: string, made: TrialDisk, steps: readonly Step[] = []): Promise<Answers> {
    const mount = `mkdir -p ${made.layoutPath} && mount -o ro /dev/disk/by-id/virtio-layout ${made.layoutPath}`;
    const machine = this.#machine(name, made.path);
    const guest = await runGuest({
      ...machine,
      disks: [...machine.disks, { path: made.layout, serial: 'layout' }],
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
    this.#say(`${name}: ${guest.seconds} s`);
    return guest.answers;
  }

  /** Of one processor, see `expectNoBoot`: a boot that is made again would have used up a try. */
  #machine(name: string, path: string) {
    const disks: readonly MachineDisk[] = [{ path }];
    return { folder: this.#folder, name, disks, processors: 1, cmdline: FIRST_BOOT_ONLY, deadlineMs: BOOT_MS } as const;
  }
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
