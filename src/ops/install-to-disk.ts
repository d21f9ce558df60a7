/**
 * `install to-disk`: an empty disk, or a file that stands for one, becomes a machine that boots the image: GPT with an
 * ESP and a root partition, ext4 with fs-verity, systemd-boot out of the image, the first deployment. Whatever can be
 * known to fail is found before the first byte is written. Everything is mounted in a mount namespace of its own.
 */

import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { HostctlError, isHostctlError } from '../errors.ts';
import type { ImageSource } from '../image/source.ts';
import { readBlockFacts } from '../sys/block-facts.ts';
import { exists, makeDirectories } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { DeployResult } from './deploy.ts';
import { BIOS_BOOT_TYPE } from './install-grub.ts';
import { installOnto, prepareInstall, type InstallOptions, type PreparedInstall } from './install-onto.ts';
import { ESP_TYPE, rootPartitionType } from './root-partition.ts';
import { withImage } from './with-image.ts';
import type { Restart } from './writable.ts';

/** Before everything else: a BIOS may not reach the end of a disk. */
const BIOS_BOOT = { startSector: 2048, sectors: 2048 };
const MIB = 2 ** 20;
/** Root that holds any real system with room for a second version. */
const MIN_DISK_BYTES = 1024 * MIB;
const TOOLS = ['sfdisk', 'mkfs.vfat', 'mkfs.ext4', 'losetup', 'wipefs', 'mount', 'umount', 'blockdev'] as const;
const NODE_WAIT_MS = 10_000;

/** `target` is a block device or a regular file, empty. Returns undefined when a second process, in mounts of its own, has done the work. */
export async function installToDisk(
  host: Host,
  run: Restart,
  options: InstallOptions & { readonly target: string },
): Promise<DeployResult | undefined> {
  const prepared = prepareInstall(host, options);
  const isFile = checkTarget(host, options.target);
  await checkHost(host);
  await checkEmpty(host, options.target);
  if (!run.isRestarted) {
    run.setExitCode(await run.restart());
    return undefined;
  }
  return withImage(host, options.image, undefined, async (source) => {
    // Whatever the network does, the disk is as it was.
    await source.blobs.fetch();
    return installImage(host, prepared, source, { ...options, isFile });
  });
}

async function installImage(
  host: Host,
  prepared: PreparedInstall,
  source: ImageSource,
  options: InstallOptions & { readonly target: string; readonly isFile: boolean },
): Promise<DeployResult> {
  const rootUuid = randomUUID();
  await partition(host, options.target, rootPartitionType(host.architecture) ?? '');
  return withDisk(host, options.target, options.isFile, async (device) => {
    const [esp, root] = await partitionNodes(device);
    const biosBoot = host.architecture === 'amd64' ? { disk: device, ...BIOS_BOOT } : undefined;
    await host.exec.run('mkfs.vfat', ['-F', '32', '-n', 'ESP', esp]);
    await host.exec.run('mkfs.ext4', ['-q', '-O', 'verity', '-L', 'root', '-U', rootUuid, root]);
    const uuid = (await readBlockFacts(host.exec, esp))?.uuid;
    return withMounts(host, esp, root, (mountPoint) => {
      const boot = `${mountPoint}/boot`;
      return installOnto(host, prepared, source, {
        ...options,
        foundKargs: [`root=UUID=${rootUuid}`, 'rw'],
        root: mountPoint,
        boot,
        esp: boot,
        var: undefined,
        bootFileSystem: { uuid, type: 'vfat' },
        biosBoot,
        systemdBootProblem: undefined,
      });
    });
  });
}

/** The running kernel must know what will be written; nothing has been touched when this fails. */
async function checkHost(host: Host): Promise<void> {
  for (const tool of TOOLS) {
    const found = ['/usr/sbin', '/usr/bin', '/sbin', '/bin'].some((directory) => exists(`${directory}/${tool}`));
    if (!found) {
      throw new HostctlError('tool-missing', `Cannot install without "${tool}"`, {
        hint: 'Install fdisk, dosfstools, e2fsprogs, mount and util-linux',
      });
    }
  }
  if (!(await knowsFileSystem(host, 'vfat'))) {
    throw new HostctlError(
      'host-unsupported',
      'The running kernel has no vfat, which the ESP needs; nothing was written',
      {
        hint: 'Install from a machine whose kernel has it',
      },
    );
  }
  if (!(await knowsFileSystem(host, 'ext4')) || !exists('/sys/fs/ext4/features/verity')) {
    throw new HostctlError('verity-unsupported', 'The running kernel has no fs-verity; nothing was written', {
      hint: 'Install from a machine whose kernel has CONFIG_FS_VERITY',
    });
  }
}

/** Whether the running kernel can mount it, with its module loaded. */
async function knowsFileSystem(host: Host, type: string): Promise<boolean> {
  const isKnown = (): boolean => new RegExp(`\\b${type}$`, 'm').test(fs.readFileSync('/proc/filesystems', 'utf8'));
  if (isKnown()) return true;
  try {
    await host.exec.run('modprobe', ['-q', type], { allowed: [0, 1] });
  } catch (error) {
    // A kernel without modules has no such program.
    if (!isHostctlError(error, 'tool-missing')) throw error;
  }
  return isKnown();
}

/** Whether the target is a file; refuses what is in use or too small. */
function checkTarget(host: Host, target: string): boolean {
  const stat = fs.statSync(target, { throwIfNoEntry: false });
  if (stat === undefined) {
    throw new HostctlError('usage', `"${target}" does not exist`, {
      hint: `For a disk image, make the file first: truncate -s 8G ${target}`,
    });
  }
  if (!stat.isFile() && !stat.isBlockDevice()) {
    throw new HostctlError('usage', `"${target}" is neither a block device nor a file`);
  }
  if (stat.isFile() && stat.size < MIN_DISK_BYTES) {
    throw new HostctlError('no-space', `"${target}" has ${stat.size} bytes; an installation needs ${MIN_DISK_BYTES}`);
  }
  const real = fs.realpathSync(target);
  const inUse = host.mounts.table().find(({ source }) => source === real || source.startsWith(real));
  if (inUse !== undefined && stat.isBlockDevice()) {
    throw new HostctlError('host-unsupported', `"${target}" is in use: mounted at "${inUse.mountPoint}"`);
  }
  return stat.isFile();
}

/** Data is never overwritten: only a disk without any signature is taken. */
async function checkEmpty(host: Host, target: string): Promise<void> {
  const { stdout } = await host.exec.run('wipefs', ['--no-act', '--parsable', target]);
  const found = stdout.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  if (found.length === 0) return;
  const kinds = [...new Set(found.map((line) => line.split(',').at(-1)))].join(', ');
  throw new HostctlError('host-unsupported', `"${target}" is not empty: it has ${kinds}; nothing was written`, {
    hint: `If nothing on it is needed: wipefs --all ${target}`,
  });
}

async function partition(host: Host, target: string, rootType: string): Promise<void> {
  const stat = fs.statSync(target);
  const bytes = stat.isFile()
    ? stat.size
    : Number((await host.exec.run('blockdev', ['--getsize64', target])).stdout.trim());
  if (bytes < MIN_DISK_BYTES) {
    throw new HostctlError('no-space', `"${target}" has ${bytes} bytes; an installation needs ${MIN_DISK_BYTES}`);
  }
  // Room for the kernels of several deployments, without eating a small disk.
  const espMib = bytes >= 8192 * MIB ? 1024 : bytes >= 3072 * MIB ? 512 : 256;
  const { startSector, sectors } = BIOS_BOOT;
  const script = [
    'label: gpt',
    // Whether it is needed is known when the image has been read.
    `3: start=${startSector}, size=${sectors}, type=${BIOS_BOOT_TYPE}, name="BIOS boot"`,
    `1: start=${startSector + sectors}, size=${espMib}MiB, type=${ESP_TYPE}, name="ESP"`,
    `2: type=${rootType}, name="root"`,
    '',
  ].join('\n');
  await host.exec.run('sfdisk', ['--quiet', '--wipe=never', target], { input: script });
}

/** The disk as a block device with partitions; a file through a loop device. */
async function withDisk<T>(
  host: Host,
  target: string,
  isFile: boolean,
  body: (device: string) => Promise<T>,
): Promise<T> {
  if (!isFile) return body(target);
  const { stdout } = await host.exec.run('losetup', ['--find', '--show', '--partscan', target]);
  const device = stdout.trim();
  try {
    return await body(device);
  } finally {
    await host.exec.run('losetup', ['--detach', device]);
  }
}

/** Waits for the kernel to make the nodes of the two new partitions. */
async function partitionNodes(disk: string): Promise<[esp: string, root: string]> {
  // `/dev/disk/by-id/…` and the like are links.
  const device = fs.realpathSync(disk);
  const separator = /\d$/.test(device) ? 'p' : '';
  const nodes: [string, string] = [`${device}${separator}1`, `${device}${separator}2`];
  const deadline = performance.now() + NODE_WAIT_MS;
  while (!nodes.every(exists)) {
    if (performance.now() > deadline) {
      throw new HostctlError('io', `The partitions of "${device}" do not appear`);
    }
    await sleep(50);
  }
  return nodes;
}

async function withMounts<T>(
  host: Host,
  esp: string,
  root: string,
  body: (mountPoint: string) => Promise<T>,
): Promise<T> {
  const mountPoint = makeDirectories('/run', 'hostctl/install', 0o700);
  await host.mounts.mount(root, mountPoint, 'ext4', []);
  try {
    makeDirectories(mountPoint, 'boot');
    await host.mounts.mount(esp, `${mountPoint}/boot`, 'vfat', ['umask=0077']);
    try {
      return await body(mountPoint);
    } finally {
      await host.mounts.umount(`${mountPoint}/boot`);
    }
  } finally {
    await host.mounts.umount(mountPoint);
  }
}
