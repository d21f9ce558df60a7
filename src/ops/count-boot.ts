/**
 * `count-boot`, early in each boot: counts the boots of a deployment that has not been good yet. Where it had all of them
 * and the boot loader started it once more, the newest good deployment gets an entry that comes before it, and the
 * machine boots once more: the only automatic rollback there is.
 */

import { beginBoot, type BootDecision } from '../deploy/assessment.ts';
import { highestSequence } from '../deploy/boot-entries.ts';
import { commitEntry, withdrawEntry, writeInertEntry } from '../deploy/publish-entry.ts';
import { bootLoader } from '../deploy/loader.ts';
import { isSound, newestFirst } from '../deploy/retention.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { clearTrial, writeTrial, type Trial } from '../deploy/trials.ts';
import { assertNever } from '../errors.ts';
import type { Host } from '../sys/host.ts';
import { afterCommit, nextSequence, recordTransition } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { anotherEntry, recorded, requireTarget, type Target } from './rollback.ts';
import { readThisBoot, type ThisBoot } from './this-boot.ts';
import { withUndo } from './undo.ts';
import { dropReplaced } from './unstage.ts';

export interface CountedBoot {
  readonly id: number | undefined;
  /** `none`: it has been good, or is not one that is tried. */
  readonly decision: BootDecision['kind'] | 'none';
  readonly attempts: number | undefined;
  readonly tries: number | undefined;
  /** The deployment that is started in its place. */
  readonly rollback: number | undefined;
}

export function countBoot(host: Host, options: SysrootOptions): Promise<CountedBoot> {
  requireRoot(host, 'count a boot');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, async () => {
    const boot = readThisBoot(host, sysroot, 'count-boot');
    const { booted, entry, deployments } = boot;
    const { id, trial } = booted;
    const counter = entry === undefined ? undefined : bootLoader(host, sysroot).counterOf(entry);
    if (entry?.isOnce === true || counter === undefined || booted.state === 'good') {
      return { id, decision: 'none', attempts: undefined, tries: undefined, rollback: undefined };
    }
    const [found] = deployments.list
      .filter((item) => item !== booted && isSound(item) && (item.origin ?? item.bootc) !== undefined)
      .sort(newestFirst);
    const target = found === undefined ? undefined : requireTarget(found);
    const decision = beginBoot({
      counter,
      trial,
      bootId: host.bootId(),
      hasGood: target !== undefined,
      newestEntry: highestSequence(sysroot.boot),
    });
    const { attempts, tries } = decision.trial;
    await act(host, sysroot, boot, decision, target);
    const rollback = decision.kind === 'roll-back' ? target?.id : undefined;
    return { id, decision: decision.kind, attempts, tries, rollback };
  });
}

async function act(
  host: Host,
  sysroot: Sysroot,
  boot: ThisBoot,
  { kind, trial }: BootDecision,
  target: Target | undefined,
): Promise<void> {
  switch (kind) {
    case 'try':
    case 'stay':
      // A root that is full must not make a boot fail that would otherwise succeed.
      afterCommit(host, 'record this boot', () => writeTrial(sysroot, boot.booted.name, trial));
      return;
    case 'roll-back':
      if (target !== undefined) await replaceDefault(host, sysroot, boot, trial, target);
      return;
    default:
      assertNever(kind);
  }
}

/** The record comes before the commit: without it nobody would know that this was the one rollback. */
async function replaceDefault(
  host: Host,
  sysroot: Sysroot,
  { booted, deployments }: ThisBoot,
  trial: Trial,
  target: Target,
): Promise<void> {
  const sequence = nextSequence(sysroot, deployments);
  await withUndo(host.log, async (undo) => {
    const inert = await writeInertEntry(
      host,
      sysroot.boot,
      anotherEntry(host, deployments, target, sequence, undefined),
    );
    undo.add('withdraw the boot entry', () => withdrawEntry(sysroot.boot, inert));
    undo.add('restore the count of its boots', () => {
      if (booted.trial === undefined) clearTrial(sysroot, booted.name);
      else writeTrial(sysroot, booted.name, booted.trial);
    });
    writeTrial(sysroot, booted.name, { ...trial, rollback: sequence });
    await commitEntry(host, sysroot.boot, inert);
  });
  dropReplaced(host, sysroot, deployments);
  recordTransition(host, sysroot, { sequence, action: 'automatic-rollback' }, recorded(target, sequence));
}
