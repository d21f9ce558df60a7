/**
 * Starting this very command again in a mount namespace of its own (`unshare --mount`), where it may remount what the
 * rest of the host sees read-only. An environment variable tells the second start from the first.
 */

import os from 'node:os';
import { execa } from 'execa';

const MARK = 'HOSTCTL_PRIVATE_MOUNTS';

/** @param args - the command line as given, without program names */
export function restartInPrivateMounts(
  args: readonly string[],
  signal: AbortSignal,
): { readonly isRestarted: boolean; restart(): Promise<number> } {
  return {
    isRestarted: process.env[MARK] === '1',
    async restart() {
      const self = [process.execPath, ...process.execArgv, process.argv[1] ?? '', ...args];
      const result = await execa('unshare', ['--mount', '--propagation', 'private', '--', ...self], {
        env: { [MARK]: '1' },
        stdio: 'inherit',
        reject: false,
        cancelSignal: signal,
        // The second process cleans up and ends by itself; it is never left behind.
        forceKillAfterDelay: false,
      });
      if (result.exitCode !== undefined) return result.exitCode;
      return 128 + (result.signal === undefined ? 1 : os.constants.signals[result.signal]);
    },
  };
}
