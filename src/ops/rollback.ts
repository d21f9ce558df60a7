/**
 * `rollback`: an earlier deployment becomes the default, by a new entry with a new number. Nothing is edited or
 * renumbered, so the way back is the same command again.
 */

import { commitEntry, withdrawEntry, writeInertEntry } from '../deploy/boot-entries.ts';
import { readDeployments, type Deployment } from '../deploy/deployments.ts';
import { findDeployment } from '../deploy/find-deployment.ts';
import { buildCmdline } from '../deploy/kargs.ts';
import { openSysroot, withSysrootLock, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { entryValue } from '../format/bls/entry.ts';
import type { Host } from '../sys/host.ts';
import { nextSequence, requireRoot, SORT_KEY, stopIfAborted } from './publish.ts';
import { withUndo } from './undo.ts';

export interface RollbackOptions extends SysrootOptions {
  /** Number or digest prefix; undefined takes the newest good one besides the default. */
  readonly to?: string | undefined;
}

export interface RollbackResult {
  /** False when it is the default already. */
  readonly changed: boolean;
  readonly from: number | undefined;
  readonly to: number | undefined;
  readonly entryFile: string;
}

/** Tries for a deployment that has never been good. */
const UNPROVEN_TRIES = 3;

export function rollback(host: Host, options: RollbackOptions): Promise<RollbackResult> {
  requireRoot(host, 'roll back');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, () =>
    withUndo(host.log, async (undo) => {
      const deployments = readDeployments(host, sysroot);
      const target = options.to === undefined ? deployments.rollback : findDeployment(deployments.list, options.to);
      if (target === undefined) {
        throw new HostctlError('deployment-not-found', 'There is no good deployment to roll back to', {
          hint: 'See "hostctl status"; "hostctl rollback --to ID" takes one that has not been good yet',
        });
      }
      const [current] = target.entries;
      if (target === deployments.next && deployments.defaultEntry !== undefined) {
        return { changed: false, from: target.id, to: target.id, entryFile: deployments.defaultEntry.file };
      }
      const { origin } = target;
      if (origin === undefined || current?.linux === undefined || current.initrd[0] === undefined) {
        throw unusable(target);
      }
      if (target.problems.length > 0) throw unusable(target);
      const counter = target.state === 'good' ? undefined : { left: UNPROVEN_TRIES, done: 0 };
      stopIfAborted(host);
      const inert = await writeInertEntry(host, sysroot.boot, {
        sequence: nextSequence(sysroot, deployments),
        counter,
        title: entryValue(current.content, 'title') ?? 'Linux',
        sortKey: SORT_KEY,
        linuxPath: current.linux,
        initrdPath: current.initrd[0],
        options: buildCmdline({
          pinned: { parameters: origin.parameters, digest: origin.digest, verityRequired: origin.verityRequired },
          stateName: target.name,
          counted: counter !== undefined,
          imageKargs: origin.imageKargs,
          userKargs: origin.userKargs,
          machine: host.machine,
        }),
      });
      undo.add('withdraw the boot entry', () => withdrawEntry(sysroot.boot, inert));
      stopIfAborted(host);
      await commitEntry(host, sysroot.boot, inert);
      return { changed: true, from: deployments.next?.id, to: target.id, entryFile: inert.file };
    }),
  );
}

function unusable(target: Deployment): HostctlError {
  const why = target.problems.map(({ message }) => message).join('; ');
  return new HostctlError(
    'state-invalid',
    `Cannot boot deployment ${target.id ?? target.name}: ${why === '' ? 'its origin is lost' : why}`,
    { hint: 'Choose another one with "hostctl rollback --to ID"' },
  );
}
