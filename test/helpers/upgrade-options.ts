/** What `upgrade` is asked on a scratch sysroot, unless a test says otherwise. */

import type { UpgradeOptions } from '../../src/ops/upgrade.ts';
import type { ScratchSysroot } from './scratch-sysroot.ts';

export function upgradeOptions(sysroot: ScratchSysroot, more: Partial<UpgradeOptions> = {}): UpgradeOptions {
  return {
    sysroot: sysroot.path,
    kargs: [],
    algorithm: undefined,
    tries: 3,
    allowMissingVerity: true,
    allowDowngrade: false,
    etcPolicy: {},
    keep: 3,
    downloadOnly: false,
    ...more,
  };
}
