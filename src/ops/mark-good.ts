/**
 * `mark-good`: the boot that runs is a good one. Its entry loses the boot counter, durably; systemd-bless-boot may
 * have renamed it already, but does not sync the file, which is too little on FAT. Idempotent.
 */

import { blessEntry } from '../deploy/boot-entries.ts';
import { clearBootFailure } from '../deploy/boot-failures.ts';
import { bootBarrier } from '../deploy/boot-partition.ts';
import { readDeployments } from '../deploy/deployments.ts';
import { bootedEntry } from '../deploy/loader.ts';
import { openSysroot, withSysrootLock, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { splitCmdline } from '../format/cmdline.ts';
import type { Host } from '../sys/host.ts';
import { removeEntry } from './gc-remove.ts';
import { requireRoot } from './publish.ts';

export interface MarkGoodResult {
  readonly id: number | undefined;
  readonly entryFile: string;
}

export function markGood(host: Host, options: SysrootOptions): Promise<MarkGoodResult> {
  requireRoot(host, 'mark a boot as good');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, async () => {
    const { booted } = readDeployments(host, sysroot);
    const entries = booted === undefined ? [] : [...booted.onceEntries, ...booted.entries];
    const entry = bootedEntry(host, entries, splitCmdline(host.kernelCmdline()));
    if (booted === undefined || entry === undefined) {
      throw new HostctlError('host-unsupported', 'This machine does not run a deployment of hostctl', {
        hint: 'mark-good is for the running host; its unit calls it after a complete boot',
      });
    }
    if (booted.origin !== undefined) clearBootFailure(sysroot, booted.origin.digest);
    if (entry.isOnce) {
      // Its one boot is used up; what it says is not to be booted again.
      removeEntry(sysroot, entry.file);
      await bootBarrier(host, sysroot.boot);
      return { id: booted.id, entryFile: entry.file };
    }
    const entryFile = await blessEntry(host, sysroot.boot, entry);
    return { id: booted.id, entryFile };
  });
}
