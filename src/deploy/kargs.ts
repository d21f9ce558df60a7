/**
 * The kernel command line of an entry, put together from where each argument comes from, always in one order: what
 * finds the root, what pins the image, what makes a failed boot end, then the image's and the user's arguments.
 */

import {
  checkCmdlineLength,
  formatDigestArgument,
  joinCmdline,
  parseKarg,
  type DigestArgument,
} from '../format/cmdline.ts';

/** Keys that say where the root is and how it is mounted: they stand first. */
const ROOT_KEYS = new Set(['root', 'rootflags', 'rootfstype', 'rootwait', 'rootdelay', 'rw', 'ro']);
/** A kernel that panics boots again, so that the boot counter goes on. */
const PANIC = 'panic=30';
/** dracut would otherwise wait for ever at a locked root account. */
const COUNTED_BOOT = ['rd.shell=0', 'rd.emergency=reboot'];

export interface CmdlineParts {
  readonly pinned: DigestArgument;
  /** Directory below `state/deploy`. */
  readonly stateName: string;
  /** Whether the entry has a boot counter: then a failed initramfs ends in the next try. */
  readonly counted: boolean;
  readonly imageKargs: readonly string[];
  readonly userKargs: readonly string[];
  /** As `uname -m` says, for the length limit. */
  readonly machine: string;
}

/** Throws 'format-invalid' when the whole is longer than the kernel takes. */
export function buildCmdline(parts: CmdlineParts): string {
  const isRoot = (arg: string): boolean => ROOT_KEYS.has(parseKarg(arg).key);
  const cmdline = joinCmdline([
    ...parts.userKargs.filter(isRoot),
    formatDigestArgument(parts.pinned),
    ...(parts.stateName === parts.pinned.digest ? [] : [`hostctl.state=${parts.stateName}`]),
    PANIC,
    ...(parts.counted ? COUNTED_BOOT : []),
    ...parts.imageKargs,
    ...parts.userKargs.filter((arg) => !isRoot(arg)),
  ]);
  checkCmdlineLength(cmdline, parts.machine);
  return cmdline;
}
