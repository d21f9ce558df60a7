/**
 * The running host sees its physical root read-only. A command that writes starts itself again in a mount namespace of
 * its own and remounts it writable there, so that nothing else on the host ever sees it writable.
 */

import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { mountOf, type MountEntry } from '../sys/mounts.ts';
import type { Host } from '../sys/host.ts';
import type { Propagation } from '../sys/restart.ts';

/** How a command starts itself again. */
export interface Restart {
  /** Whether this is the second start already. */
  readonly isRestarted: boolean;
  /** Runs this very command in a mount namespace of its own, to its end; returns its exit status. */
  restart(propagation?: Propagation): Promise<number>;
  setExitCode(code: number): void;
}

/**
 * Makes the sysroot and the boot partition writable for this command. Returns true when the command was run to its
 * end in a second process, so that there is nothing left to do here.
 */
export async function ensureWritable(host: Host, paths: SysrootOptions, run: Restart): Promise<boolean> {
  if (!host.isRoot) return false;
  const sysroot = openSysroot(host, paths);
  if (!sysroot.isRunning) return false;
  const table = host.mounts.table();
  const readOnly = [sysroot.path, sysroot.boot.path]
    .map((path) => mountOf(table, path))
    .filter((mount) => mount !== undefined)
    .filter(isReadOnlyMount);
  if (readOnly.length === 0) return false;
  if (!run.isRestarted) {
    run.setExitCode(await run.restart());
    return true;
  }
  for (const { mountPoint } of readOnly) {
    if (mountPoint === '/') {
      throw new HostctlError('read-only', 'The root file system is read-only', {
        hint: 'This host was not booted by hostctl; name another --sysroot, or remount / writable',
      });
    }
    await host.mounts.remount(mountPoint, ['bind', 'rw']);
  }
  return false;
}

function isReadOnlyMount({ options }: MountEntry): boolean {
  return options.includes('ro');
}
