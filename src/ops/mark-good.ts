/**
 * `mark-good`: the boot that runs is a good one. Its entry loses the boot counter, durably; systemd-bless-boot may
 * have renamed it already, but does not sync the file, which is too little on FAT. Then what failed before it goes on
 * record, and what the initramfs may go back to. Idempotent.
 */

import { clearBootFailure } from '../deploy/boot-failures.ts';
import { readDeployments, type Deployment } from '../deploy/deployments.ts';
import type { FailedDeployment } from '../deploy/failed.ts';
import { clearFallbackTried, writeFallback } from '../deploy/fallback.ts';
import { removeEntries } from '../deploy/publish-entry.ts';
import { planFloor, raiseFloor, restoreFloor } from '../deploy/floor.ts';
import { bootLoader } from '../deploy/loader.ts';
import { isSound, newestFirst } from '../deploy/retention.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { clearTrial } from '../deploy/trials.ts';
import { isRevokedBy } from '../deploy/trust.ts';
import { HostctlError } from '../errors.ts';
import { replaceFile } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { failureMetrics, failureText, lastFailure, recordFailures } from './boot-report.ts';
import { openRepository } from '../store/repository.ts';
import { REVOKED_LIST, writeSigned } from '../store/seals.ts';
import { hostTrust, revokedLists } from './judge-image.ts';
import { afterCommit } from './publish.ts';
import { requireRoot } from './require-root.ts';
import { readThisBoot } from './this-boot.ts';
import { withUndo } from './undo.ts';

export interface MarkGoodOptions extends SysrootOptions {
  /** File that a metrics collector reads; undefined for none. */
  readonly metricsFile?: string | undefined;
}

export interface MarkGoodResult {
  readonly id: number | undefined;
  readonly entryFile: string;
  /** The newer deployment that failed, and in whose place this one runs. */
  readonly failed: FailedDeployment | null;
}

export function markGood(host: Host, options: MarkGoodOptions): Promise<MarkGoodResult> {
  requireRoot(host, 'mark a boot as good');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, async () => {
    const { booted, entry } = readThisBoot(host, sysroot, 'mark-good');
    if (entry === undefined) {
      throw new HostctlError('host-unsupported', 'No boot entry is left that starts what runs', {
        hint: 'See "hostctl status"',
      });
    }
    if (entry.isOnce) {
      // Its one boot is used up; what it says is not to be booted again.
      await removeEntries(host, sysroot.boot, [entry.file]);
      return { id: booted.id, entryFile: entry.file, failed: null };
    }
    // Read while nothing is changed yet: from then on only writing it can fail.
    const floor = planFloor(sysroot, { booted });
    const entryFile = await bootLoader(host, sysroot).bless(entry);
    await withUndo(host.log, (undo) => {
      undo.add('put the floor back', () => restoreFloor(sysroot, floor));
      raiseFloor(sysroot, floor);
    });
    const failed = afterCommit(host, 'see to what was before this boot', () => settle(host, sysroot, booted, options));
    return { id: booted.id, entryFile, failed: failed ?? null };
  });
}

/** A root that is full must not make this boot fail: each of these can be missed. Returns what failed before. */
function settle(
  host: Host,
  sysroot: Sysroot,
  booted: Deployment,
  { metricsFile }: MarkGoodOptions,
): FailedDeployment | undefined {
  const also = (what: string, step: () => void): void => void afterCommit(host, what, step);
  const { name, origin } = booted;
  if (origin !== undefined) also('forget its failures', () => clearBootFailure(sysroot, origin.digest));
  also('forget the count of its boots', () => clearTrial(sysroot, name));
  const deployments = readDeployments(host, sysroot);
  const loader = bootLoader(host, sysroot);
  const good = deployments.list.filter(isSound).sort(newestFirst);
  also('write what the initramfs may go back to', () => writeFallback(sysroot, good));
  also('forget that it did', () => clearFallbackTried(sysroot));
  also('have the initramfs know what is revoked', () => installRevoked(host, sysroot, booted));
  const failed = lastFailure(sysroot, loader, deployments);
  if (failed !== undefined) host.log.warn(failureText(failed));
  also('record what failed', () => recordFailures(host, sysroot, loader, deployments, failed));
  if (metricsFile !== undefined) also('write metrics', () => replaceFile(metricsFile, failureMetrics(failed)));
  return failed;
}

/**
 * The host's list of revoked images is put where the initramfs looks for it only now: until a boot was good, everything
 * that the host may fall back to still boots. One that would keep the running image itself from booting waits.
 */
function installRevoked(host: Host, sysroot: Sysroot, booted: Deployment): void {
  const trust = hostTrust(sysroot, booted);
  const [list, stored] = revokedLists(sysroot, trust);
  const repository = openRepository(host, sysroot.repo);
  if (trust.revoked === undefined || list === undefined || repository === undefined) return;
  if (stored !== undefined && stored.number >= list.number) return;
  if (isRevokedBy([list], booted.origin?.digest ?? '')) {
    host.log.warn('The image that runs is revoked: deploy another one. Until then it still boots');
    return;
  }
  writeSigned(repository, REVOKED_LIST, trust.revoked);
}
