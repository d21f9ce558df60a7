/**
 * `npm run demo`: the main job on a real system. Makes a bootable Debian 13 OCI image in two versions, deploys both
 * into a scratch sysroot, rolls back, and boots the result in QEMU with its digest verified. Takes no arguments.
 */

import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runGuest } from '../test/vm/lib/guest.ts';
import { makeOfflineDisk } from '../test/vm/lib/offline-disk.ts';
import { type TestImage, testImage } from '../test/vm/lib/test-image.ts';
import { reasonNoMachines } from '../test/vm/lib/requirements.ts';
import { buildPackage } from './lib/deb.ts';
import { ensureHostPackages, PACKAGE_NEEDS } from './lib/host-packages.ts';
import { projectPath } from './lib/project.ts';
import { run } from './lib/run.ts';

const ROOT_LABEL = 'hostctl-demo';
const started = Date.now();
const say = (line: string): void => console.log(line);

function heading(text: string): void {
  const seconds = Math.round((Date.now() - started) / 1000);
  say(`\n== ${text}  [${seconds} s]`);
}

const folder = projectPath('build/demo');
const paths = {
  program: join(folder, 'package/usr/bin/hostctl'),
  sysroot: join(folder, 'sysroot'),
  boot: join(folder, 'boot'),
  disk: join(folder, 'disk.img'),
};

/** Runs hostctl, as installed from its package, on the scratch sysroot; shows the command and what it prints. */
async function hostctl(...args: string[]): Promise<string> {
  say(`$ hostctl ${args.join(' ')}`);
  const output = await run(paths.program, args);
  say(output.trimEnd());
  return output;
}

const onScratch = (): string[] => ['--sysroot', paths.sysroot, '--boot', paths.boot];

/** `--allow-missing-verity`, once it turned out that the host's file system has none. */
const verityArgs: string[] = [];

/** Deploys, first as one should; where the host's file system has no fs-verity, says so and goes on without. */
async function deploy(reference: string): Promise<string> {
  const kargs = ['--karg', `root=LABEL=${ROOT_LABEL}`, '--karg', 'rw'];
  const args = ['deploy', reference, ...kargs, ...onScratch()];
  try {
    return digestIn(await hostctl(...args, ...verityArgs));
  } catch (error) {
    if (verityArgs.length > 0 || !(error instanceof Error && error.message.includes('no fs-verity'))) throw error;
    say(error.message.split('\n').slice(1).join('\n'));
    say("This machine's file system has no fs-verity, so hostctl refuses. The disk gets it below; once more without:");
    verityArgs.push('--allow-missing-verity');
    return digestIn(await hostctl(...args, ...verityArgs));
  }
}

function digestIn(output: string): string {
  const digest = /\b[0-9a-f]{128}\b/.exec(output)?.[0];
  if (digest === undefined) throw new Error('hostctl printed no digest');
  return digest;
}

async function deployBoth(image: TestImage): Promise<string> {
  heading('Deploy two versions of the image into a scratch sysroot');
  await mkdir(paths.sysroot, { recursive: true });
  await mkdir(paths.boot, { recursive: true });
  const first = await deploy(`oci:${image.layout}:v1`);
  await hostctl('image', 'digest', '--bootable', `oci:${image.layout}:v1`);
  await deploy(`oci:${image.layout}:v2`);
  await hostctl('status', ...onScratch());

  heading('Roll back to the first: a new entry, nothing else changes');
  await hostctl('rollback', '--to', '1', ...onScratch());
  await hostctl('status', ...onScratch());
  const entries = join(paths.boot, 'loader/entries');
  for (const name of (await readdir(entries)).sort()) {
    say(`\n${name}\n${(await readFile(join(entries, name), 'utf8')).trimEnd()}`);
  }
  return first;
}

async function bootDisk(image: TestImage, digest: string): Promise<void> {
  heading('Make a disk of it: fs-verity on every object, finished offline; the entries then require it');
  await makeOfflineDisk(
    {
      sysroot: paths.sysroot,
      boot: paths.boot,
      loader: image.loader,
      algorithm: 'sha512',
      label: ROOT_LABEL,
      scratch: join(folder, 'scratch'),
    },
    paths.disk,
  );

  heading('Boot the disk in QEMU (firmware, systemd-boot, kernel, initramfs; about a minute without KVM)');
  const guest = await runGuest({
    folder,
    name: 'boot',
    disks: [{ path: paths.disk }],
    deadlineMs: 600_000,
    steps: [
      { name: 'state', run: 'systemctl is-system-running --wait' },
      { name: 'cmdline', run: 'cat /proc/cmdline' },
      { name: 'source', run: 'findmnt --noheadings --output SOURCE /' },
      { name: 'mounts', run: 'findmnt --list --types overlay,erofs,ext4,vfat --output TARGET,FSTYPE,VFS-OPTIONS' },
      { name: 'release', run: '. /etc/os-release && echo "$PRETTY_NAME, kernel $(uname -r)"' },
      { name: 'status', run: 'hostctl status' },
      { name: 'write', run: 'touch /usr/written', mayFail: true },
    ],
  });
  say(`The machine ran ${guest.seconds} s. In it:`);
  say(
    `  ${guest.answers.ok('release').trim()}; systemctl is-system-running: ${guest.answers.of('state').output.trim()}`,
  );
  say(`  touch /usr/written: ${guest.answers.of('write').output.trim()}`);
  say(guest.answers.ok('mounts').trimEnd());

  heading('One digest');
  const cmdline = guest.answers.ok('cmdline');
  const onCommandLine = /\bcomposefs\.digest=v1-sha512-12:([0-9a-f]{128})\b/.exec(cmdline)?.[1];
  const mounted = /^composefs:([0-9a-f]{128})$/m.exec(guest.answers.ok('source'))?.[1];
  say(`deployed      ${digest}`);
  say(`command line  ${onCommandLine}`);
  say(`mounted       ${mounted}`);
  if (onCommandLine !== digest || mounted !== digest) throw new Error('The three digests differ');

  heading("The booted machine's own hostctl status");
  say(guest.answers.ok('status').trimEnd());
}

async function demo(): Promise<void> {
  heading('Package hostctl');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await ensureHostPackages(PACKAGE_NEEDS, say);
  const deb = await buildPackage();
  await run('dpkg-deb', ['--extract', deb, join(folder, 'package')]);
  say(deb);
  await hostctl('--version');

  const reason = await reasonNoMachines(say);
  if (reason !== undefined) {
    say(`\nThe demo ends here: ${reason}.`);
    say(
      'Done: the package. Not done: image, deployment, boot. On Debian as root, npm run demo installs what it needs.',
    );
    process.exitCode = 1;
    return;
  }
  heading('Make a bootable Debian 13 OCI image, two versions, with that package in it');
  const image = await testImage(deb, say);
  say(`oci:${image.layout}:v1 and :v2`);
  const digest = await deployBoth(image);
  await bootDisk(image, digest);
  heading('Done');
  say(`Sysroot, boot folder, disk and serial log are in ${folder}`);
}

await demo();
