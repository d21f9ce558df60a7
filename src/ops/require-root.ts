/** What changes the host is for root alone. Apart from what needs it, which is much to load. */

import { HostctlError } from '../errors.ts';
import type { Host } from '../sys/host.ts';

/** Throws 'not-root' unless the command runs with the rights it needs. */
export function requireRoot(host: Host, doing: string): void {
  if (!host.isRoot) throw new HostctlError('not-root', `Only root can ${doing}`, { hint: 'Run it with sudo' });
}
