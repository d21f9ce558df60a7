/** What a block device says about itself and about the devices below it: blkid(8) and sysfs. */

import * as fs from 'node:fs';
import type { Exec } from './exec.ts';
import { exists, isDirectory, listNames, readSmallText, split } from './files.ts';

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

/** A partition as the disk's firmware sees it. */
export interface DiskPartition {
  /** The whole disk. */
  readonly disk: string;
  readonly startSector: number;
  readonly sectors: number;
}

/** The partition of this GPT type on a disk that `source` lies on. Sectors of 512 bytes. */
export async function findPartition(exec: Exec, source: string, type: string): Promise<DiskPartition | undefined> {
  const stat = source.startsWith('/') ? fs.statSync(source, { throwIfNoEntry: false }) : undefined;
  if (stat?.isBlockDevice() !== true) return undefined;
  for (const disk of disksBelow(fs.realpathSync(`/sys/dev/block/${deviceNumbers(stat.rdev)}`))) {
    for (const name of listNames(disk)) {
      if (!isDirectory(`${disk}/${name}`) || !exists(`${disk}/${name}/partition`)) continue;
      if ((await readBlockFacts(exec, `/dev/${name}`))?.partitionType !== type) continue;
      const number = (file: string): number => Number(readSmallText(`${disk}/${name}/${file}`)?.trim());
      return { disk: `/dev/${split(disk).name}`, startSector: number('start'), sectors: number('size') };
    }
  }
  return undefined;
}

/** Whole disks that a device, by its directory in sysfs, is made of. */
function disksBelow(device: string): string[] {
  if (exists(`${device}/partition`)) return [split(device).directory];
  const below = listNames(`${device}/slaves`);
  if (below.length === 0) return [device];
  return below.flatMap((name) => disksBelow(fs.realpathSync(`${device}/slaves/${name}`)));
}

function dmUuids(device: string): string[] {
  const own = readSmallText(`${device}/dm/uuid`)?.trim();
  const below = listNames(`${device}/slaves`).flatMap((name) => dmUuids(`${device}/slaves/${name}`));
  return own === undefined ? below : [own, ...below];
}
