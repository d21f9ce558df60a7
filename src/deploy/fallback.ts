/**
 * What the initramfs may start instead of a deployment that it refuses: `state/hostctl/fallback`, one line
 * `<entry> <state name>` for each good deployment, the newest first, and the checksum (docs/boot.md). The boot partition
 * is not mounted there. Beside it stands `fallback-tried` from when the hook has made use of it until a boot is good.
 */

import { withChecksum } from '../format/checksum.ts';
import { readSmallText, replaceFile } from '../sys/files.ts';
import type { Deployment } from './deployments.ts';
import { removeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';

/** Durable when this returns; nothing is written where it says so already. */
export function writeFallback(sysroot: Sysroot, good: readonly Deployment[]): void {
  const lines = good
    .flatMap(({ name, entries: [entry] }) => (entry === undefined ? [] : [`${entry.file} ${name}\n`]))
    .join('');
  const text = withChecksum(lines, '#');
  const path = `${sysroot.hostState}/fallback`;
  if (readSmallText(path) !== text) replaceFile(path, text);
}

/** A boot was good: the next one that fails may go back to it again. Idempotent. */
export function clearFallbackTried(sysroot: Sysroot): void {
  removeRecord(sysroot, 'fallback-tried');
}
