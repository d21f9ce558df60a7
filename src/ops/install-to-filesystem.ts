/**
 * `install to-filesystem`: the first deployment onto file systems that somebody else made and mounted: a root with the
 * ESP, and where wanted `/boot` and `/var`, mounted below it. No partition and no file system is made or mounted here.
 */

import * as fs from 'node:fs';
import { openSysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { findPartition, readBlockFacts, type DiskPartition } from '../sys/block-facts.ts';
import { exists, listNames, makeDirectories } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { MountEntry } from '../sys/mounts.ts';
import { checkHost, type DeployResult } from './deploy.ts';
import { installOnto, prepareInstall, type InstallOptions } from './install-onto.ts';
import { BIOS_BOOT_TYPE } from './install-grub.ts';
import { luksUuid, planFilesystem, type MountFacts } from './install-plan.ts';
import { withUndo } from './undo.ts';
import { withImage } from './with-image.ts';

export async function installToFilesystem(
  host: Host,
  options: InstallOptions & { readonly root: string },
): Promise<DeployResult> {
  const prepared = prepareInstall(host, options);
  const root = realDirectory(options.root);
  const below = host.mounts
    .table()
    .filter(({ mountPoint }) => mountPoint === root || mountPoint.startsWith(`${root}/`));
  const mounts = [];
  for (const mount of topmost(below)) mounts.push(await mountFacts(host, mount));
  const plan = planFilesystem({
    root,
    mounts,
    hasLoaderDriver: (esp) => listNames(`${esp}/EFI/systemd/drivers`).some((name) => /\.efi$/i.test(name)),
    biosBoot: await findBiosBoot(host, topmost(below)),
    kargs: options.kargs,
  });
  return withUndo(host.log, (undo) => {
    if (!exists(plan.boot)) {
      undo.add(`remove "${plan.boot}" again`, () => fs.rmdirSync(plan.boot));
      makeDirectories(root, 'boot');
    }
    checkHost(host, openSysroot(host, { sysroot: root, boot: plan.boot }), options.allowMissingVerity);
    return withImage(host, options.image, undefined, async (source) => {
      // Before anything is written, as whatever else can fail.
      await source.blobs.fetch();
      return installOnto(host, prepared, source, { ...options, ...plan });
    });
  });
}

function realDirectory(path: string): string {
  if (fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new HostctlError('usage', `"${path}" is not a directory`);
  }
  const real = fs.realpathSync(path);
  if (real !== '/') return real;
  throw new HostctlError('usage', 'Cannot install onto the root of the running machine', {
    hint: 'Mount the new root somewhere else, and name that',
  });
}

/** Where GRUB for a BIOS goes: on a disk that anything of the installation lies on. */
async function findBiosBoot(host: Host, mounts: readonly MountEntry[]): Promise<DiskPartition | undefined> {
  if (host.architecture !== 'amd64') return undefined;
  for (const { source } of mounts) {
    const found = await findPartition(host.exec, source, BIOS_BOOT_TYPE);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Of several mounts at one place the one that is seen. */
function topmost(mounts: readonly MountEntry[]): MountEntry[] {
  return [...new Map(mounts.map((mount) => [mount.mountPoint, mount])).values()];
}

async function mountFacts(host: Host, mount: MountEntry): Promise<MountFacts> {
  const block = await readBlockFacts(host.exec, mount.source);
  return {
    mountPoint: mount.mountPoint,
    type: mount.type,
    subvolume: mount.root,
    isReadOnly: mount.options.includes('ro') || mount.superOptions.includes('ro'),
    uuid: block?.uuid,
    partitionType: block?.partitionType,
    luks: (block?.dmUuids ?? []).flatMap((uuid) => luksUuid(uuid) ?? []),
  };
}
