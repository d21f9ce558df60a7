/**
 * Changes to the kernel arguments of a deployment as a user names them: added, taken away, given another value. What
 * finds the root and what pins the image are not for the user to take away. Pure.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { checkKarg, parseKarg, sameKargKey } from '../format/cmdline.ts';
import { isRootKarg, offeredKargs, type KargSources } from './kargs.ts';

export interface KargChanges {
  readonly append: readonly string[];
  /** Whole arguments, or keys that one argument has. */
  readonly delete: readonly string[];
  /** `KEY=VALUE`; exactly one argument must have the key. */
  readonly replace: readonly string[];
}

/** Keys by which the boot hook finds and verifies what it mounts. */
const OWNED_KEYS = ['composefs', 'composefs.digest', 'hostctl.state', 'hostctl.once'];
/** Set for every deployment; a later value wins, so they can be changed, but not taken away. */
const DEFAULTED_KEYS = ['panic', 'rd.shell', 'rd.emergency'];

/** Refuses, with 'usage', what is not one argument or is hostctl's alone to say. */
export function checkUserKarg(arg: string): void {
  try {
    checkKarg(arg);
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    throw new HostctlError('usage', error.message, { ...(error.hint === undefined ? {} : { hint: error.hint }) });
  }
  if (hasKey(arg, OWNED_KEYS)) {
    throw new HostctlError('usage', `The kernel argument "${arg}" is set by hostctl and cannot be given`);
  }
}

/** Applies deletions, then replacements, then additions. Throws 'usage' naming what is not there or not allowed. */
export function changeKargs(sources: KargSources, changes: KargChanges): KargSources {
  let result = sources;
  for (const wanted of changes.delete) result = without(result, findToDelete(result, wanted));
  for (const wanted of changes.replace) result = replaced(result, wanted);
  for (const wanted of changes.append) result = appended(result, wanted);
  return result;
}

/** What is in effect of the image's, the host's and the user's arguments. */
function effective(sources: KargSources): string[] {
  const offered = offeredKargs(sources).flatMap(({ arg }) => (sources.removed.includes(arg) ? [] : [arg]));
  return [...new Set([...offered, ...sources.user])];
}

function findToDelete(sources: KargSources, wanted: string): string {
  const present = effective(sources);
  const matches = present.includes(wanted) ? [wanted] : present.filter((arg) => parseKarg(arg).key === wanted);
  const [match] = matches;
  if (match === undefined) {
    if (hasKey(wanted, [...OWNED_KEYS, ...DEFAULTED_KEYS])) {
      throw new HostctlError('usage', `The kernel argument "${wanted}" is set by hostctl and cannot be deleted`, {
        ...(hasKey(wanted, DEFAULTED_KEYS) ? { hint: 'Append it with another value: the last one wins' } : {}),
      });
    }
    throw missing(wanted);
  }
  if (matches.length > 1) throw ambiguous(wanted, matches);
  if (parseKarg(match).key === 'root') {
    throw new HostctlError('usage', `The kernel argument "${match}" finds the root and cannot be deleted`, {
      hint: 'Give it another value with --replace root=VALUE',
    });
  }
  return match;
}

function without(sources: KargSources, arg: string): KargSources {
  const isOffered = offeredKargs(sources).some((offered) => offered.arg === arg);
  return {
    ...sources,
    user: sources.user.filter((each) => each !== arg),
    removed: isOffered && !sources.removed.includes(arg) ? [...sources.removed, arg] : sources.removed,
  };
}

function replaced(sources: KargSources, wanted: string): KargSources {
  checkUserKarg(wanted);
  const { key, value } = parseKarg(wanted);
  if (value === undefined) {
    throw new HostctlError('usage', `--replace takes KEY=VALUE, not "${wanted}"`);
  }
  const matches = effective(sources).filter((arg) => sameKargKey(parseKarg(arg).key, key));
  const [match] = matches;
  if (match === undefined) throw missing(key);
  if (matches.length > 1) throw ambiguous(key, matches);
  if (match === wanted) return sources;
  if (!sources.user.includes(match)) return appended(without(sources, match), wanted);
  const user = sources.user.map((arg) => (arg === match ? wanted : arg));
  return { ...without(sources, match), user };
}

function appended(sources: KargSources, wanted: string): KargSources {
  checkUserKarg(wanted);
  if (effective(sources).includes(wanted)) return sources;
  const isOffered = offeredKargs(sources).some(({ arg }) => arg === wanted);
  // Taken away before: it comes back from where it was, unless its place matters.
  if (isOffered && !isRootKarg(wanted)) {
    return { ...sources, removed: sources.removed.filter((arg) => arg !== wanted) };
  }
  return { ...sources, user: [...sources.user, wanted] };
}

function hasKey(arg: string, keys: readonly string[]): boolean {
  return keys.some((key) => sameKargKey(parseKarg(arg).key, key));
}

function missing(wanted: string): HostctlError {
  return new HostctlError('usage', `There is no kernel argument "${wanted}"`, {
    hint: 'See "hostctl kargs" for those there are',
  });
}

function ambiguous(wanted: string, matches: readonly string[]): HostctlError {
  return new HostctlError('usage', `"${wanted}" fits ${matches.length} kernel arguments: ${matches.join(', ')}`, {
    hint: 'Name the whole argument with --delete, and what shall stand there with --append',
  });
}
