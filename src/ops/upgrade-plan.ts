/** What an upgrade would change, as it is shown: out of what was prepared for it, before anything is published. */

import { spaceOnBoot } from '../deploy/boot-partition.ts';
import { buildCmdline } from '../deploy/kargs.ts';
import { kernelSizes, planKernel } from '../deploy/kernels.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { splitCmdline } from '../format/cmdline.ts';
import type { Host } from '../sys/host.ts';
import { describeCarriedEtc, type CarriedEtc } from './carry-etc.ts';
import type { BootRoom } from './boot-room.ts';
import type { DeployRequest } from './deploy.ts';
import type { Prepared, Wanted } from './prepare-deployment.ts';

export interface Candidate {
  readonly reference: string;
  readonly manifestDigest: string;
  readonly version: string | null;
  readonly created: string | null;
}

export interface UpgradePlan {
  readonly candidate: Candidate;
  /** Why it is not taken by itself; null when it may be. */
  readonly avoided: string | null;
  /** Null when there is nothing to do. */
  readonly change: (PlannedChange & { readonly drops: readonly number[]; readonly unstages: number | null }) | null;
}

export interface PlannedChange {
  readonly digest: string;
  /** Layers that were not on this host; a layout on it is read in place. */
  readonly fetchBytes: number;
  /** New objects in the repository, the image among them. */
  readonly objects: number;
  readonly objectBytes: number;
  /** The kernel's files with their clusters; 0 where they are there already. */
  readonly bootBytes: number;
  /** Those of `drops` that go before anything is written, since the boot partition has no room otherwise. */
  readonly dropsFirst: readonly (number | null)[];
  readonly kargs: { readonly added: readonly string[]; readonly removed: readonly string[] };
  readonly etc: CarriedEtc;
  /** Application images that come with it. */
  readonly bound: readonly string[];
  /** The new one does not run before that. */
  readonly rebootNeeded: boolean;
}

export function describeChange(
  host: Host,
  sysroot: Sysroot,
  { deployments, source }: Wanted,
  { image, facts, kargs, carried, origin }: Prepared,
  { tries }: DeployRequest,
  room: BootRoom,
): PlannedChange {
  const kernel = planKernel(sysroot.boot, facts.kernel, room.bytes);
  const pinned = { parameters: image.parameters, digest: image.digest, verityRequired: false };
  const isOwn = (arg: string): boolean => /^(composefs(\.digest)?|hostctl\.state)=/.test(arg);
  const after =
    facts.kernel.kind === 'unified'
      ? facts.kernel.kargs
      : splitCmdline(buildCmdline({ pinned, stateName: image.digest, counted: tries > 0, kargs }, host.machine));
  const before = (deployments.booted ?? deployments.next)?.entries[0]?.kargs ?? [];
  const minus = (some: readonly string[], others: readonly string[]): string[] =>
    some.filter((arg) => !isOwn(arg) && !others.includes(arg));
  return {
    digest: image.digest,
    fetchBytes: source.blobs.missingBytes,
    objects: image.objects.writtenObjects,
    objectBytes: image.objects.writtenBytes,
    bootBytes: kernel.isNew ? spaceOnBoot(sysroot.boot, kernelSizes(kernel.files)) : 0,
    dropsFirst: room.drops,
    kargs: { added: minus(after, before), removed: minus(before, after) },
    etc: describeCarriedEtc(carried),
    bound: origin.bound.map(({ reference }) => reference),
    rebootNeeded: sysroot.isRunning,
  };
}
