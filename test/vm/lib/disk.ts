/**
 * Disks made without mounting anything: ext4 filled by mkfs, an ESP filled by mtools, a GPT around them. Works on hosts
 * whose kernel knows neither vfat nor fs-verity.
 */

import { truncate } from 'node:fs/promises';
import { run } from '../../../scripts/lib/run.ts';

const MIB = 1 << 20;
/** Discoverable Partitions Specification. */
const ROOT_X86_64 = '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709';
const ESP = 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B';
const SECTOR = 512;

/** Size of a folder's files on disk, whole MiB. */
async function folderMiB(folder: string): Promise<number> {
  return Number((await run('du', ['-sm', '--apparent-size', folder])).split('\t')[0]);
}

/**
 * Makes an ext4 image holding a copy of `folder`, with owners, modes and xattrs.
 * @param options.spareMiB free space beside the files
 */
export async function makeExt4(
  folder: string,
  image: string,
  options: { label: string; spareMiB?: number },
): Promise<void> {
  const sizeMiB = Math.ceil((await folderMiB(folder)) * 1.15) + 64 + (options.spareMiB ?? 0);
  await truncate(await created(image), sizeMiB * MIB);
  await run('mkfs.ext4', [
    '-q',
    '-F',
    '-O',
    'verity',
    '-b',
    '4096',
    '-m',
    '0',
    '-L',
    options.label,
    '-d',
    folder,
    image,
  ]);
}

/** Makes a FAT32 image holding a copy of everything in `folder`. */
export async function makeEsp(folder: string, image: string, sizeMiB: number): Promise<void> {
  await truncate(await created(image), sizeMiB * MIB);
  await run('mkfs.vfat', ['-F', '32', '-n', 'ESP', image]);
  const entries = (await run('find', [folder, '-mindepth', '1', '-maxdepth', '1'])).split('\n').filter(Boolean);
  await mtools('mcopy', ['-s', '-i', image, ...entries.sort(), '::/']);
}

/** Joins an ESP and a root file system into a bootable disk. */
export async function joinDisk(esp: string, root: string, disk: string): Promise<void> {
  const [espMiB, rootMiB] = [await fileMiB(esp), await fileMiB(root)];
  await truncate(await created(disk), (espMiB + rootMiB + 2) * MIB);
  const table = [
    'label: gpt',
    `start=1MiB, size=${espMiB}MiB, type=uefi`,
    `start=${1 + espMiB}MiB, size=${rootMiB}MiB, type=${ROOT_X86_64}`,
  ];
  await run('sfdisk', ['-q', disk], { input: `${table.join('\n')}\n` });
  for (const [image, seek] of [
    [esp, 1],
    [root, 1 + espMiB],
  ] as const) {
    await run('dd', [`if=${image}`, `of=${disk}`, 'bs=1M', `seek=${seek}`, 'conv=notrunc,sparse', 'status=none']);
  }
}

/** An empty disk of `sizeMiB`. */
export async function blankDisk(disk: string, sizeMiB: number): Promise<void> {
  await truncate(await created(disk), sizeMiB * MIB);
}

async function created(path: string): Promise<string> {
  await run('rm', ['-f', path]);
  await run('touch', [path]);
  return path;
}

async function fileMiB(path: string): Promise<number> {
  return Math.ceil(Number((await run('stat', ['-c', '%s', path])).trim()) / MIB);
}

/** Runs one of the mtools. The images are of our own making: their geometry needs no check. */
export function mtools(command: string, args: readonly string[]): Promise<string> {
  return run(command, args, { env: { MTOOLS_SKIP_CHECK: '1' } });
}

/** A partition, in bytes. */
export interface Partition {
  readonly start: number;
  readonly size: number;
}

export interface HostPartitions {
  readonly boot: Partition;
  readonly root: Partition;
}

/** Where a host's ESP and its root, the largest, are on its disk. */
export async function hostPartitions(disk: string): Promise<HostPartitions> {
  const { partitiontable } = JSON.parse(await run('sfdisk', ['--json', disk])) as {
    partitiontable: { partitions: { start: number; size: number; type: string }[] };
  };
  const all = partitiontable.partitions.map(({ type, ...at }) => ({
    type,
    start: at.start * SECTOR,
    size: at.size * SECTOR,
  }));
  const boot = all.find(({ type }) => type === ESP);
  const root = all.toSorted((a, b) => b.size - a.size)[0];
  if (boot === undefined || root === undefined) throw new Error(`"${disk}" has not the partitions of a host`);
  return { boot, root };
}
