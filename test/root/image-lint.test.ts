/** `image lint` as people run it, and that `deploy` refuses what it calls fatal. */

import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { cpio } from '../helpers/cpio-builder.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';
import { tarFile } from '../helpers/tar-builder.ts';

const HOOK = 'usr/lib/hostctl/hostctl-root';

function image(names: readonly string[]): string {
  const initramfs = gzipSync(cpio({ init: 'x', ...Object.fromEntries(names.map((name) => [name, '#!/bin/sh'])) }));
  return bootableLayout({
    more: [
      tarFile('usr/lib/modules/6.12.0/initramfs.img', initramfs),
      tarFile('usr/bin/hostctl', '#!/bin/sh'),
      tarFile('usr/bin/node', 'elf'),
      tarFile('var/lib/.wh.shipped'),
    ],
  }).reference;
}

test('an image with nothing wrong can be deployed', async () => {
  const reference = image([HOOK]);
  expect(hostctl(['image', 'lint', reference])).toEqual({ exitCode: 0, stdout: 'It can be deployed\n', stderr: '' });
  expect((await scratchSysroot().deploy(reference)).changed).toBe(true);
});

test('an image whose initramfs has no boot hook cannot be deployed, and deploy leaves nothing', async () => {
  const reference = image([]);
  const { exitCode, stdout } = hostctl(['image', 'lint', '--json', reference]);
  const finding = {
    code: 'boot-hook',
    severity: 'fatal',
    message: 'The initramfs has no boot hook that mounts a deployment',
    remedy: 'Build the initramfs in the image with dracut and its module "hostctl": dracut --force --no-hostonly',
  };
  expect({ exitCode, ...(JSON.parse(stdout) as object) }).toMatchObject({
    exitCode: 7,
    deployable: false,
    findings: [finding],
  });
  const sysroot = scratchSysroot();
  await expect(sysroot.deploy(reference)).rejects.toMatchObject({
    code: 'image-not-bootable',
    message: `Image cannot be deployed: ${finding.message}`,
    hint: finding.remedy,
  });
  expect(sysroot.status().deployments).toEqual([]);
});

test('a large initramfs is read out of its layer', () => {
  const names = Array.from({ length: 3000 }, (_, i) => `usr/lib/file-${i}`);
  expect(hostctl(['image', 'lint', image([...names, HOOK])]).exitCode).toBe(0);
});
