/** For operations that start their command again on a host that needs it: here they must not. */

import type { Restart } from '../../src/ops/writable.ts';

export const noRestart: Restart = {
  isRestarted: false,
  restart: () => Promise.reject(new Error('The command would have started itself again')),
  setExitCode: () => undefined,
};
