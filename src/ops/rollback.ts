/**
 * `rollback`: an earlier deployment becomes the default, by a new entry with a new number. Nothing is edited or
 * renumbered, so the way back is the same command again. What is left is not upgraded to again by itself.
 */

import { isUnified, programOf, type FoundEntry } from '../deploy/boot-entries.ts';
import { commitEntry, settleEntry, withdrawEntry, writeInertEntry, type NewEntry } from '../deploy/publish-entry.ts';
import type { BootcOrigin } from '../deploy/bootc.ts';
import { baseDeployment, readDeployments, type Deployment, type Deployments } from '../deploy/deployments.ts';
import { findDeployment } from '../deploy/find-deployment.ts';
import { readFloor } from '../deploy/floor.ts';
import { buildCmdline } from '../deploy/kargs.ts';
import { triesFor } from '../deploy/loader.ts';
import { clearLeft, readLeft, writeLeft } from '../deploy/left.ts';
import type { Origin } from '../deploy/origin.ts';
import { ifSound } from '../deploy/records.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { clearTrial, writeTrial } from '../deploy/trials.ts';
import { HostctlError } from '../errors.ts';
import { entryValue } from '../format/bls/entry.ts';
import { formatHostctlEntryName } from '../format/bls/name.ts';
import { joinCmdline, splitCmdline } from '../format/cmdline.ts';
import type { Host } from '../sys/host.ts';
import { hostTrust, refuseRevoked, revokedLists } from './judge-image.ts';
import { nextSequence, recordTransition, sortKeyOn, stopIfAborted, type Recorded } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { withUndo, type Undo } from './undo.ts';
import { dropReplaced, dropStaged } from './unstage.ts';

export interface RollbackOptions extends SysrootOptions {
  /** Number or digest prefix; undefined takes the newest good one besides the default. */
  readonly to?: string | undefined;
  /** Goes below the floor too. */
  readonly allowDowngrade?: boolean;
}

/** What would happen, or has happened. */
export interface RollbackPlan {
  /** False when it is the default already. */
  readonly changed: boolean;
  readonly from: number | undefined;
  readonly to: number | undefined;
  readonly entryFile: string;
  /** The staged deployment that is dropped. */
  readonly unstaged: number | null;
  readonly kernelChanges: boolean;
  readonly kargs: { readonly added: readonly string[]; readonly removed: readonly string[] };
  /** Whether the running system is another one. */
  readonly rebootNeeded: boolean;
}

/** Tries for a deployment that has never been good. */
const UNPROVEN_TRIES = 3;

export function rollback(host: Host, options: RollbackOptions): Promise<RollbackPlan> {
  requireRoot(host, 'roll back');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, () =>
    withUndo(host.log, async (undo) => {
      const deployments = readDeployments(host, sysroot);
      const { target, entry, plan } = planRollback(host, sysroot, deployments, options);
      if (entry === undefined) {
        // Should a command have died after its commit, the change is made durable now.
        await settleEntry(host, sysroot.boot, plan.entryFile);
        // It would take the target's place: unlike after a commit, it must go.
        dropStaged(host, sysroot, deployments);
        return plan;
      }
      stopIfAborted(host);
      recordLeft(sysroot, deployments.next, undo);
      forgetTrial(sysroot, target, undo);
      const inert = await writeInertEntry(host, sysroot.boot, entry);
      undo.add('withdraw the boot entry', () => withdrawEntry(sysroot.boot, inert));
      stopIfAborted(host);
      await commitEntry(host, sysroot.boot, inert);
      dropReplaced(host, sysroot, deployments);
      recordTransition(
        host,
        sysroot,
        { sequence: entry.sequence, action: 'rollback' },
        recorded(target, entry.sequence),
      );
      return plan;
    }),
  );
}

/** Before the commit, so that a crash cannot lose it; as long as that image is the default it means nothing. */
function recordLeft(sysroot: Sysroot, next: Deployment | undefined, undo: Undo): void {
  if (next?.origin === undefined || next.id === undefined) return;
  const before = ifSound(() => readLeft(sysroot));
  undo.add('restore what was left before', () => {
    if (before === undefined) clearLeft(sysroot);
    else writeLeft(sysroot, before);
  });
  writeLeft(sysroot, { id: next.id, manifestDigest: next.origin.manifestDigest });
}

/** Before the commit too: it is tried from the beginning. */
function forgetTrial(sysroot: Sysroot, { name, trial }: Deployment, undo: Undo): void {
  if (trial === undefined) return;
  undo.add('restore the count of its boots', () => writeTrial(sysroot, name, trial));
  clearTrial(sysroot, name);
}

/** `rollback --plan`: the same decision, and nothing written. */
export function rollbackPlan(host: Host, options: RollbackOptions): RollbackPlan {
  const sysroot = openSysroot(host, options);
  const deployments = readDeployments(host, sysroot);
  return planRollback(host, sysroot, deployments, options).plan;
}

/** One of ours, or one that bootc made. */
export type Target = Deployment &
  ({ readonly origin: Origin } | { readonly origin: undefined; readonly bootc: BootcOrigin });

/** `entry` is undefined when the target is the default already. Throws when there is no target, or it cannot boot. */
function planRollback(
  host: Host,
  sysroot: Sysroot,
  deployments: Deployments,
  { to, allowDowngrade }: RollbackOptions,
): { target: Target; entry: NewEntry | undefined; plan: RollbackPlan } {
  const { next, booted, defaultEntry, stagedRecord } = deployments;
  const target = requireTarget(to === undefined ? deployments.rollback : findDeployment(deployments.list, to));
  const [current] = target.entries;
  const unstaged = stagedRecord?.id ?? null;
  if (target.name === next?.name && defaultEntry !== undefined) {
    const same = { kernelChanges: false, kargs: { added: [], removed: [] }, rebootNeeded: false };
    return {
      target,
      entry: undefined,
      plan: {
        changed: unstaged !== null,
        from: target.id,
        to: target.id,
        entryFile: defaultEntry.file,
        unstaged,
        ...same,
      },
    };
  }
  const { digest, reference } = target.origin ?? target.bootc;
  refuseRevoked(revokedLists(sysroot, hostTrust(sysroot, baseDeployment(deployments))), digest, reference);
  refuseBelowFloor(host, readFloor(sysroot, deployments), target, allowDowngrade === true);
  const tries = target.state === 'good' ? 0 : triesFor(sysroot, UNPROVEN_TRIES);
  const counter = tries === 0 ? undefined : { left: tries, done: 0 };
  const sequence = nextSequence(sysroot, deployments);
  const entry = anotherEntry(host, deployments, target, sequence, counter);
  const before = defaultEntry?.kargs ?? [];
  const after = splitCmdline(entry.options);
  return {
    target,
    entry,
    plan: {
      changed: true,
      from: next?.id,
      to: target.id,
      entryFile: formatHostctlEntryName(counter === undefined ? { sequence } : { sequence, counter }),
      unstaged,
      kernelChanges: defaultEntry?.linux !== current?.linux || defaultEntry?.efi !== current?.efi,
      kargs: {
        added: after.filter((arg) => !before.includes(arg)),
        removed: before.filter((arg) => !after.includes(arg)),
      },
      rebootNeeded: booted !== undefined && booted.name !== target.name,
    },
  };
}

/** bootc's own arguments are taken as they stand: its initramfs is to find what it knows. A unified kernel image has its. */
function optionsFor(host: Host, { origin, name }: Target, current: FoundEntry, counted: boolean): string {
  if (origin === undefined || isUnified(current)) return joinCmdline(current.kargs);
  const pinned = { parameters: origin.parameters, digest: origin.digest, verityRequired: origin.verityRequired };
  return buildCmdline({ pinned, stateName: name, counted, kargs: origin.kargs }, host.machine);
}

/** What the history says of it. */
export function recorded({ id, origin, bootc }: Target, sequence: number): Recorded {
  if (origin !== undefined) return origin;
  const { digest, manifestDigest, reference } = bootc;
  return { id: id ?? sequence, digest, manifestDigest, reference, version: undefined };
}

/** What is asked for by hand; a host that falls back by itself is never below the floor. */
function refuseBelowFloor(host: Host, floor: number, { id, name, origin }: Target, isAllowed: boolean): void {
  const securityVersion = origin?.securityVersion ?? 0;
  if (securityVersion >= floor) return;
  const what = `Deployment ${id ?? name} has the security version ${securityVersion}, and ${floor} was good here already`;
  if (!isAllowed) {
    throw new HostctlError('downgrade-refused', what, { hint: 'Pass --allow-downgrade to go back nevertheless' });
  }
  host.log.warn(`${what}: made the default nevertheless`);
}

/** A further entry of a deployment, with a number that puts it first. Throws 'state-invalid' where it cannot boot. */
export function anotherEntry(
  host: Host,
  deployments: Deployments,
  target: Target,
  sequence: number,
  counter: NewEntry['counter'],
): NewEntry {
  const [current] = target.entries;
  const program = current === undefined ? undefined : programOf(current);
  if (current === undefined || program === undefined) throw unusable(target);
  return {
    sequence,
    counter,
    title: entryValue(current.content, 'title') ?? 'Linux',
    sortKey: sortKeyOn(deployments),
    program,
    options: optionsFor(host, target, current, counter !== undefined),
  };
}

/** Throws where there is none, or it cannot be gone back to. */
export function requireTarget(target: Deployment | undefined): Target {
  if (target === undefined) {
    throw new HostctlError('deployment-not-found', 'There is no good deployment to roll back to', {
      hint: 'See "hostctl status"; "hostctl rollback --to ID" takes one that has not been good yet',
    });
  }
  const { origin, bootc } = target;
  if (target.problems.length > 0) throw unusable(target);
  if (target.state === 'staged') {
    throw new HostctlError('usage', `Deployment ${target.id} is staged: it boots next once this system has shut down`, {
      hint: 'To boot it now: reboot',
    });
  }
  if (origin !== undefined) return { ...target, origin };
  if (bootc === undefined) throw unusable(target);
  return { ...target, origin, bootc };
}

function unusable(target: Deployment): HostctlError {
  const why = target.problems.map(({ message }) => message).join('; ');
  return new HostctlError(
    'state-invalid',
    `Cannot boot deployment ${target.id ?? target.name}: ${why === '' ? 'its origin or entry is lost' : why}`,
    { hint: 'Choose another one with "hostctl rollback --to ID"' },
  );
}
