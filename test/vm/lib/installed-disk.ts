/**
 * Disks that the machine tests start from, each the result of one boot and kept in the cache under a hash of all that
 * went into it. The first is made by `hostctl install to-disk`, in a guest, since few hosts have a kernel that could;
 * the guest is the same system as the image, started from an ordinary root without firmware.
 */

import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';
import { cached, fileHash } from './cache.ts';
import { blankDisk } from './disk.ts';
import { type Loader, loaderName } from './debian.ts';
import { type Answer, Answers, type GuestBoot, QUIET, runGuest, type Step } from './guest.ts';
import type { TestImage } from './test-image.ts';

export const DISK_MIB = 3072;
/** Some 300 MB are decompressed and hashed in emulation. */
const LONG_BOOT_MS = 900_000;

export interface MadeDisk {
  /** Never to be booted itself, only copies of it. */
  readonly path: string;
  /** What the boot answered that made it. */
  readonly answers: Answers;
}

/** Attach the image's layout as a disk with this serial number; `MOUNT_LAYOUT` makes it `oci:/run/layout`. */
export const LAYOUT_SERIAL = 'layout';
export const MOUNT_LAYOUT = `mkdir -p /run/layout && mount -o ro /dev/disk/by-id/virtio-${LAYOUT_SERIAL} /run/layout`;

/** In the machine that installs, followed by a reference. */
export const INSTALL = 'hostctl install to-disk "$(realpath /dev/disk/by-id/virtio-target)"';

/** The tag that was installed means version 2 from now on. */
export const MOVE_TAG = [
  'mkdir -p /run/over/upper /run/over/work',
  'mount -t overlay -o lowerdir=/run/layout,upperdir=/run/over/upper,workdir=/run/over/work overlay /run/layout',
  'sed -i -e \'s/"v1"/"old"/\' -e \'s/"v2"/"v1"/\' /run/layout/index.json',
].join(' && ');

/** The image and everything that builds, boots or asks. */
async function recipe(image: TestImage, steps: readonly Step[]): Promise<unknown> {
  const lib = projectPath('test/vm/lib');
  const sources = await Promise.all((await readdir(lib)).sort().map((name) => fileHash(join(lib, name))));
  return [await fileHash(image.installer.disk), await fileHash(join(image.layout, 'index.json')), sources, steps];
}

/**
 * Version 1 installed on a blank disk. What systemd-boot is told by the machine stands in the entries where GRUB starts
 * them.
 */
export async function installedDisk(
  image: TestImage,
  say: (line: string) => void,
  loader: Loader = 'systemd-boot',
): Promise<MadeDisk> {
  const kargs = loader === 'grub' ? QUIET.map((arg) => ` --karg ${arg}`).join('') : '';
  const install = `${INSTALL} oci:/run/layout:v1`;
  const steps: Step[] = [
    { name: 'layout', run: MOUNT_LAYOUT },
    { name: 'install', run: install + kargs },
  ];
  const folder = await cached(loaderName('installed', loader), await recipe(image, steps), async (scratch) => {
    say('Installing the image on a disk in a guest (three minutes or more, kept for next time)');
    const disk = join(scratch, 'disk.img');
    const logs = await logFolder(scratch);
    await blankDisk(disk, DISK_MIB);
    const installer = installerWith(image, disk, image.disk);
    const { answers, seconds } = await runGuest({ ...installer, folder: logs, name: 'install', steps });
    await keepAnswers(scratch, answers);
    say(`Installed in ${seconds} s`);
  });
  return madeDisk(folder);
}

/** The machine that installs: onto `target`, which is its `virtio-target`, from the layout on a disk beside it. */
export function installerWith(
  { installer }: TestImage,
  target: string,
  layoutDisk: string,
): Omit<GuestBoot, 'folder' | 'name' | 'steps'> {
  return {
    disks: [
      { path: installer.disk, discardWrites: true },
      { path: target, serial: 'target' },
      { path: layoutDisk, serial: LAYOUT_SERIAL },
    ],
    direct: { kernel: installer.kernel, initrd: installer.initrd, cmdline: 'root=LABEL=installer rw' },
    deadlineMs: LONG_BOOT_MS,
  };
}

/** The installed disk after its first boot, in which `steps` were run; they stage version 2. */
export async function updatedDisk(
  image: TestImage,
  installed: MadeDisk,
  steps: readonly Step[],
  say: (line: string) => void,
): Promise<MadeDisk> {
  const folder = await cached('updated', await recipe(image, steps), async (scratch) => {
    say('Booting version 1 and deploying version 2 in it (two minutes or more, kept for next time)');
    const { answers, seconds } = await runGuest({
      folder: await logFolder(scratch),
      name: 'version-1',
      disks: [
        { path: await copyDisk(installed.path, join(scratch, 'disk.img')) },
        { path: image.disk, serial: LAYOUT_SERIAL },
      ],
      deadlineMs: LONG_BOOT_MS,
      shutDown: true,
      steps,
    });
    await keepAnswers(scratch, answers);
    say(`Booted and deployed in ${seconds} s`);
  });
  return madeDisk(folder);
}

async function logFolder(scratch: string): Promise<string> {
  const logs = join(scratch, 'logs');
  await mkdir(logs);
  return logs;
}

async function keepAnswers(scratch: string, answers: Answers): Promise<void> {
  await writeFile(join(scratch, 'answers.json'), JSON.stringify(answers));
}

async function madeDisk(folder: string): Promise<MadeDisk> {
  const answers = JSON.parse(await readFile(join(folder, 'answers.json'), 'utf8')) as Record<string, Answer>;
  return { path: join(folder, 'disk.img'), answers: new Answers(answers, `\nSerial log: ${join(folder, 'logs')}`) };
}

/** A copy to boot; holes stay holes. */
export async function copyDisk(from: string, to: string): Promise<string> {
  await run('cp', ['--sparse=always', from, to]);
  return to;
}
