/**
 * Room on the boot partition for the kernel of an upgrade. Where it does not fit, the deployments that the upgrade
 * drops afterwards anyway lose their entries and kernels before it is written, if that is enough; what never goes by
 * itself stays here too. Plan and act are one collection, dry or not.
 */

import { fitsOnBoot } from '../deploy/boot-partition.ts';
import { kernelSizes, planKernel, type KernelFiles } from '../deploy/kernels.ts';
import { planRetention } from '../deploy/retention.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { isHostctlError } from '../errors.ts';
import type { Host } from '../sys/host.ts';
import { collectGarbage, type GcResult } from './gc.ts';

export interface BootRoomOptions {
  /** How many deployments stay when there is a new one. */
  readonly keep: number;
  /** Whether the user named the boot directory. */
  readonly isBootNamed: boolean;
}

/** What goes from the boot partition before the kernel is written; nothing where it fits. */
export interface BootRoom {
  readonly drops: readonly (number | null)[];
  readonly bytes: number;
}

/** Writes nothing. Throws 'boot-full' where there is too little room even then. */
export async function planBootRoom(
  host: Host,
  sysroot: Sysroot,
  kernel: KernelFiles,
  options: BootRoomOptions,
): Promise<BootRoom> {
  if (fits(sysroot, kernel)) return { drops: [], bytes: 0 };
  const { deployments, items } = await collectBoot(host, sysroot, options, true);
  const bytes = items.reduce((sum, item) => sum + item.bytes, 0);
  planKernel(sysroot.boot, kernel, bytes);
  return { drops: deployments, bytes };
}

/** Carries the plan out. The caller holds the sysroot lock. */
export async function makeBootRoom(
  host: Host,
  sysroot: Sysroot,
  kernel: KernelFiles,
  options: BootRoomOptions,
): Promise<void> {
  const { drops, bytes } = await planBootRoom(host, sysroot, kernel, options);
  if (bytes === 0) return;
  const what = drops.length === 0 ? 'what nothing needs' : `deployment ${drops.join(', ')}`;
  host.log.warn(`"${sysroot.boot.path}" has no room for the new kernel: ${what} is dropped first`);
  await collectBoot(host, sysroot, options, false);
}

/** What is left of the dropped ones in other places goes with the collection after the upgrade. */
function collectBoot(
  host: Host,
  sysroot: Sysroot,
  { keep, isBootNamed }: BootRoomOptions,
  dryRun: boolean,
): Promise<GcResult> {
  return collectGarbage(host, sysroot, {
    choose: ({ deployments }) => planRetention(deployments, { keep: keep - 1 }),
    dryRun,
    isBootNamed,
    ownsRepository: false,
    toleratesDamage: true,
    keepsUsedBlobs: true,
    isBootOnly: true,
  });
}

function fits({ boot }: Sysroot, kernel: KernelFiles): boolean {
  // Where there is room for all of it, nobody needs to know whether it is there already.
  if (fitsOnBoot(boot, kernelSizes(kernel))) return true;
  try {
    planKernel(boot, kernel);
    return true;
  } catch (error) {
    if (isHostctlError(error, 'boot-full')) return false;
    throw error;
  }
}
