/** File systems in image files, made and mounted by loop. Everything is below one scratch folder on tmpfs. */

import { closeSync, mkdirSync, openSync, readSync, truncateSync, writeFileSync } from 'node:fs';
import { run } from '../../../scripts/lib/run.ts';

export type FileSystem = 'ext4' | 'xfs' | 'btrfs' | 'vfat';

/** Bytes of a disk: as small as its file system can be, since crash states are copies of it. */
const SIZES: Readonly<Record<FileSystem, number>> = {
  ext4: 48 * 2 ** 20,
  xfs: 300 * 2 ** 20,
  btrfs: 128 * 2 ** 20,
  vfat: 16 * 2 ** 20,
};

/** Makes an empty file system in the file `image`, the same bytes each time but for what mkfs insists on. */
export async function makeDisk(image: string, type: FileSystem): Promise<void> {
  writeFileSync(image, '');
  truncateSync(image, SIZES[type]);
  switch (type) {
    case 'ext4':
      // Without lazy initialisation: a background thread would write in between what is recorded.
      return void (await run('mkfs.ext4', [
        '-q',
        '-b4096',
        '-Enodiscard,lazy_itable_init=0,lazy_journal_init=0',
        image,
      ]));
    case 'xfs':
      return void (await run('mkfs.xfs', ['-q', '-K', image]));
    case 'btrfs':
      return void (await run('mkfs.btrfs', ['-q', '--nodiscard', '-msingle', image]));
    case 'vfat':
      return void (await run('mkfs.vfat', ['-F16', image]));
  }
}

/** Mounts an image file (or a device) and returns how to undo it. */
export async function mount(image: string, at: string, options = ''): Promise<() => Promise<void>> {
  mkdirSync(at, { recursive: true });
  const loop = image.startsWith('/dev/loop') ? '' : 'loop';
  // A copy of a disk may come while a mount namespace that has just ended still holds on to the disk.
  const copy = isXfs(image) ? 'nouuid' : '';
  const all = [loop, copy, options].filter((one) => one !== '').join(',');
  await run('mount', [...(all === '' ? [] : ['-o', all]), image, at]);
  return async () => {
    await run('umount', [at]);
  };
}

function isXfs(image: string): boolean {
  const fd = openSync(image, 'r');
  const magic = Buffer.alloc(4);
  readSync(fd, magic, 0, magic.length, 0);
  closeSync(fd);
  return magic.toString('latin1') === 'XFSB';
}

/** Copies a disk; what is zero becomes a hole. */
export async function copyDisk(from: string, to: string): Promise<void> {
  await run('cp', ['--sparse=always', from, to]);
}
