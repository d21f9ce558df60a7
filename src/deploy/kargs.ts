/**
 * The kernel command line of an entry, put together from where each argument comes from, always in one order: what
 * finds the root, what pins the image, what makes a failed boot end, then the arguments of the image, the host's
 * `kargs.d` and the user. Pure.
 */

import {
  checkCmdlineLength,
  formatDigestArgument,
  joinCmdline,
  parseKarg,
  type DigestArgument,
} from '../format/cmdline.ts';
import type { KargsOfFile } from '../format/kargs-d.ts';

/** Keys that say where the root is and how it is mounted: they stand first. */
const ROOT_KEYS = new Set(['root', 'rootflags', 'rootfstype', 'rootwait', 'rootdelay', 'rw', 'ro']);
/** A kernel that panics boots again, so that the boot counter goes on. */
const PANIC = 'panic=30';
/** dracut would otherwise wait for ever at a locked root account. */
const COUNTED_BOOT = ['rd.shell=0', 'rd.emergency=reboot'];

/** The arguments of a deployment by where they come from; hostctl's own are not among them. */
export interface KargSources {
  /** The image's `kargs.d`. */
  readonly image: readonly KargsOfFile[];
  /** `/etc/hostctl/kargs.d` of the host. */
  readonly host: readonly KargsOfFile[];
  readonly user: readonly string[];
  /** Arguments of the image or the host that the user took away. */
  readonly removed: readonly string[];
}

export type KargOrigin = 'root' | 'hostctl' | 'image' | 'host' | 'user';

export interface SourcedKarg {
  readonly arg: string;
  readonly origin: KargOrigin;
  /** Name of the file in `kargs.d`, where it is known. */
  readonly file?: string;
}

export interface CmdlineParts {
  readonly pinned: DigestArgument;
  /** Directory below `state/deploy`. */
  readonly stateName: string;
  /** Whether the entry has a boot counter: then a failed initramfs ends in the next try. */
  readonly counted: boolean;
  readonly kargs: KargSources;
}

export const NO_KARGS: KargSources = { image: [], host: [], user: [], removed: [] };

/** Whether an argument says where the root is or how it is mounted. */
export function isRootKarg(arg: string): boolean {
  return ROOT_KEYS.has(parseKarg(arg).key);
}

/** Every argument of the command line in its place; the very same one is not repeated. */
export function planCmdline({ pinned, stateName, counted, kargs }: CmdlineParts): SourcedKarg[] {
  const own = [
    formatDigestArgument(pinned),
    ...(stateName === pinned.digest ? [] : [`hostctl.state=${stateName}`]),
    PANIC,
    ...(counted ? COUNTED_BOOT : []),
  ];
  const chosen = chosenKargs(kargs);
  const all: SourcedKarg[] = [
    ...chosen.filter(({ origin }) => origin === 'root'),
    ...own.map((arg) => ({ arg, origin: 'hostctl' as const })),
    ...chosen.filter(({ origin }) => origin !== 'root'),
  ];
  const seen = new Set<string>();
  return all.filter(({ arg }) => !seen.has(arg) && seen.add(arg));
}

/** What image, host and user want together, without hostctl's own: what the user took away is not in it. */
export function chosenKargs(kargs: KargSources): SourcedKarg[] {
  return [
    ...offeredKargs(kargs).filter(({ arg }) => !kargs.removed.includes(arg)),
    ...kargs.user.map((arg) => ({ arg, origin: isRootKarg(arg) ? ('root' as const) : ('user' as const) })),
  ];
}

/** What is only in one of two command lines. */
export function compareKargs(
  before: readonly SourcedKarg[],
  after: readonly SourcedKarg[],
): { readonly added: SourcedKarg[]; readonly removed: SourcedKarg[] } {
  const minus = (list: readonly SourcedKarg[], other: readonly SourcedKarg[]): SourcedKarg[] =>
    list.filter(({ arg }) => !other.some((each) => each.arg === arg));
  return { added: minus(after, before), removed: minus(before, after) };
}

/** Throws 'format-invalid' when the whole is longer than the kernel of `machine` (as `uname -m` says) takes. */
export function buildCmdline(parts: CmdlineParts, machine: string): string {
  const cmdline = joinCmdline(planCmdline(parts).map(({ arg }) => arg));
  checkCmdlineLength(cmdline, machine);
  return cmdline;
}

/** Whether an argument of an entry is one that hostctl gives every deployment. */
export function isOwnKarg(arg: string): boolean {
  const isPin = arg.startsWith('hostctl.state=') || arg.startsWith('composefs.digest=');
  return isPin || arg === PANIC || COUNTED_BOOT.includes(arg);
}

/** What the image and the host offer, also what the user took away of it. */
export function offeredKargs({ image, host }: Pick<KargSources, 'image' | 'host'>): SourcedKarg[] {
  const sourced = (origin: KargOrigin, files: readonly KargsOfFile[]): SourcedKarg[] =>
    files.flatMap(({ file, kargs }) => kargs.map((arg) => ({ arg, origin, ...(file === undefined ? {} : { file }) })));
  return [...sourced('image', image), ...sourced('host', host)];
}

/** What a new deployment brings of its own. */
export interface NewKargs {
  readonly image: readonly KargsOfFile[];
  readonly host: readonly KargsOfFile[];
  /** Named with the command. */
  readonly added: readonly string[];
}

/**
 * The arguments of a deployment that follows one with `previous`: new ones of image and host come, old ones go, and
 * what the user added or took away stays so. One that was taken away and is then no longer offered is forgotten.
 */
export function mergeKargs(previous: KargSources, { image, host, added }: NewKargs): KargSources {
  const offered = new Set(offeredKargs({ image, host }).map(({ arg }) => arg));
  return {
    image,
    host,
    user: [...new Set([...previous.user, ...added])],
    removed: previous.removed.filter((arg) => offered.has(arg) && !added.includes(arg)),
  };
}

/** Whether two deployments of one image have the same arguments; those of the image are the same then. */
export function sameHostKargs(a: KargSources, b: KargSources): boolean {
  const facts = ({ host, user, removed }: KargSources): string =>
    JSON.stringify([offeredKargs({ image: [], host }), user, removed]);
  return facts(a) === facts(b);
}
