/**
 * The host's own kernel arguments: `/etc/hostctl/kargs.d/*.toml` of the deployment that is replaced, in the format of
 * the image's `kargs.d`. They go into each new deployment; the one that is there keeps what it was made with.
 */

import { checkUserKarg } from '../deploy/change-kargs.ts';
import type { Deployment } from '../deploy/deployments.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { kargsFromFiles, rustArchitecture, type KargsOfFile } from '../format/kargs-d.ts';
import { isDirectory, listNames, readSmallText } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';

const DIRECTORY = 'hostctl/kargs.d';

/** Throws 'config-invalid' naming the file: an argument that is left out silently could keep the host from booting. */
export function readHostKargs(host: Host, sysroot: Sysroot, base: Deployment | undefined): KargsOfFile[] {
  if (base === undefined) return [];
  const etc = `${sysroot.deployments}/${base.name}/etc`;
  // An /etc that is no directory is a problem of that deployment; the next one is made without it.
  if (!isDirectory(etc)) return [];
  const directory = `${etc}/${DIRECTORY}`;
  try {
    const files = listNames(directory).filter((name) => name.endsWith('.toml'));
    const texts = new Map(files.map((name) => [name, readSmallText(`${directory}/${name}`) ?? '']));
    const found = kargsFromFiles(texts, rustArchitecture(host.architecture));
    for (const { kargs } of found) kargs.forEach(checkUserKarg);
    return found;
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    throw new HostctlError('config-invalid', `Cannot use "/etc/${DIRECTORY}": ${error.message}`, { cause: error });
  }
}
