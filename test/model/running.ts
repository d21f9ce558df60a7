/** For `vi.mock` of `deploy/sysroot.ts`: the scratch sysroot is the root that the model's machine runs from. */

import type * as module from '../../src/deploy/sysroot.ts';

export function asRunning(original: typeof module): typeof module {
  return {
    ...original,
    openSysroot: (host, options) => ({ ...original.openSysroot(host, options), isRunning: true }),
  };
}
