/** The commands of the README's "Use it", one after the other, as they stand there, on a host of the test's own. */

import { renameSync } from 'node:fs';
import { expect, test } from 'vitest';
import { bless } from '../helpers/bless.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { commandBlock } from '../helpers/documented-commands.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { scratchSysroot } from '../helpers/scratch-sysroot.ts';

test('The commands of the README do what it says', async () => {
  const sysroot = scratchSysroot();
  const os = `${scratchDir()}/os`;
  const publish = (version: string): void => {
    renameSync(bootableLayout({ version }).reference.slice('oci:'.length), os);
  };
  publish('1');
  await sysroot.deploy(`oci:${os}`);
  bless(sysroot, 1);
  renameSync(os, `${os}-1`);
  publish('2');
  const next = bootableLayout({ version: '3' }).reference;

  // The first is for an empty disk, and is run in a machine.
  const [install, ...commands] = commandBlock('README.md').filter((line) => line.startsWith('hostctl '));
  expect(install).toMatch(/^hostctl install to-disk /);
  const shown: string[] = [];
  for (const command of commands) {
    const words = command.replace('oci:/srv/os:next', next).split(' ').slice(1);
    const { exitCode, stdout, stderr } = hostctl([...words, '--sysroot', sysroot.path]);
    expect({ command, exitCode, stderr }).toMatchObject({ command, exitCode: 0 });
    // What is new comes up.
    for (const file of sysroot.entries()) if (file.includes('+')) bless(sysroot, Number(/\d+/.exec(file)?.[0]));
    shown.push(
      `${command}: ${sysroot
        .status()
        .deployments.map(({ image }) => image.version)
        .join()} ${stdout}`,
    );
  }
  expect(shown.map((line) => line.split(' ').slice(0, 5).join(' ').split('\n')[0])).toEqual([
    expect.stringMatching(/^hostctl upgrade --plan: 1 /),
    expect.stringMatching(/^hostctl upgrade: 2,1 /),
    expect.stringMatching(/^hostctl switch \S+: 3,2,1 /),
    expect.stringMatching(/^hostctl status: 3,2,1 /),
    expect.stringMatching(/^hostctl rollback: 3,2,1 /),
  ]);
  expect(sysroot.status()).toMatchObject({ next: 2, rollback: 3 });
});
