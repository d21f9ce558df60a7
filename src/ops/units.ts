/** What systemd says about units of the running system. */

import { setTimeout } from 'node:timers/promises';
import type { Host } from '../sys/host.ts';

export interface UnitState {
  readonly name: string;
  readonly isFailed: boolean;
}

const POLL_MS = 1000;

/** The states of `units` once none of them is about to start any more. */
export async function unitStates(host: Host, units: readonly string[]): Promise<UnitState[]> {
  const states: UnitState[] = [];
  for (const name of units) {
    for (;;) {
      const { stdout } = await host.exec.run('systemctl', ['show', '--property=ActiveState,Job', '--', name]);
      const value = (key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(stdout)?.[1];
      if (value('ActiveState') !== 'activating' && (value('Job') ?? '') === '') {
        states.push({ name, isFailed: value('ActiveState') === 'failed' });
        break;
      }
      await setTimeout(POLL_MS, undefined, { signal: host.signal });
    }
  }
  return states;
}

/** Every unit that has failed. */
export async function failedUnits(host: Host): Promise<string[]> {
  return listed(host, ['list-units', '--failed']);
}

/** Units that are starting, or wait to. */
export async function startingUnits(host: Host): Promise<string[]> {
  return listed(host, ['list-units', '--state=activating']);
}

async function listed(host: Host, args: readonly string[]): Promise<string[]> {
  const { stdout } = await host.exec.run('systemctl', [...args, '--all', '--plain', '--no-legend', '--full']);
  return stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/)[0] ?? '')
    .filter((name) => name !== '');
}
