/**
 * `kargs --once`: other kernel arguments for one boot. Nothing new is deployed: a further entry of what boots next
 * stands first in the menu with a single try, which the loader uses up when it boots it. mark-good takes it away instead
 * of blessing it, so that the boot after it is the usual one, whatever became of this one.
 */

import { ONCE_KARG, programOf } from '../deploy/boot-entries.ts';
import { commitEntry, removeEntries, withdrawEntry, writeInertEntry } from '../deploy/publish-entry.ts';
import { changeKargs, type KargChanges } from '../deploy/change-kargs.ts';
import { readDeployments, type Deployments } from '../deploy/deployments.ts';
import { compareKargs, planCmdline, type SourcedKarg } from '../deploy/kargs.ts';
import { bootLoader } from '../deploy/loader.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { entryValue } from '../format/bls/entry.ts';
import { checkCmdlineLength, joinCmdline } from '../format/cmdline.ts';
import type { Host } from '../sys/host.ts';
import { afterCommitAsync, checkBoot, nextSequence, sortKeyOn, stopIfAborted } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { withUndo } from './undo.ts';
import { refuseUnifiedKargs } from './unified-kernel.ts';

/** systemd-bless-boot would make the entry one that stays. */
const UNBLESSED = 'systemd.mask=systemd-bless-boot.service';

export interface KargsOnceOptions extends SysrootOptions {
  readonly changes: KargChanges;
  /** Only says what would be done. */
  readonly plan: boolean;
}

export interface KargsOnceResult {
  /** The deployment that boots next, with or without the change. */
  readonly id: number | undefined;
  /** The entry of the one boot; undefined where it was only planned. */
  readonly entryFile: string | undefined;
  readonly added: readonly SourcedKarg[];
  readonly removed: readonly SourcedKarg[];
}

export async function changeKargsOnce(host: Host, options: KargsOnceOptions): Promise<KargsOnceResult> {
  requireRoot(host, 'change kernel arguments');
  const sysroot = openSysroot(host, options);
  refuseUncounted(host, sysroot);
  const { changes } = options;
  if (options.plan) return planOnce(readDeployments(host, sysroot), changes).result;
  checkBoot(sysroot);
  return withSysrootLock(host, sysroot, () =>
    withUndo(host.log, async (undo) => {
      const deployments = readDeployments(host, sysroot);
      const { result, entry } = planOnce(deployments, changes);
      checkCmdlineLength(entry.options, host.machine);
      const inert = await writeInertEntry(host, sysroot.boot, {
        ...entry,
        sequence: nextSequence(sysroot, deployments),
        counter: { left: 1, done: 0 },
      });
      undo.add('withdraw the boot entry', () => withdrawEntry(sysroot.boot, inert));
      stopIfAborted(host);
      await commitEntry(host, sysroot.boot, inert);
      const earlier = deployments.list.flatMap(({ onceEntries }) => onceEntries.map(({ file }) => file));
      if (earlier.length > 0) {
        await afterCommitAsync(host, 'remove the entry of an earlier --once', () =>
          removeEntries(host, sysroot.boot, earlier),
        );
      }
      return { ...result, entryFile: inert.file };
    }),
  );
}

/** Without a counter the entry would boot every time. */
function refuseUncounted(host: Host, sysroot: Sysroot): void {
  const { isRunning } = sysroot;
  if (isRunning && bootLoader(host, sysroot).countsBoots()) return;
  const why = isRunning ? 'the boot loader does not count boots' : 'this is not the system that runs';
  throw new HostctlError('host-unsupported', `Cannot change kernel arguments for one boot: ${why}`, {
    hint: 'Change them without --once, and back after the boot',
  });
}

function planOnce(
  deployments: Deployments,
  changes: KargChanges,
): { result: KargsOnceResult; entry: Omit<Parameters<typeof writeInertEntry>[2], 'sequence' | 'counter'> } {
  const { staged, next, booted } = deployments;
  if (staged !== undefined) {
    throw new HostctlError(
      'usage',
      `Deployment ${staged.id ?? staged.name} is staged, and would not boot next any more`,
      {
        hint: 'Reboot first, or drop it with "hostctl unstage"',
      },
    );
  }
  const target = next ?? booted;
  const current = target?.entries[0];
  if (current !== undefined) refuseUnifiedKargs(current);
  const program = current === undefined ? undefined : programOf(current);
  if (target?.origin === undefined || current === undefined || program === undefined) {
    throw new HostctlError('state-invalid', 'What boots next is no deployment of hostctl, or its entry is damaged', {
      hint: 'See "hostctl status"',
    });
  }
  const { digest, parameters, verityRequired, kargs } = target.origin;
  const cmdlineWith = (sources: typeof kargs): SourcedKarg[] =>
    planCmdline({
      pinned: { digest, parameters, verityRequired },
      stateName: target.name,
      counted: true,
      kargs: sources,
    });
  const before = cmdlineWith(kargs);
  const after = cmdlineWith(changeKargs(kargs, changes));
  const own = [ONCE_KARG, UNBLESSED];
  return {
    result: { id: target.id, entryFile: undefined, ...compareKargs(before, after) },
    entry: {
      title: `${entryValue(current.content, 'title') ?? 'Linux'} (once)`,
      sortKey: sortKeyOn(deployments),
      program,
      options: joinCmdline([...after.map(({ arg }) => arg), ...own]),
    },
  };
}
