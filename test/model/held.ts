/**
 * What nothing may take away, by the state directories of deployments: what runs, what boots next, the newest good one
 * and what is pinned, but for what is only staged: that gives way to what is staged after it. Who names one to delete
 * may take the next one while another boots, and a good one while there is another. Read from the disk, without any
 * code of the program.
 */

import { existsSync, readFileSync } from 'node:fs';
import { goodStates, readEntries, stateNameOf } from './disk.ts';
import type { World } from './world.ts';

export function heldStates(world: World, isNamed = false): Set<string> {
  const entries = readEntries(world.path);
  const good = goodStates(entries);
  const stagedName = stagedState(world);
  const [newest] = entries
    .filter(({ stateName, fileName }) => good.has(stateName ?? '') && /^hostctl-\d{8}\.conf$/.test(fileName))
    .sort((a, b) => (a.fileName < b.fileName ? 1 : -1));
  const pinned = [...world.pinned].map((id) => stateNameOf(world.path, id)).filter((name) => name !== stagedName);
  const unnamed = [world.defaultEntry('systemd-boot')?.stateName, newest?.stateName];
  const held = [world.running?.stateName, ...pinned, ...(isNamed ? (good.size === 1 ? good : []) : unnamed)];
  return new Set(held.filter((name) => name !== undefined));
}

/** The state directory that the staged record names. */
export function stagedState({ path }: World): string | undefined {
  const record = `${path}/state/hostctl/staged`;
  if (!existsSync(record)) return undefined;
  return /^state = (\S+)$/m.exec(readFileSync(record, 'utf8'))?.[1];
}
