/** `status` on a machine whose boot loader is older than its image. */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeEach, expect, test, vi } from 'vitest';
import type * as loaderFiles from '../../src/deploy/loader-files.ts';
import { status } from '../../src/ops/status.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';

const image = vi.hoisted(() => ({ loaders: '' }));
vi.mock('../../src/deploy/sysroot.ts', async (original) =>
  (await import('../model/running.ts')).asRunning(await original()),
);
vi.mock('../../src/deploy/loader-files.ts', async (original) => {
  const module = await original<typeof loaderFiles>();
  return { ...module, oldLoaders: (efi: string, esps: string[]) => module.oldLoaders(efi, esps, image.loaders) };
});

const program = (loader: string): string => `MZ${'\0'.repeat(500)}#### LoaderInfo: ${loader} ####\0`;

beforeEach(() => {
  image.loaders = scratchDir();
  writeFileSync(`${image.loaders}/systemd-bootx64.efi`, program('systemd-boot 257.9-1~deb13u1'));
});

/** Warnings of a machine that runs its one deployment, with these programs on its ESP. */
async function warningsWith(own: string, fallback: string, isBooted = true): Promise<string[]> {
  const sysroot = scratchSysroot();
  const { entryFile } = await sysroot.deploy(bootableLayout().reference);
  for (const directory of ['systemd', 'BOOT']) mkdirSync(`${sysroot.path}/boot/EFI/${directory}`, { recursive: true });
  writeFileSync(`${sysroot.path}/boot/EFI/systemd/systemd-bootx64.efi`, program(own));
  writeFileSync(`${sysroot.path}/boot/EFI/BOOT/BOOTX64.EFI`, program(fallback));
  const entry = readFileSync(`${sysroot.path}/boot/loader/entries/${entryFile}`, 'utf8');
  const kernelCmdline = (): string => (isBooted ? (/^options (.*)$/m.exec(entry)?.[1] ?? '') : 'quiet');
  const host = { ...sysroot.host, architecture: 'amd64', kernelCmdline };
  return status(host, { sysroot: sysroot.path })
    .warnings.filter(({ code }) => code.startsWith('loader-'))
    .map(({ code, message }) => `${code}: ${message.replace(sysroot.path, '')}`);
}

test.each([
  ['the same', 'systemd-boot 257.9-1~deb13u1', 'systemd-boot 257.9-1~deb13u1', []],
  ['newer', 'systemd-boot 258', 'systemd-boot 258', []],
  ['another loader', 'shim 15', 'GRUB 2.12', []],
  [
    'older at its own place',
    'systemd-boot 256',
    'systemd-boot 257.9-1~deb13u1',
    [
      'loader-outdated: "/boot/EFI/systemd/systemd-bootx64.efi" is systemd-boot 256, older than 257.9-1~deb13u1 in the image',
    ],
  ],
  [
    'older where firmware looks',
    'systemd-boot 258',
    'systemd-boot 257.9-1~deb13~rc1',
    [
      'loader-outdated: "/boot/EFI/BOOT/BOOTX64.EFI" is systemd-boot 257.9-1~deb13~rc1, older than 257.9-1~deb13u1 in the image',
    ],
  ],
])('A boot loader that is %s', async (_, own, fallback, expected) => {
  expect(await warningsWith(own, fallback)).toEqual(expected);
});

test('Nothing is said where another system runs, or the image ships none', async () => {
  expect(await warningsWith('systemd-boot 1', 'systemd-boot 1', false)).toEqual([]);
  image.loaders = scratchDir();
  expect(await warningsWith('systemd-boot 1', 'systemd-boot 1')).toEqual([]);
});
