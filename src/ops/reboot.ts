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

export async function reboot(host: Host): Promise<void> {
  await host.exec.run('systemctl', ['reboot']);
}
