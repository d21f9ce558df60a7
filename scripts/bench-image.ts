/**
 * `node scripts/run.js bench-image DIR`: a Debian 13 system of some 1.7 GB as OCI layouts in DIR/gzip, DIR/zstd (four
 * layers) and DIR/giant (all in one, gzip), for `npm run bench -- --image oci:DIR/gzip`. Needs root and the network;
 * two gigabytes of download and ten minutes.
 */

import { copyFileSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { finishLayout, packLayer, type WrittenLayer } from './lib/bench/oci-writer.ts';
import { buildPackage } from './lib/deb.ts';
import { ensureHostPackages, IMAGE_NEEDS } from './lib/host-packages.ts';
import { run } from './lib/run.ts';

/** The base, and what each layer adds to those below it. */
const BASE = [
  'linux-image-amd64',
  'systemd',
  'systemd-sysv',
  'udev',
  'dbus',
  'dracut',
  'zstd',
  'kmod',
  'ca-certificates',
  // What the package of hostctl asks for.
  'nodejs',
  'fsverity',
  'openssl',
  'mount',
  'e2fsprogs',
];
const STEPS = [
  'apt-get install -qq --yes gcc g++ perl python3 python3-pip git man-db manpages manpages-dev',
  'apt-get install -qq --yes podman golang-go nodejs vim-runtime',
  'rm -rf /usr/share/vim/vim*/tutor /usr/share/doc/git /usr/share/man/ru',
];
/** As an image for a host has it: with the boot hook in the initramfs, whose name is what hostctl looks for. */
const INITRAMFS =
  'dpkg --install /hostctl.deb && rm /hostctl.deb; for kernel in /usr/lib/modules/*; do version=${kernel##*/}; cp /boot/vmlinuz-$version $kernel/vmlinuz; ' +
  'dracut --quiet --force --no-hostonly --add hostctl $kernel/initramfs.img $version; done; rm -rf /boot/*; mkdir -p /sysroot';

const [target] = process.argv.slice(2);
if (target === undefined) throw new Error('Name a folder for the image');
const directory = resolve(target);
await ensureHostPackages([...IMAGE_NEEDS, { probe: 'getfattr', package: 'attr' }], (line) => console.error(line));
mkdirSync(directory, { recursive: true });
const scratch = mkdtempSync(join(directory, 'build-'));
try {
  await writeLayouts(await buildLayers());
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** Folders of the layers, whiteouts as overlayfs has them. */
async function buildLayers(): Promise<string[]> {
  const base = join(scratch, '0');
  console.error('Installing the base');
  await run('mmdebstrap', [
    ...['--mode=root', '--variant=apt', '--format=directory', '--aptopt=APT::Install-Recommends "false"'],
    ...[`--include=${BASE.join(',')}`, 'trixie', base, 'http://deb.debian.org/debian'],
  ]);
  copyFileSync(await buildPackage(scratch), join(base, 'hostctl.deb'));
  await inside(base, INITRAMFS);
  const layers = [base];
  for (const [i, step] of STEPS.entries()) {
    console.error(step);
    const [upper, work, merged] = [join(scratch, `${i + 1}`), join(scratch, 'work'), join(scratch, 'merged')];
    for (const folder of [upper, work, merged]) mkdirSync(folder, { recursive: true });
    const lower = [...layers].reverse().join(':');
    await run('mount', [
      '-t',
      'overlay',
      '-o',
      `redirect_dir=off,metacopy=off,index=off,lowerdir=${lower},upperdir=${upper},workdir=${work}`,
      'overlay',
      merged,
    ]);
    try {
      await inside(merged, step);
    } finally {
      await run('umount', [merged]);
      rmSync(work, { recursive: true });
    }
    layers.push(upper);
  }
  return layers;
}

/** Runs shell commands in a system, and leaves no downloads in it. */
async function inside(root: string, commands: string): Promise<void> {
  const script = `mount -t proc proc "$1/proc" && mount -t devtmpfs dev "$1/dev" && cp /etc/resolv.conf "$1/etc/resolv.conf" && exec chroot "$1" sh -euc "$2"`;
  const clean = 'apt-get clean; rm -rf /var/lib/apt/lists/* /var/log/*.log /var/cache/*';
  const update = commands.startsWith('apt-get') ? 'apt-get update -qq; ' : '';
  await run(
    'unshare',
    ['--mount', '--propagation', 'private', 'sh', '-euc', script, 'sh', root, `${update}${commands}; ${clean}`],
    {
      // A folder for temporary files of the machine is not one of the system.
      env: { DEBIAN_FRONTEND: 'noninteractive', TMPDIR: '/tmp' },
    },
  );
}

async function writeLayouts(folders: readonly string[]): Promise<void> {
  console.error('Packing');
  const merged = join(scratch, 'merged');
  await run('mount', ['-t', 'overlay', '-o', `lowerdir=${[...folders].reverse().join(':')}`, 'overlay', merged]);
  try {
    const giant = join(directory, 'giant');
    finishLayout(giant, 'debian', 'gzip', [await packLayer(giant, 'gzip', merged)]);
  } finally {
    await run('umount', [merged]);
  }
  for (const folder of folders.slice(1)) await markAsLayersDo(folder);
  for (const compression of ['gzip', 'zstd'] as const) {
    const layout = join(directory, compression);
    const layers: WrittenLayer[] = [];
    for (const folder of folders) layers.push(await packLayer(layout, compression, folder));
    finishLayout(layout, 'debian', compression, layers);
  }
}

/** What hides lower files: for overlayfs devices with the number 0 and an xattr, in layers files with certain names. */
async function markAsLayersDo(folder: string): Promise<void> {
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const stat = lstatSync(join(folder, path));
    if (!stat.isCharacterDevice() || stat.rdev !== 0) continue;
    rmSync(join(folder, path));
    writeFileSync(join(folder, dirname(path), `.wh.${basename(path)}`), '');
  }
  const opaque = await run('getfattr', ['-Rh', '--absolute-names', '-m', '^trusted.overlay.opaque$', folder]);
  for (const [, path = ''] of opaque.matchAll(/^# file: (.*)$/gm)) writeFileSync(join(path, '.wh..wh..opq'), '');
}
