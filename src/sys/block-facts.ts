/** What a block device says about itself and about the devices below it: blkid(8) and sysfs. */

import * as fs from 'node:fs';
import type { Exec } from './exec.ts';
import { listNames, readSmallText } from './files.ts';

export interface BlockFacts {
  /** Of the file system on it. */
  readonly uuid: string | undefined;
  /** GPT type of the partition, lower case. */
  readonly partitionType: string | undefined;
  /** Device-mapper UUIDs of this device and those below it, outermost first. */
  readonly dmUuids: readonly string[];
}

/** Reads the device itself, so that no udev is needed. Undefined where `source` is no block device. */
export async function readBlockFacts(exec: Exec, source: string): Promise<BlockFacts | undefined> {
  const stat = source.startsWith('/') ? fs.statSync(source, { throwIfNoEntry: false }) : undefined;
  if (stat?.isBlockDevice() !== true) return undefined;
  // 2: nothing found.
  const { stdout } = await exec.run('blkid', ['-p', '-o', 'export', source], { allowed: [0, 2] });
  const value = (key: string): string | undefined => new RegExp(`^${key}=(.+)$`, 'm').exec(stdout)?.[1];
  return {
    uuid: value('UUID'),
    partitionType: value('PART_ENTRY_TYPE')?.toLowerCase(),
    dmUuids: dmUuids(`/sys/dev/block/${deviceNumbers(stat.rdev)}`),
  };
}

/** `major:minor`, as glibc's makedev(3) packs them into the lower 32 bits. */
function deviceNumbers(device: number): string {
  return `${(device >>> 8) & 0xfff}:${(device & 0xff) | ((device >>> 12) & 0xfff00)}`;
}

function dmUuids(device: string): string[] {
  const own = readSmallText(`${device}/dm/uuid`)?.trim();
  const below = listNames(`${device}/slaves`).flatMap((name) => dmUuids(`${device}/slaves/${name}`));
  return own === undefined ? below : [own, ...below];
}
