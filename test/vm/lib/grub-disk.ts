/**
 * A disk on which GRUB decides and starts nothing: GRUB runs on the firmware for real, its `linux` and `initrd` only
 * print what they are given. Several cases are decided one after the other in one run of a few seconds.
 */

import { mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';
import { changeEnvironment, emptyEnvironment } from '../../../src/format/grub/environment-block.ts';
import { planBiosBoot } from '../../../src/format/grub/bios-boot.ts';
import { blankDisk, mtools } from './disk.ts';
import { lastSerialLines, runMachine } from './qemu.ts';

const SECTOR = 512;
const BIOS_BOOT = { type: '21686148-6449-6E6F-744E-656564454649', sector: 2048, sectors: 4096 };
/** Large enough for FAT32, or for btrfs. */
const FILES = { sector: 8192, mib: { fat: 40, btrfs: 128 } };
const MODULES =
  'biosdisk part_gpt fat btrfs normal configfile loadenv test regexp echo serial terminal reboot true'.split(' ');

/** Where the files lie in the disk, for mtools. */
export const FILES_OFFSET = FILES.sector * SECTOR;

/** A menu within a menu within a menu is as far as GRUB goes before it runs out of recursion. */
const CASES_PER_RUN = 5;

/** What GRUB runs first. What a kernel would be is a file; beside one that cannot be loaded lies one called "broken". */
const START = `serial --unit=0 --speed=115200
terminal_output serial
terminal_input serial
function linux {
  set loaded=
  if [ -f "$1.broken" ]; then return 1; fi
  set loaded=1
  echo "START $number"
  for argument in "$@"; do echo "WITH $argument"; done
}
function initrd {
  if [ -z "$loaded" ]; then return 1; fi
  source (hd0,gpt2)/next.cfg
}
load_env -f (hd0,gpt2)/number number
export number
configfile (hd0,gpt2)/$number/grub/grub.cfg
`;

/** Files of each case by path below its boot directory. */
export type GrubCase = Readonly<Record<string, string | Uint8Array>>;

/** Writes a disk for BIOS with the cases as folders `0`, `1`, …, each a boot partition of its own. */
export async function makeGrubDisk(
  scratch: string,
  disk: string,
  cases: readonly GrubCase[],
  type: 'fat' | 'btrfs' = 'fat',
): Promise<void> {
  const mib = FILES.mib[type];
  const stage = join(scratch, 'files');
  const put = async (path: string, content: string | Uint8Array): Promise<void> => {
    await mkdir(dirname(join(stage, path)), { recursive: true });
    await writeFile(join(stage, path), content);
  };
  for (const [at, files] of cases.entries()) {
    for (const [path, content] of Object.entries(files)) await put(`${at}/${path}`, content);
    const script = `set prefix=(hd0,gpt2)/${at}/grub\nset timeout=0\nsource $prefix/hostctl.cfg\n`;
    await put(`${at}/grub/grub.cfg`, script);
  }
  const steps = cases.map((_, at) => {
    const go =
      (at + 1) % CASES_PER_RUN === 0
        ? 'save_env -f (hd0,gpt2)/number number; reboot'
        : `configfile (hd0,gpt2)/${at + 1}/grub/grub.cfg`;
    return `if [ "$number" = ${at} ]; then set number=${at + 1}; ${at + 1 < cases.length ? go : 'reboot'}; fi\n`;
  });
  await put('next.cfg', steps.reverse().join(''));
  await put('number', changeEnvironment(emptyEnvironment(), { number: '0' }));
  await put('grub/grub.cfg', START);
  await blankDisk(disk, FILES.sector / 2048 + mib + 1);
  const table = [
    'label: gpt',
    `start=${BIOS_BOOT.sector}, size=${BIOS_BOOT.sectors}, type=${BIOS_BOOT.type}`,
    `start=${FILES.sector}, size=${mib}MiB, type=linux`,
  ];
  await run('sfdisk', ['-q', disk], { input: `${table.join('\n')}\n` });
  const files = join(scratch, 'files.img');
  await blankDisk(files, mib);
  if (type === 'btrfs') await run('mkfs.btrfs', ['--quiet', '--rootdir', stage, files]);
  else {
    await run('mkfs.vfat', ['-F', '32', files]);
    const names = await readdir(stage);
    await mtools('mcopy', ['-s', '-i', files, ...names.map((name) => join(stage, name)), '::/']);
  }
  await run('dd', [`if=${files}`, `of=${disk}`, 'bs=1M', `seek=${FILES.sector / 2048}`, 'conv=notrunc', 'status=none']);
  await writeGrub(scratch, disk);
}

async function writeGrub(scratch: string, disk: string): Promise<void> {
  const core = join(scratch, 'core.img');
  await run('grub-mkimage', ['-O', 'i386-pc', '-p', '(hd0,gpt2)/grub', '-o', core, ...MODULES]);
  const file = await open(disk, 'r+');
  try {
    const first = Buffer.alloc(SECTOR);
    await file.read(first, 0, SECTOR, 0);
    const boot = await readFile('/usr/lib/grub/i386-pc/boot.img');
    const plan = planBiosBoot(first, boot, await readFile(core), BIOS_BOOT.sector);
    await file.write(plan.first, 0, SECTOR, 0);
    await file.write(plan.core, 0, plan.core.length, BIOS_BOOT.sector * SECTOR);
  } finally {
    await file.close();
  }
}

/** What GRUB started in each case, with its arguments. */
export async function runGrubDisk(folder: string, disk: string, cases: number): Promise<Map<number, string[]>> {
  const started = new Map<number, string[]>();
  for (let at = 0; at < cases; at += CASES_PER_RUN) {
    const boot = { folder, name: `grub-${at}`, disks: [{ path: disk }], smbios: [], memoryMiB: 256 } as const;
    const { serial } = await runMachine({ ...boot, firmware: 'bios', deadlineMs: 120_000 });
    const text = lastSerialLines(serial, Infinity);
    for (const [, number, words = ''] of text.matchAll(/^START (\d+)\n((?:WITH .*\n)*)/gm)) {
      started.set(
        Number(number),
        words
          .replace(/^WITH /gm, '')
          .split('\n')
          .slice(0, -1),
      );
    }
  }
  return started;
}
