/**
 * A machine does not boot for ever: neither between two updates that are bad, nor by a boot loader that miscounts, nor
 * where what was good does not find its root any more.
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { statusOf } from '../vm/lib/guest.ts';
import { GuestChain } from '../vm/lib/guest-chain.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';
import { StoppedDisk } from '../vm/lib/stopped-disk.ts';
import { expectUndone, FAILED_UNIT, failureIn, Trials } from './lib/trials.ts';

const say = (line: string): void => console.error(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping reboot loops: ${reason}`);

const ENTRIES = '/loader/entries';

describe.skipIf(reason !== undefined)('A machine that does not boot for ever', () => {
  const chain = new GuestChain('reboot-loops', say);
  let trials: Trials;

  beforeAll(async () => {
    trials = await Trials.open(chain, 'systemd-boot', say);
  });
  afterAll(() => trials.close());

  test('is back on the good deployment after each of two bad ones, not on the other one', async () => {
    const made = await trials.make('two', FAILED_UNIT);
    await trials.failedBoot('first-bad', made);
    const between = await trials.goodBoot('between', made, [
      {
        name: 'kargs',
        run: `mkdir -p /etc/hostctl && printf '[deploy]\\ntries = 1\\n' >/etc/hostctl/hostctl.conf && hostctl kargs --append init=/none`,
      },
    ]);
    expectUndone(between, made, /Units failed: bad\.service/);
    between.ok('kargs');
    await trials.failedBoot('second-bad', made);
    const after = await trials.goodBoot('after', made);
    const status = statusOf(after);
    expect(status).toMatchObject({ booted: 1, next: 1 });
    expect(status.deployments.map(({ id, state }) => [id, state])).toEqual([
      [3, 'failed'],
      [2, 'failed'],
      [1, 'good'],
    ]);
    expect(failureIn(status)).toContain(`Deployment 3 (${made.good}) failed to boot once`);
    expect(await (await StoppedDisk.open(made.path)).bootFiles(ENTRIES)).toEqual([
      'hostctl-00000001.conf',
      'hostctl-00000002+0-1.conf',
      'hostctl-00000003+0-1.conf',
    ]);
  });

  test('ends what its boot loader starts again and again without counting', async () => {
    const made = await trials.make('miscounted', FAILED_UNIT);
    const forget = async (): Promise<void> => {
      const disk = await StoppedDisk.open(made.path);
      await disk.renameBootFile(`${ENTRIES}/hostctl-00000002+0-1.conf`, 'hostctl-00000002+1-0.conf');
    };
    await trials.failedBoot('miscounted-1', made);
    await forget();
    await trials.failedBoot('miscounted-2', made);
    await forget();
    const guest = await trials.goodBoot('miscounted-end', made, [
      { name: 'entries', run: 'ls /boot/loader/entries' },
      { name: 'history', run: 'hostctl history --json' },
    ]);
    expect(guest.ok('cmdline')).toContain(`:${made.good} `);
    expect(guest.ok('entries')).toBe('hostctl-00000001.conf\nhostctl-00000002+1-0.conf\nhostctl-00000003.conf\n');
    const status = statusOf(guest);
    expect(status).toMatchObject({ booted: 1, next: 1 });
    expect(status.deployments.find(({ id }) => id === 2)?.state).toBe('failed');
    expect(failureIn(status)).toMatch(/failed to boot 2 times.*Units failed: bad\.service/);
    const events = JSON.parse(guest.ok('history')) as readonly { readonly action: string }[];
    expect(events.map(({ action }) => action)).toContain('automatic-rollback');
  });

  test('waits, with the reason on its console, where what was good has no root any more', async () => {
    const made = await trials.make('vanished', { tries: 3 });
    const disk = await StoppedDisk.open(made.path);
    await disk.renameBootFile(`${ENTRIES}/hostctl-00000002+3-0.conf`, 'hostctl-00000002.conf');
    await disk.relabelRoot('gone');
    await trials.stoppedBoot('vanished', made, 'hostctl: The boot still waits, and goes on when this is there');
    expect(await (await StoppedDisk.open(made.path)).bootFiles(ENTRIES)).toEqual([
      'hostctl-00000001.conf',
      'hostctl-00000002.conf',
    ]);
  });
});
