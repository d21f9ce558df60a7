/** `--apply`: the running system is shut down and booted again, the ordinary way, so that what is staged is finalized. */

import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import type { Host } from '../sys/host.ts';

/** To be asked before anything is changed. Throws 'usage' when the sysroot is not that of the running system. */
export function requireRunning(sysroot: Sysroot): void {
  if (sysroot.isRunning) return;
  throw new HostctlError(
    'usage',
    `"${sysroot.path}" is not the root of the running system, so --apply has nothing to boot`,
    {
      hint: 'Leave --apply out',
    },
  );
}

/**
 * Asks for it at once. What it is to boot is committed: a unit that is told to stop, because its time is up, must not
 * leave the machine running.
 */
export function reboot(host: Host): void {
  host.exec.runSync('systemctl', ['reboot']);
}
