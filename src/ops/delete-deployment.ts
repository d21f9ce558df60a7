/**
 * `delete`: one deployment goes, with its kernel, its `/etc` and its image as far as nothing else needs them. Refused
 * where the machine could then not boot as surely as before.
 */

import type { Deployment, Deployments } from '../deploy/deployments.ts';
import { findDeployment } from '../deploy/find-deployment.ts';
import { bootLoader, type BootLoader } from '../deploy/loader.ts';
import { isSound } from '../deploy/retention.ts';
import { openSysroot, withSysrootLock, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { sortMenu } from '../format/bls/order.ts';
import type { Host } from '../sys/host.ts';
import { collectGarbage, type GcResult } from './gc.ts';
import { requireRoot } from './require-root.ts';

export interface DeleteOptions extends SysrootOptions {
  /** Number or digest prefix. */
  readonly id: string;
}

export function deleteDeployment(host: Host, options: DeleteOptions): Promise<GcResult> {
  requireRoot(host, 'delete a deployment');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, () =>
    collectGarbage(host, sysroot, {
      choose: ({ deployments }) => {
        const target = findDeployment(deployments.list, options.id);
        checkDeletable(deployments, target, bootLoader(host, sysroot));
        return [target];
      },
      dryRun: false,
      isBootNamed: options.boot !== undefined,
      ownsRepository: options.repo === undefined,
      toleratesDamage: true,
      keepsUsedBlobs: true,
      isBootOnly: false,
    }),
  );
}

/** Throws 'deployment-in-use' when `target` must stay, and says what to do first. Pure. */
export function checkDeletable(
  deployments: Deployments,
  target: Deployment,
  loader: Pick<BootLoader, 'defaultOf'>,
): void {
  const { list, booted, next, staged } = deployments;
  const others = list.filter((item) => item !== target);
  const refuse = (why: string, hint: string): HostctlError =>
    new HostctlError('deployment-in-use', `Cannot delete deployment ${target.id ?? target.name}: ${why}`, { hint });
  if (target === booted) throw refuse('it runs', 'Boot another one first');
  if (target === staged) throw refuse('it is staged', 'Drop it with "hostctl unstage"');
  if (target.pinned) throw refuse('it is pinned', `Unpin it first: "hostctl unpin ${target.id ?? target.name}"`);
  if (target.entries.some(({ sequence }) => sequence === undefined)) {
    throw refuse("a boot entry that is not hostctl's starts it", 'Remove that entry with the tool that made it');
  }
  if (isSound(target) && !others.some(isSound)) {
    throw refuse('no other one is good', 'Deploy and boot another one first');
  }
  if (target !== next) return;
  const first = loader.defaultOf(sortMenu(others.flatMap(({ entries }) => entries)));
  const then = others.find(({ entries }) => first !== undefined && entries.includes(first));
  if (then === undefined) {
    throw refuse(
      'it boots next and no other one has a boot entry',
      'Deploy another one, or boot the staged one, first',
    );
  }
  if (then.state === 'failed' || then.problems.length > 0) {
    throw refuse('it boots next and what would boot instead is not sound', 'Use "hostctl rollback" first');
  }
}
