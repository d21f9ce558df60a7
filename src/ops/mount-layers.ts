/**
 * The two ways to make the one mount of an image out of its layers, one EROFS image or two and the object store. By
 * descriptors an EROFS mount never gets a place at all; where the system is too old for that, it gets one in a mount
 * namespace of this process alone, and only the overlay shows outside.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { imageMountSource } from '../store/mounted.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { mountOf } from '../sys/mounts.ts';
import type { MountCalls } from '../sys/native.ts';
import type { VerityDigest } from '../tree/node.ts';

/** What is mounted where. */
export interface ImageMount {
  readonly repository: Repository;
  readonly digest: VerityDigest;
  /** The image, or what shows the same when laid one over the other, the uppermost first; open and measured. */
  readonly imageFds: readonly number[];
  readonly directory: string;
  readonly verity: 'require' | 'off';
  /** Directories of a writable layer. */
  readonly writable: { readonly upper: string; readonly work: string } | undefined;
}

/** Header flag: some node has an ACL. */
const HAS_ACL = 1;
const ACL_FLAG_OFFSET = 8;
/** Where EROFS mounts have their places in the namespace: directories of every /proc, which nothing else is mounted on. */
const PRIVATE_PLACES = ['/proc/fs', '/proc/driver'] as const;

export function mountByDescriptors(host: Host, api: MountCalls, mount: ImageMount): void {
  const opened: number[] = [];
  try {
    for (const imageFd of mount.imageFds) opened.push(mountErofs(host, api, imageFd));
    const overlay = mountOverlay(api, mount, [...opened]);
    opened.push(overlay);
    const target = fs.openSync(mount.directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    opened.push(target);
    api.moveMount(overlay, target);
  } finally {
    for (const fd of opened.reverse()) fs.closeSync(fd);
  }
}

/** A detached EROFS mount: of the file itself (Linux 6.12), else through a loop device that frees itself. */
function mountErofs(host: Host, api: MountCalls, imageFd: number): number {
  try {
    return attachErofs(api, `/proc/self/fd/${imageFd}`, imageFd);
  } catch (error) {
    host.log.debug(`No EROFS from a file, trying a loop device: ${error instanceof Error ? error.message : ''}`);
  }
  const loop = api.openLoopDevice(imageFd);
  try {
    return attachErofs(api, loop.path, imageFd);
  } finally {
    // The mount holds the device by now; if it failed, nothing does.
    fs.closeSync(loop.fd);
  }
}

function attachErofs(api: MountCalls, source: string, imageFd: number): number {
  const context = api.fsopen('erofs');
  try {
    api.setString(context, 'source', source);
    for (const flag of erofsFlags(imageFd)) api.setFlag(context, flag);
    api.create(context);
    return api.fsmount(context, true);
  } finally {
    fs.closeSync(context);
  }
}

function erofsFlags(imageFd: number): string[] {
  const flags = Buffer.alloc(4);
  fs.readSync(imageFd, flags, 0, flags.length, ACL_FLAG_OFFSET);
  return (flags.readUInt32LE(0) & HAS_ACL) !== 0 ? ['ro'] : ['ro', 'noacl'];
}

function mountOverlay(
  api: MountCalls,
  { repository, digest, verity, writable }: ImageMount,
  layers: readonly number[],
): number {
  const context = api.fsopen('overlay');
  try {
    api.setString(context, 'source', imageMountSource(digest));
    api.setString(context, 'metacopy', 'on');
    api.setString(context, 'redirect_dir', 'on');
    api.setString(context, 'verity', verity);
    for (const layer of layers) api.setFd(context, 'lowerdir+', layer);
    api.setString(context, 'datadir+', repository.objectsPath);
    if (writable === undefined) {
      api.setFlag(context, 'ro');
    } else {
      api.setString(context, 'upperdir', writable.upper);
      api.setString(context, 'workdir', writable.work);
    }
    api.create(context);
    return api.fsmount(context, writable === undefined);
  } finally {
    fs.closeSync(context);
  }
}

/**
 * The same by mount(8). Runs in a mount namespace of this process alone whose mounts are still those of the host
 * (`unshare --propagation unchanged`); when the process ends, however it ends, the EROFS mount goes with it.
 */
export async function mountInNamespace(host: Host, mount: ImageMount): Promise<void> {
  const { repository, digest, imageFds, verity, writable } = mount;
  const target = fs.realpathSync(mount.directory);
  const table = host.mounts.table();
  const places = PRIVATE_PLACES.slice(0, imageFds.length);
  const outside = mountOf(table, target);
  const hidden = new Set(places.map((place) => mountOf(table, place)));
  if (outside?.isShared !== true || hidden.has(outside)) {
    throw new HostctlError(
      'host-unsupported',
      `Cannot mount on "${mount.directory}": without the mount API by descriptors only a shared mount passes it on`,
      { hint: `Run "mount --make-shared ${outside?.mountPoint ?? '/'}", or have koffi and Linux 6.15` },
    );
  }
  const layers = [
    `lowerdir=${places.join(':')}::${optionPath(repository.objectsPath)}`,
    ...(writable === undefined
      ? ['ro']
      : [`upperdir=${optionPath(writable.upper)}`, `workdir=${optionPath(writable.work)}`]),
  ];
  for (const mounted of hidden) await host.exec.run('mount', ['--make-private', mounted?.mountPoint ?? '/']);
  for (const [index, place] of places.entries()) {
    const passFd = imageFds[index]!;
    // By its descriptor and under no other name: what was measured is what is mounted. mount(8) finds a loop device.
    const options = erofsFlags(passFd).join(',');
    await host.exec.run('mount', ['--no-canonicalize', '-t', 'erofs', '-o', options, '/proc/self/fd/3', place], {
      passFd,
    });
  }
  await host.mounts.mount(imageMountSource(digest), target, 'overlay', [
    'metacopy=on',
    'redirect_dir=on',
    `verity=${verity}`,
    ...layers,
  ]);
}

/** A path as an option of mount(8) and of overlayfs, which have each an idea of their own of how to quote. */
function optionPath(path: string): string {
  if (!/[,:\\"'\s]/.test(path)) return path;
  throw new HostctlError('host-unsupported', `Cannot mount with the path "${path}", which has special characters`, {
    hint: 'Name another one, or have koffi and Linux 6.15',
  });
}
