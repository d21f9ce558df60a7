/**
 * An image with `[var] mode=mount` leaves `/var` to the host. Whether the host mounts anything there can be told from
 * the kernel arguments and the deployment's `/etc/fstab`; without it the system would come up with a `/var` that nobody
 * can write.
 */

import { HostctlError } from '../errors.ts';
import type { BootConfig } from '../format/boot-config.ts';
import { findKargs } from '../format/cmdline.ts';
import { isRegularFile, readSmallText } from '../sys/files.ts';
import { lookup } from '../tree/lookup.ts';
import type { DirectoryNode } from '../tree/node.ts';
import { smallText, type BootFacts, type ContentOf } from './boot-facts.ts';

export interface VarMount {
  readonly places: BootConfig;
  readonly kargs: readonly string[];
  /** The new deployment's own, of the image where `/etc` is transient. */
  readonly fstab: string;
}

/** Checks a deployment that is being made. `etc` is the new `/etc`, with local changes in it. */
export function checkDeployedVar(
  facts: BootFacts,
  kargs: readonly string[],
  etc: string,
  tree: DirectoryNode,
  contentOf: ContentOf,
): void {
  const path = `${etc}/fstab`;
  const ofHost = isRegularFile(path) ? readSmallText(path) : undefined;
  const fstab = facts.places.etc === 'persistent' ? ofHost : smallText(lookup(tree, '/etc/fstab'), contentOf);
  checkVarMount({ places: facts.places, kargs, fstab: fstab ?? '' });
}

/** Throws 'host-unsupported' where the image wants a mounted `/var` and nothing says what to mount. */
export function checkVarMount({ places, kargs, fstab }: VarMount): void {
  if (places.var === 'shared' || kargsMountVar(kargs) || fstabMountsVar(fstab)) return;
  throw new HostctlError('host-unsupported', 'The image leaves /var to the host, and the host mounts nothing there', {
    hint: 'Add a line for /var to /etc/fstab, or --karg systemd.mount-extra=UUID=…:/var',
  });
}

/** Whether `systemd.mount-extra=` or `systemd.volatile=` puts a file system at `/var`. */
export function kargsMountVar(kargs: readonly string[]): boolean {
  return extraVarMounts(kargs) || findKargs(kargs, 'systemd.volatile').at(-1) === 'state';
}

/** Whether `systemd.mount-extra=` does. */
export function extraVarMounts(kargs: readonly string[]): boolean {
  return findKargs(kargs, 'systemd.mount-extra').some((value) => value?.split(':')[1] === '/var');
}

function fstabMountsVar(fstab: string): boolean {
  return fstab.split('\n').some((line) => /^\s*[^#\s]\S*\s+\/var\/?\s/.test(line));
}
