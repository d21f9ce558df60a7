/**
 * Names of extended attributes: how EROFS cuts them into prefix number and suffix, its name filter, and how composefs
 * hides a tree's own `trusted.overlay.*` names from overlayfs.
 */

import { xxh32 } from './xxh32.ts';

const FILTER_SEED = 0x25bbe08f;

/** In the order they are tried. `lustre.` has number 5: readers know it, composefs never writes it. */
const WRITTEN_PREFIXES: readonly (readonly [prefix: string, index: number])[] = [
  ['user.', 1],
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['trusted.', 4],
  ['security.', 6],
];

const PREFIX_BY_INDEX: readonly string[] = [
  '',
  'user.',
  'system.posix_acl_access',
  'system.posix_acl_default',
  'trusted.',
  'lustre.',
  'security.',
];

const OVERLAY = 'trusted.overlay.';
const ESCAPED_OVERLAY = 'trusted.overlay.overlay.';

/** Those of version 2, in the order they are tried. */
const VERSION_2_PREFIXES: readonly (readonly [prefix: string, index: number])[] = [
  ['security.', 6],
  ['lustre.', 5],
  ['trusted.', 4],
  ['system.posix_acl_default', 3],
  ['system.posix_acl_access', 2],
  ['user.', 1],
];

/** Prefix number and rest of a full name; number 0 keeps the whole name. */
export function splitXattrName(name: string, isVersion2 = false): { index: number; suffix: string } {
  for (const [prefix, index] of isVersion2 ? VERSION_2_PREFIXES : WRITTEN_PREFIXES) {
    if (name.startsWith(prefix)) return { index, suffix: name.slice(prefix.length) };
  }
  return { index: 0, suffix: name };
}

/** The full name, or undefined for a prefix number that does not exist. */
export function joinXattrName(index: number, suffix: string): string | undefined {
  const prefix = PREFIX_BY_INDEX[index];
  return prefix === undefined ? undefined : prefix + suffix;
}

/** The bit that says "may be present" in an inode's name filter, as a mask. */
export function filterBit(index: number, suffix: string): number {
  return 1 << (xxh32(suffix, FILTER_SEED + index) & 31);
}

/** Gives names that overlayfs would act on one more `overlay.`, so that the mounted tree shows them as they were. */
export function escapeXattrName(name: string): string {
  return name.startsWith(OVERLAY) ? ESCAPED_OVERLAY + name.slice(OVERLAY.length) : name;
}

/** Undoes `escapeXattrName`; undefined for a name that speaks to overlayfs and is not part of the tree. */
export function unescapeXattrName(name: string): string | undefined {
  if (name.startsWith(ESCAPED_OVERLAY)) return OVERLAY + name.slice(ESCAPED_OVERLAY.length);
  return name.startsWith(OVERLAY) ? undefined : name;
}
