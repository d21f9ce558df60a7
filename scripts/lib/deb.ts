/**
 * The Debian package: the program as one bundle with its launcher, the dracut module and the units. It is the only way
 * hostctl gets onto a machine, test machines included. The same source gives the same bytes: files are dated by
 * SOURCE_DATE_EPOCH, and dpkg-deb sorts them.
 */

import { existsSync } from 'node:fs';
import {
  chmod,
  cp,
  lutimes,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { bundleProgram, readPackage } from './bundle.ts';
import { manualPages } from './manual.ts';
import { projectPath, projectVersion } from './project.ts';
import { run } from './run.ts';

/**
 * Programs that the hook, the units or hostctl itself start on every host, and libraries of the native interface. What
 * Debian calls essential, such as coreutils and util-linux, is always there.
 */
const DEPENDS = [
  'nodejs (>= 20.19)',
  'libc6 (>= 2.25)',
  'libgcc-s1',
  'libstdc++6',
  'libzstd1',
  'dracut',
  'e2fsprogs',
  'fsverity',
  'kmod',
  'mount',
  'openssl',
  'systemd',
  'zstd',
];
const MAINTAINER = 'hostctl developers <hostctl@localhost>';

/**
 * `install` partitions, formats and puts the boot loader in place, which a host that is only updated does not need;
 * skopeo reaches images that do not lie in a layout on the host.
 */
const RECOMMENDS = ['dosfstools', 'fdisk', 'skopeo', 'systemd-boot-efi'];
/** `image seal --uki`, which publishers do and hosts do not. */
const SUGGESTS = ['sbsigntool', 'systemd-ukify'];

/** Without a date of its own a build would differ every time it is made. */
const DEFAULT_EPOCH = 1767225600;

/**
 * Builds the package from the working tree, into `folder`.
 * @returns its path
 */
export async function buildPackage(folder = projectPath('build')): Promise<string> {
  await mkdir(folder, { recursive: true });
  const stage = await mkdtemp(join(folder, 'deb-'));
  try {
    await fillStage(stage);
    const deb = join(folder, `hostctl_${projectVersion()}_amd64.deb`);
    await run('dpkg-deb', ['--root-owner-group', '-Zxz', '-z1', '--build', stage, deb], {
      env: { SOURCE_DATE_EPOCH: String(sourceDate()) },
    });
    return deb;
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

function sourceDate(): number {
  return Number(process.env.SOURCE_DATE_EPOCH ?? DEFAULT_EPOCH);
}

async function fillStage(stage: string): Promise<void> {
  const sources = await bundleProgram(join(stage, 'usr/lib/hostctl'));
  await copyNativeInterface(join(stage, 'usr/lib/hostctl/node_modules'));
  await mkdir(join(stage, 'usr/bin'), { recursive: true });
  await symlink('../lib/hostctl/main.js', join(stage, 'usr/bin/hostctl'));
  await cp(projectPath('dracut/50hostctl'), join(stage, 'usr/lib/dracut/modules.d/50hostctl'), { recursive: true });
  await cp(projectPath('dracut/50-hostctl.conf'), join(stage, 'usr/lib/dracut/dracut.conf.d/50-hostctl.conf'));
  await cp(projectPath('dracut/50hostctl/hostctl-counter.sh'), join(stage, 'usr/lib/hostctl/boot-counter'));
  await copyUnits(stage);
  await copyCompletions(join(stage, 'usr/share'));
  await writeManualPages(join(stage, 'usr/share/man'));
  await writeCopyright(join(stage, 'usr/share/doc/hostctl/copyright'), sources);
  await writeChangelog(join(stage, 'usr/share/doc/hostctl'));
  await cp(projectPath('scripts/lintian-overrides'), join(stage, 'usr/share/lintian/overrides/hostctl'));

  await cp(projectPath('scripts/deb'), join(stage, 'DEBIAN'), { recursive: true });
  await writeFile(join(stage, 'DEBIAN/control'), control(await installedKiB(join(stage, 'usr'))));
  await setModesAndDates(stage, sourceDate());
}

/** koffi has native code and stays a package of its own: its scripts, but for one that is for building, and one build. */
async function copyNativeInterface(folder: string): Promise<void> {
  const isWanted = (path: string): boolean =>
    !/\.\w+$/.test(path) || (/\.(js|cjs)$|package\.json$|LICENSE/.test(path) && !path.endsWith('trampolines.cjs'));
  for (const part of ['package.json', 'index.js', 'index.cjs', 'LICENSE.txt', 'src/koffi']) {
    const source = projectPath('node_modules/koffi', part);
    await cp(source, join(folder, 'koffi', part), { recursive: true, filter: isWanted });
  }
  for (const part of ['package.json', 'index.js', 'linux_x64/koffi.node']) {
    const name = join('@koromix/koffi-linux-x64', part);
    await cp(projectPath('node_modules', name), join(folder, name));
  }
}

/** The names in a folder of the project, sorted; none if it does not exist. */
async function filesOf(folder: string): Promise<string[]> {
  return existsSync(projectPath(folder)) ? (await readdir(projectPath(folder))).sort() : [];
}

async function copyUnits(stage: string): Promise<void> {
  for (const name of await filesOf('systemd')) {
    const kind = name.endsWith('-generator') ? '-generators' : name.endsWith('.preset') ? '-preset' : '';
    await cp(projectPath('systemd', name), join(stage, `usr/lib/systemd/system${kind}`, name), { recursive: true });
  }
}

/** Where each shell looks by itself. */
const COMPLETIONS = {
  'hostctl.bash': 'bash-completion/completions/hostctl',
  _hostctl: 'zsh/vendor-completions/_hostctl',
  'hostctl.fish': 'fish/vendor_completions.d/hostctl.fish',
};

async function copyCompletions(share: string): Promise<void> {
  for (const [name, target] of Object.entries(COMPLETIONS)) {
    await cp(projectPath('completion', name), join(share, target));
  }
}

async function writeManualPages(folder: string): Promise<void> {
  for (const { file, section, roff } of manualPages()) {
    const target = join(folder, `man${section}`, `${file}.gz`);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, gzipSync(roff, { level: 9 }));
  }
}

/** Names the licence of every package whose code is in the bundle, with its text. */
async function writeCopyright(target: string, sources: readonly string[]): Promise<void> {
  const bundled = sources
    .map((input) => /^(node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1])
    .filter((folder) => folder !== undefined);
  const parts = [
    'hostctl is licensed under the Apache License, Version 2.0; see /usr/share/common-licenses/Apache-2.0.\n',
    'It contains the following packages, each under its own licence.\n',
  ];
  for (const folder of [...new Set([...bundled, 'node_modules/koffi'])].sort()) {
    const { name, version, license } = await readPackage(projectPath(folder));
    const file = (await readdir(projectPath(folder))).find((entry) => /^licen[cs]e/i.test(entry));
    // Debian has the text of this one on every machine.
    const isCommon = license === 'Apache-2.0';
    const text = file === undefined || isCommon ? '' : `\n${await readFile(projectPath(folder, file), 'utf8')}`;
    parts.push(`${'-'.repeat(70)}\n${name} ${version} (${license})\n${text}`);
  }
  await mkdir(dirname(target), { recursive: true });
  await writeFile(target, parts.join('\n'));
}

/** Debian's form, which names the release; what changed is in the project's own. */
async function writeChangelog(folder: string): Promise<void> {
  const date = new Date(sourceDate() * 1000).toUTCString().replace('GMT', '+0000');
  const entry = `hostctl (${projectVersion()}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- ${MAINTAINER}  ${date}\n`;
  await writeFile(join(folder, 'changelog.gz'), gzipSync(entry, { level: 9 }));
  await cp(projectPath('CHANGELOG.md'), join(folder, 'CHANGELOG.md'));
}

const EXECUTABLE = new Set([
  ...['main.js', 'hostctl-generator', 'postinst', 'prerm'],
  ...['module-setup.sh', 'hostctl-root.sh', 'hostctl-waiting.sh'],
]);

/** The modes of a checkout depend on whoever made it; dates decide the package's bytes. */
async function setModesAndDates(folder: string, epoch: number): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      await setModesAndDates(path, epoch);
    } else {
      if (entry.isFile()) await chmod(path, EXECUTABLE.has(entry.name) ? 0o755 : 0o644);
      await lutimes(path, epoch, epoch);
    }
  }
  await chmod(folder, 0o755);
  await utimes(folder, epoch, epoch);
}

async function installedKiB(folder: string): Promise<number> {
  let total = 0;
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) total += Math.ceil((await stat(join(entry.parentPath, entry.name))).size / 1024);
  }
  return total;
}

function control(sizeKiB: number): string {
  return [
    'Package: hostctl',
    `Version: ${projectVersion()}`,
    'Architecture: amd64',
    'Section: admin',
    'Priority: optional',
    `Maintainer: ${MAINTAINER}`,
    `Installed-Size: ${sizeKiB}`,
    `Depends: ${DEPENDS.join(', ')}`,
    `Recommends: ${RECOMMENDS.join(', ')}`,
    `Suggests: ${SUGGESTS.join(', ')}`,
    'Description: deploy bootable OCI images as one verified composefs root',
    ' Flattens a bootable container image into one composefs image, pins its',
    ' fs-verity digest in a boot entry and mounts the verified root from the',
    ' initramfs.',
    '',
  ].join('\n');
}
