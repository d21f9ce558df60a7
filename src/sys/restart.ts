/**
 * Starting this very command again in a mount namespace of its own (`unshare --mount`), where it may mount and remount
 * what the rest of the host is not to see. An environment variable tells the second start from the first.
 */

import os from 'node:os';
import { loadExeca } from './execa.ts';

const MARK = 'HOSTCTL_PRIVATE_MOUNTS';

/** `unchanged`: what is mounted on a shared mount shows on the host all the same, unless that mount is made private. */
export type Propagation = 'private' | 'unchanged';

/** @param args - the command line as given, without program names */
export function restartInPrivateMounts(
  args: readonly string[],
  signal: AbortSignal,
): { readonly isRestarted: boolean; restart(propagation?: Propagation): Promise<number> } {
  return {
    isRestarted: process.env[MARK] === '1',
    async restart(propagation = 'private') {
      const self = [process.execPath, ...process.execArgv, process.argv[1] ?? '', ...args];
      const result = await loadExeca().execa('unshare', ['--mount', '--propagation', propagation, '--', ...self], {
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
