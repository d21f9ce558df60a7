/**
 * `pin` and `unpin`: no collection and no upgrade drops a pinned deployment that has been published; it goes by its own
 * `delete`, after `unpin`. One that is only staged still gives way to the next one: the pin is for what has booted.
 */

import { readDeployments } from '../deploy/deployments.ts';
import { findDeployment } from '../deploy/find-deployment.ts';
import { clearPin, setPin } from '../deploy/pins.ts';
import { openSysroot, withSysrootLock, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import type { Host } from '../sys/host.ts';
import { requireRoot } from './require-root.ts';

export interface PinOptions extends SysrootOptions {
  /** Number or digest prefix. */
  readonly id: string;
  readonly pinned: boolean;
}

export interface PinResult {
  /** False when it was so already. */
  readonly changed: boolean;
  readonly id: number;
  readonly pinned: boolean;
}

export function setPinned(host: Host, options: PinOptions): Promise<PinResult> {
  const { pinned } = options;
  requireRoot(host, pinned ? 'pin a deployment' : 'unpin a deployment');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, () => {
    const target = findDeployment(readDeployments(host, sysroot).list, options.id);
    if (target.id === undefined) {
      throw new HostctlError(
        'state-invalid',
        `Cannot pin "${target.name}": it has no number, since its origin is lost`,
      );
    }
    if (pinned) setPin(sysroot, target.id);
    else clearPin(sysroot, target.id);
    return Promise.resolve({ changed: target.pinned !== pinned, id: target.id, pinned });
  });
}
