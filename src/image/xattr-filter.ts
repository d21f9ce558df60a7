/**
 * Which xattrs of an image reach the tree: an allow-list, since others are labels of the build host, or steer
 * overlayfs. The same choice as composefs-rs makes, because the digest depends on it.
 */

import type { RawName } from '../tree/name.ts';

/** `allowlist-only` is composefs-rs's default; `keep-user-xattrs` keeps `user.*` as well. */
export type XattrMode = 'allowlist-only' | 'keep-user-xattrs';

/** Whether an xattr of this name stays. */
export function isKeptXattr(name: RawName, mode: XattrMode): boolean {
  if (name === 'security.capability') return true;
  return mode === 'keep-user-xattrs' && name.startsWith('user.') && !name.startsWith('user.overlay.');
}
