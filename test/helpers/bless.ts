/** What systemd-bless-boot does after a boot that came up: the entry loses its counter. */

import { renameSync } from 'node:fs';
import { ENTRIES, listEntries } from '../../src/deploy/boot-entries.ts';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import type { ScratchSysroot } from './scratch-sysroot.ts';

/** @param sequence - number of the entry, which must be there */
export function bless({ host, path }: ScratchSysroot, sequence: number): void {
  const { boot } = openSysroot(host, { sysroot: path });
  const entry = listEntries(boot).entries.find((found) => found.sequence === sequence);
  if (entry === undefined) throw new Error(`There is no boot entry ${sequence}`);
  renameSync(`${boot.path}/${ENTRIES}/${entry.file}`, `${boot.path}/${ENTRIES}/${entry.name.id}.conf`);
}
