/**
 * A bootable disk out of a sysroot and a boot folder that hostctl deployed into, on a host whose kernel has no
 * fs-verity: the objects get their fs-verity metadata offline and lose nothing else. Entries written for such a host
 * call fs-verity optional (`?`); on the finished disk it is not, so that mark goes.
 */

import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';
import { withChecksum } from '../../../src/format/checksum.ts';
import { joinDisk, makeEsp, makeExt4 } from './disk.ts';
import { appendVerity, markVerity, type OfflineAlgorithm } from './offline-verity.ts';

const ESP_MIB = 256;

export interface OfflineDisk {
  readonly sysroot: string;
  readonly boot: string;
  /** systemd-boot's EFI program. */
  readonly loader: string;
  readonly algorithm: OfflineAlgorithm;
  /** Label of the root file system, which the entries' `root=` names. */
  readonly label: string;
  /** A folder for intermediate files, removed afterwards. */
  readonly scratch: string;
}

/** Writes the disk to `target`. Throws where an object's content has not the digest it is named by. */
export async function makeOfflineDisk(source: OfflineDisk, target: string): Promise<void> {
  await rm(source.scratch, { recursive: true, force: true });
  await mkdir(source.scratch, { recursive: true });
  try {
    const root = join(source.scratch, 'root.img');
    await makeRoot(source, root);
    const esp = join(source.scratch, 'esp.img');
    await makeBoot(source, esp);
    await joinDisk(esp, root, target);
  } finally {
    await rm(source.scratch, { recursive: true, force: true });
  }
}

async function makeRoot(source: OfflineDisk, image: string): Promise<void> {
  const stage = join(source.scratch, 'root');
  await run('cp', ['--archive', '--no-target-directory', source.sysroot, stage]);
  const files: { path: string; sizeBytes: number }[] = [];
  const objects = 'composefs/objects';
  for (const folder of await readdir(join(stage, objects))) {
    for (const name of await readdir(join(stage, objects, folder))) {
      const path = join(objects, folder, name);
      const { sizeBytes, digest } = await appendVerity(join(stage, path), source.algorithm);
      if (digest !== folder + name) throw new Error(`The object ${folder}/${name} has the digest ${digest}`);
      files.push({ path: `/${path}`, sizeBytes });
    }
  }
  await makeExt4(stage, image, { label: source.label, spareMiB: 256 });
  await markVerity(image, files);
}

async function makeBoot(source: OfflineDisk, image: string): Promise<void> {
  const stage = join(source.scratch, 'boot');
  await cp(source.boot, stage, { recursive: true });
  const entries = join(stage, 'loader/entries');
  for (const name of await readdir(entries)) {
    const text = await readFile(join(entries, name), 'utf8');
    const strict = text.replace(/(\bcomposefs(?:\.digest)?=)\?/g, '$1').replace(/^# sha256 .*\n/m, '');
    await writeFile(join(entries, name), withChecksum(strict, '#'));
  }
  await mkdir(join(stage, 'EFI/BOOT'), { recursive: true });
  await cp(source.loader, join(stage, 'EFI/BOOT/BOOTX64.EFI'));
  await makeEsp(stage, image, ESP_MIB);
}
