/**
 * `usr-overlay`: `/usr` of the running host can be written until the next boot. A layer in memory lies above it; what
 * is below is read through the verified root as before. Nothing on any disk changes.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { findDigestArguments, splitCmdline } from '../format/cmdline.ts';
import { makeDirectories } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { mountOf, type MountEntry } from '../sys/mounts.ts';
import { requireRoot } from './require-root.ts';

/** Mount source, by which it is recognised. */
const SOURCE = 'hostctl-usr-overlay';
const USR = '/usr';
const SELINUX = 'security.selinux';

/** Mounts the writable layer. Throws 'host-unsupported' on a host that hostctl did not boot, or that has one. */
export async function usrOverlay(host: Host): Promise<{ readonly mounted: typeof USR }> {
  requireRoot(host, 'make /usr writable');
  const table = host.mounts.table();
  checkRoot(host, table);
  if (hasUsrOverlay(table)) {
    throw new HostctlError('host-unsupported', '/usr can be written already, until the next boot');
  }
  const layer = makeDirectories('/run', 'hostctl/usr-overlay', 0o700);
  await host.mounts.mount(SOURCE, layer, 'tmpfs', ['mode=0700']);
  try {
    const [upper, work] = [`${layer}/upper`, `${layer}/work`];
    makeUpper(host, upper);
    fs.mkdirSync(work, 0o700);
    await host.mounts.mount(SOURCE, USR, 'overlay', [`lowerdir=${USR}`, `upperdir=${upper}`, `workdir=${work}`]);
  } finally {
    // The overlay holds the memory by itself; the name is not needed again, and nobody shall write behind its back.
    await host.mounts.umount(layer);
    fs.rmdirSync(layer);
  }
  return { mounted: USR };
}

/** Whether `/usr` of this mount table is a writable layer made here. */
export function hasUsrOverlay(table: readonly MountEntry[]): boolean {
  return table.findLast(({ mountPoint }) => mountPoint === USR)?.source === SOURCE;
}

function checkRoot(host: Host, table: readonly MountEntry[]): void {
  const root = mountOf(table, '/');
  const isOurs = findPinned(host).some((digest) => root?.source === `composefs:${digest}`);
  if (root?.type !== 'overlay' || !isOurs) {
    throw new HostctlError('host-unsupported', 'This machine does not run a deployment of hostctl', {
      hint: 'usr-overlay is for the running host, whose /usr is read-only',
    });
  }
  if (!root.options.includes('ro')) {
    throw new HostctlError('host-unsupported', 'The root of this machine is transient: /usr can be written already');
  }
}

function findPinned(host: Host): string[] {
  try {
    return findDigestArguments(splitCmdline(host.kernelCmdline())).map(({ digest }) => digest);
  } catch (error) {
    // Another system's argument of the same name: then we did not boot this.
    if (error instanceof HostctlError) return [];
    throw error;
  }
}

/** The merged directory gets owner, mode and label from the upper one. */
function makeUpper(host: Host, upper: string): void {
  const { mode, uid, gid } = fs.statSync(USR);
  fs.mkdirSync(upper);
  fs.chownSync(upper, uid, gid);
  fs.chmodSync(upper, mode & 0o7777);
  const label = host.syscalls.listXattrs(USR).get(SELINUX);
  if (label !== undefined) host.syscalls.setXattr(upper, SELINUX, label);
}
