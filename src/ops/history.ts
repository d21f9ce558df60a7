/** `history`: what was made the default on this host, and when. Read only. */

import { readHistory, type HistoryEvent } from '../deploy/history.ts';
import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import type { Host } from '../sys/host.ts';

/** Newest first. A record that cannot be read is warned of. */
export function history(host: Host, options: SysrootOptions): HistoryEvent[] {
  return readHistory(openSysroot(host, options), (name, error) =>
    host.log.warn(`The record "${name}" cannot be read: ${error instanceof Error ? error.message : String(error)}`),
  );
}
