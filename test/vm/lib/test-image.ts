/**
 * The bootable OCI image that demo and tests use: Debian 13 with hostctl installed from its package, in three layers,
 * and a second version with one small layer more. Also the disk of the machine that installs it.
 */

import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';
import { cached, cacheFolder, fileHash } from './cache.ts';
import { DEBIAN_EPOCH, debianArchive, type Loader, loaderName } from './debian.ts';
import { makeExt4 } from './disk.ts';
import { type ImageSpec, writeOciLayout } from './oci-layout.ts';

type Say = (line: string) => void;

/** Files that only the tests look at. Those named `probe-…` are too large to be inlined: each is an object. */
export const PROBE_FOLDER = 'usr/share/hostctl-test';

/** Content of the file `probe-<name>`. */
export function probe(name: string): string {
  return createHash('sha512').update(name).digest('hex').repeat(80);
}

function osRelease(version: string): string {
  return [
    `PRETTY_NAME="Debian GNU/Linux 13 (hostctl test image ${version})"`,
    'NAME="Debian GNU/Linux"',
    'VERSION_ID="13"',
    'VERSION_CODENAME=trixie',
    'ID=debian',
    'IMAGE_ID=hostctl-test',
    `IMAGE_VERSION=${version}`,
    '',
  ].join('\n');
}

/** Files of the first version, beside what the packages bring. */
const FIRST: Readonly<Record<string, string>> = {
  'etc/hostname': 'hostctl-test\n',
  'etc/hostctl-test.conf': 'default of version 1\n',
  'usr/lib/os-release': osRelease('1'),
  [`${PROBE_FOLDER}/release`]: '1\n',
  [`${PROBE_FOLDER}/only-in-1`]: 'removed by version 2\n',
  [`${PROBE_FOLDER}/probe-a`]: probe('a'),
  [`${PROBE_FOLDER}/probe-b`]: probe('b'),
  [`${PROBE_FOLDER}/probe-c`]: probe('c'),
  [`${PROBE_FOLDER}/probe-e`]: probe('e'),
  'var/lib/hostctl-test/first': 'copied at the first installation\n',
};

/** What the second version's layer changes. */
const SECOND: Readonly<Record<string, string>> = {
  'etc/hostctl-test.conf': 'default of version 2\n',
  'usr/lib/os-release': osRelease('2'),
  [`${PROBE_FOLDER}/release`]: '2\n',
  [`${PROBE_FOLDER}/.wh.only-in-1`]: '',
  [`${PROBE_FOLDER}/probe-d`]: probe('d'),
};

async function writeFiles(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    await writeFile(path, text, { mode: 0o644 });
    await chmod(path, 0o644);
  }
}

/** An archive whose bytes depend on the tree only: sorted, dated no later than the packages, no host names of users. */
async function pack(folder: string, archive: string): Promise<void> {
  await run('tar', [
    '--create',
    `--file=${archive}`,
    '--format=pax',
    '--sort=name',
    '--numeric-owner',
    '--xattrs',
    '--xattrs-include=security.*',
    '--xattrs-include=user.*',
    '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime',
    `--mtime=@${DEBIAN_EPOCH}`,
    '--clamp-mtime',
    `--directory=${folder}`,
    '.',
  ]);
}

/** Unpacks the Debian archive and composes the layers' trees below `scratch`: tree, layers/kernel, layers/hostctl. */
async function composeTrees(scratch: string, archive: string, deb: string, trust: Trust): Promise<void> {
  const tree = join(scratch, 'tree');
  await mkdir(tree);
  await run('tar', [
    '--extract',
    '--zstd',
    '--xattrs',
    '--xattrs-include=*',
    '--numeric-owner',
    '-f',
    archive,
    '-C',
    tree,
  ]);
  const script = projectPath('examples/debian/compose-tree.sh');
  const layers = join(scratch, 'layers');
  const trusted = join(scratch, 'trust');
  await mkdir(trusted);
  await writeFiles(trusted, trust);
  const args = [tree, deb, layers, ...(Object.keys(trust).length > 0 ? [trusted] : [])];
  await run('unshare', ['--mount', '--propagation', 'private', 'sh', script, ...args]);
  await writeFiles(join(layers, 'hostctl'), FIRST);
  await mkdir(join(layers, 'second'));
  await writeFiles(join(layers, 'second'), SECOND);
}

/** Files below `/etc/hostctl` of the image, by their paths there. */
type Trust = Readonly<Record<string, string>>;

async function recipe(archive: string, deb: string, trust: Trust): Promise<unknown> {
  const sources = ['test-image.ts', 'oci-layout.ts', 'disk.ts'];
  return [
    await fileHash(archive),
    await fileHash(deb),
    await fileHash(projectPath('examples/debian/compose-tree.sh')),
    ...(await Promise.all(sources.map((name) => fileHash(projectPath('test/vm/lib', name))))),
    trust,
  ];
}

export interface TestImage {
  /** OCI layout with the tags `v1` and `v2`. */
  readonly layout: string;
  /** ext4 image of the same layout, to be given to a machine as a disk. */
  readonly disk: string;
  /** systemd-boot, out of an image that has it. */
  readonly loader: string;
  /** Root file system of the installing machine, its kernel and initramfs. */
  readonly installer: { readonly disk: string; readonly kernel: string; readonly initrd: string };
}

export interface ImageKind {
  readonly trust?: Trust;
  readonly loader?: Loader;
}

/**
 * Builds the image with the package `deb` in it, or finds it in the cache. Needs root and VM_NEEDS.
 * @param what.trust keys and the like for an image that asks for seals
 */
export async function testImage(deb: string, say: Say, what: ImageKind = {}): Promise<TestImage> {
  const { trust = {}, loader = 'systemd-boot' } = what;
  const archive = await debianArchive(say, loader);
  const folder = await cached(loaderName('image', loader), await recipe(archive, deb, trust), async (target) => {
    say('Building the bootable image, two versions (about a minute, kept for next time)');
    const scratch = await mkdtemp(join(cacheFolder(), '.compose-'));
    try {
      await composeTrees(scratch, archive, deb, trust);
      await writeLayout(scratch, join(target, 'layout'));
      await makeExt4(join(target, 'layout'), join(target, 'layout.ext4'), { label: 'layout' });
      await writeInstaller(scratch, target, loader);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });
  return {
    layout: join(folder, 'layout'),
    disk: join(folder, 'layout.ext4'),
    loader: join(folder, 'systemd-bootx64.efi'),
    installer: {
      disk: join(folder, 'installer.ext4'),
      kernel: join(folder, 'vmlinuz'),
      initrd: join(folder, 'initrd.img'),
    },
  };
}

async function writeLayout(scratch: string, layout: string): Promise<void> {
  const names = ['tree', 'layers/kernel', 'layers/hostctl', 'layers/second'];
  const [base, kernel, hostctl, second] = names.map((name) => `${join(scratch, name)}.tar`) as [
    string,
    string,
    string,
    string,
  ];
  for (const name of names) await pack(join(scratch, name), `${join(scratch, name)}.tar`);
  const first: ImageSpec['layers'] = [
    { tar: base, compression: 'gzip' },
    { tar: kernel, compression: 'zstd' },
    { tar: hostctl, compression: 'gzip' },
  ];
  await writeOciLayout(layout, [
    { tag: 'v1', layers: first, labels: labels('1') },
    { tag: 'v2', layers: [...first, { tar: second, compression: 'zstd' }], labels: labels('2') },
  ]);
}

function labels(version: string): Record<string, string> {
  return { 'containers.bootc': '1', 'org.opencontainers.image.version': version };
}

/** The installing machine is the same system, unflattened: its root is an ordinary file system. */
async function writeInstaller(scratch: string, target: string, loader: Loader): Promise<void> {
  const tree = join(scratch, 'tree');
  for (const layer of ['kernel', 'hostctl']) {
    await run('cp', ['--archive', '--force', `${join(scratch, 'layers', layer)}/.`, tree]);
  }
  const version = (await run('ls', [join(tree, 'usr/lib/modules')])).trim();
  for (const [from, to] of [
    ['vmlinuz', 'vmlinuz'],
    ['initramfs.img', 'initrd.img'],
  ] as const) {
    await run('cp', [join(tree, 'usr/lib/modules', version, from), join(target, to)]);
  }
  if (loader === 'systemd-boot') {
    await run('cp', [join(tree, 'usr/lib/systemd/boot/efi/systemd-bootx64.efi'), target]);
  }
  await makeExt4(tree, join(target, 'installer.ext4'), { label: 'installer', spareMiB: 512 });
}
