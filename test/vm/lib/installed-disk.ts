/**
 * A disk that `hostctl install to-disk` made: in a guest, since few hosts have a kernel that could. The guest is the
 * same system as the image, started from an ordinary root without firmware.
 */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';
import { cached, fileHash, recipeKey } from './cache.ts';
import { blankDisk } from './disk.ts';
import { type Answer, runGuest } from './guest.ts';
import type { TestImage } from './test-image.ts';

const DISK_MIB = 3072;
/** Some 300 MB are decompressed and hashed in emulation. */
const INSTALL_DEADLINE_MS = 900_000;

export interface InstalledDisk {
  /** The disk; never to be booted itself, only copies of it. */
  readonly path: string;
  /** What the installation answered. */
  readonly answers: Readonly<Record<string, Answer>>;
}

/** Attach the image's layout as a disk with this serial number; `MOUNT_LAYOUT` makes it `oci:/run/layout`. */
export const LAYOUT_SERIAL = 'layout';
export const MOUNT_LAYOUT = `mkdir -p /run/layout && mount -o ro /dev/disk/by-id/virtio-${LAYOUT_SERIAL} /run/layout`;

/** Installs version 1 of the image on a blank disk, or finds it done before. */
export async function installedDisk(image: TestImage, say: (line: string) => void): Promise<InstalledDisk> {
  const recipe = [
    await fileHash(image.installer.disk),
    await fileHash(projectPath('test/vm/lib/installed-disk.ts')),
    recipeKey(await readFile(join(image.layout, 'index.json'), 'utf8')),
  ];
  const folder = await cached('installed', recipe, async (scratch) => {
    say('Installing the image on a disk in a guest (three minutes or more, kept for next time)');
    const disk = join(scratch, 'disk.img');
    const logs = join(scratch, 'logs');
    await mkdir(logs);
    await blankDisk(disk, DISK_MIB);
    const guest = await runGuest({
      folder: logs,
      name: 'install',
      disks: [
        { path: image.installer.disk, discardWrites: true },
        { path: disk, serial: 'target' },
        { path: image.disk, serial: LAYOUT_SERIAL },
      ],
      direct: {
        kernel: image.installer.kernel,
        initrd: image.installer.initrd,
        cmdline: 'root=LABEL=installer rw',
      },
      deadlineMs: INSTALL_DEADLINE_MS,
      steps: [
        { name: 'layout', run: MOUNT_LAYOUT },
        {
          name: 'install',
          run: 'hostctl install to-disk "$(realpath /dev/disk/by-id/virtio-target)" oci:/run/layout:v1',
        },
      ],
    });
    guest.ok('layout');
    guest.ok('install');
    await writeFile(join(scratch, 'answers.json'), JSON.stringify(Object.fromEntries(guest.answers)));
    say(`Installed in ${guest.seconds} s`);
  });
  return {
    path: join(folder, 'disk.img'),
    answers: JSON.parse(await readFile(join(folder, 'answers.json'), 'utf8')) as Record<string, Answer>,
  };
}

/** A copy to boot; holes stay holes. */
export async function copyDisk(from: string, to: string): Promise<string> {
  await run('cp', ['--sparse=always', from, to]);
  return to;
}
