/**
 * A boot partition that GRUB reads: a script installed once chooses among the boot entries, each of which has a menu
 * entry of GRUB beside it. GRUB can rename nothing, so what is tried, how often still, and what is good stands in its
 * environment block. That is the one file that is written in place, as a whole, and never truncated or renamed.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError, isHostctlError, isShortage } from '../errors.ts';
import {
  changeEnvironment,
  emptyEnvironment,
  ENVIRONMENT_BYTES,
  parseEnvironment,
  type EnvironmentVariables,
} from '../format/grub/environment-block.ts';
import { COUNTED_KARG } from '../format/grub/menu-script.ts';
import { findKargs } from '../format/cmdline.ts';
import {
  formatHostctlEntryName,
  isBadName,
  MAX_SEQUENCE,
  parseHostctlEntryName,
  type BootCounter,
  type EntryName,
} from '../format/bls/name.ts';
import {
  exists,
  fsyncPath,
  isRegularFile,
  listNames,
  overwriteFile,
  readSmallFile,
  replaceFile,
} from '../sys/files.ts';

/** GRUB's directory on the boot partition. */
export const GRUB = 'grub';
/** The script, by which a boot partition of GRUB is known. */
export const GRUB_SCRIPT = `${GRUB}/hostctl.cfg`;
const ENVIRONMENT = `${GRUB}/grubenv`;
const DIRECTORY = 'loader/entries';

/** What the variables of ours say. */
export interface GrubState {
  /** Whether GRUB has written the block: then it can count. */
  readonly canCount: boolean;
  /** Number of the entry that is tried before the good one. */
  readonly tried: number | undefined;
  readonly triesLeft: number;
  /** Number of the entry that is booted otherwise. */
  readonly good: number | undefined;
}

/** Of a boot entry what GRUB and hostctl's script go by. */
interface Ranked {
  readonly name: EntryName;
  readonly sequence: number | undefined;
  readonly skipped: string | undefined;
}

/** Whether GRUB chooses on the boot partition at `boot`. */
export function hasGrub(boot: string): boolean {
  try {
    return isRegularFile(`${boot}/${GRUB_SCRIPT}`);
  } catch (error) {
    // Only root may look: then nothing else on it can be read either.
    if (errnoOf(error) === 'EACCES') return false;
    throw error;
  }
}

/** Where the menu entry of GRUB is that belongs to a boot entry, by the path of that. */
export function menuEntryPath(entryPath: string): string {
  return entryPath.replace(/(\+[0-9]+(-[0-9]+)?)?\.conf$/, '.cfg');
}

/** To GRUB a block that it cannot read is one without variables. */
export function readGrubState(boot: string): GrubState {
  const variables = readVariables(boot) ?? new Map<string, string>();
  const number = (name: string): number | undefined => {
    const value = variables.get(name) ?? '';
    return /^[0-9]{1,9}$/.test(value) ? Number(value) : undefined;
  };
  return {
    canCount: variables.get('hostctl_check') === '1',
    tried: number('hostctl_try'),
    triesLeft: number('hostctl_left') ?? 0,
    good: number('hostctl_good'),
  };
}

function readVariables(boot: string): EnvironmentVariables | undefined {
  try {
    const block = readSmallFile(`${boot}/${ENVIRONMENT}`, ENVIRONMENT_BYTES);
    return block === undefined ? undefined : parseEnvironment(block);
  } catch (error) {
    if (isShortage(error)) throw error;
    return undefined;
  }
}

/** What GRUB starts by itself, by the rules of the script. */
export function grubDefaultOf<T extends Ranked>(entries: readonly T[], state: GrubState): T | undefined {
  const ours = entries
    .filter(({ sequence, skipped }) => sequence !== undefined && skipped === undefined)
    .sort((a, b) => (b.sequence ?? 0) - (a.sequence ?? 0));
  const numbered = (number: number | undefined): T | undefined => ours.find(({ sequence }) => sequence === number);
  const tried = numbered(state.tried);
  const isTried = tried !== undefined && state.canCount && state.triesLeft > 0;
  return isTried ? tried : (numbered(state.good) ?? ours.find((entry) => entry !== tried) ?? tried);
}

/** The tries of an entry: of the one that is tried as GRUB has counted them, of another one as its name says. */
export function grubCounterOf({ name, sequence }: Ranked, { tried, triesLeft }: GrubState): BootCounter | undefined {
  const { counter } = name;
  if (counter === undefined || isBadName(name) || sequence !== tried) return counter;
  return { left: triesLeft, done: Math.max(0, counter.left + (counter.done ?? 0) - triesLeft) };
}

/** The counter of the boot that has this command line; undefined when GRUB did not count it. */
export function countedByGrub(cmdline: readonly string[]): BootCounter | undefined {
  const [, left, tries] = /^(\d)\/(\d)$/.exec(findKargs(cmdline, COUNTED_KARG).at(-1) ?? '') ?? [];
  return left === undefined ? undefined : { left: Number(left), done: Number(tries) - Number(left) };
}

/**
 * Makes a committed entry the one that is tried, or without a counter the good one. One that stands below what is tried
 * or good already changes nothing of that. Durable when it returns, on FAT; see `bootBarrier` for others. Returns how to
 * take it back; it has been when this throws.
 */
export function announceToGrub(boot: string, file: string): () => void {
  const name = parseHostctlEntryName(file);
  if (name === undefined) throw new HostctlError('internal', `"${file}" is not an entry of hostctl`);
  const { sequence, counter } = name;
  const files = listNames(`${boot}/${DIRECTORY}`);
  const numbers = new Set(files.map((other) => parseHostctlEntryName(other)?.sequence));
  const state = readGrubState(boot);
  const isAbove = (number: number | undefined): boolean => (number ?? 0) > sequence && numbers.has(number);
  if (isAbove(state.good)) return NOTHING_CHANGED;
  const isTriedAbove = isAbove(state.tried);
  if (state.triesLeft === 0 && !isTriedAbove) recordUsedUp(boot, files, state.tried);
  if (counter === undefined) {
    return changeVariables(boot, state, { good: sequence, ...(isTriedAbove ? {} : NOTHING_TRIED) });
  }
  return isTriedAbove ? NOTHING_CHANGED : changeVariables(boot, state, { tried: sequence, triesLeft: counter.left });
}

/** What the block said of an entry that GRUB has given up is said by its name from now on. */
function recordUsedUp(boot: string, files: readonly string[], number: number | undefined): void {
  const file = files.find((name) => parseHostctlEntryName(name)?.sequence === number);
  const counter = file === undefined ? undefined : parseHostctlEntryName(file)?.counter;
  if (number === undefined || counter === undefined || counter.left === 0) return;
  const name = formatHostctlEntryName({ sequence: number, counter: { left: 0, done: counter.left } });
  fs.renameSync(`${boot}/${DIRECTORY}/${file}`, `${boot}/${DIRECTORY}/${name}`);
  fsyncPath(`${boot}/${DIRECTORY}/${name}`);
  fsyncPath(`${boot}/${DIRECTORY}`);
}

/** The boot of this entry was good. One that is not tried is what it was before. Durable, and taken back, as above. */
export function blessForGrub(boot: string, sequence: number | undefined): () => void {
  const state = readGrubState(boot);
  const isTried = sequence !== undefined && state.tried === sequence;
  return isTried ? changeVariables(boot, state, { good: sequence, ...NOTHING_TRIED }) : NOTHING_CHANGED;
}

/** Throws 'state-invalid' where the block cannot be written as `announceToGrub` will. */
export function checkGrubEnvironment(boot: string): void {
  const path = `${boot}/${ENVIRONMENT}`;
  nextBlock(boot, { ...readGrubState(boot), tried: MAX_SEQUENCE, good: MAX_SEQUENCE });
  const bytes = fs.lstatSync(path, { throwIfNoEntry: false })?.size ?? ENVIRONMENT_BYTES;
  if (bytes === ENVIRONMENT_BYTES) return;
  throw new HostctlError('state-invalid', `"${path}" has ${bytes} bytes instead of ${ENVIRONMENT_BYTES}`, {
    hint: `Make it anew: grub-editenv ${path} create`,
  });
}

/** The variables of ours in their order, and what is in the block besides. */
function nextBlock(boot: string, { canCount, tried, triesLeft, good }: GrubState): Uint8Array {
  const path = `${boot}/${ENVIRONMENT}`;
  try {
    // One that GRUB cannot read holds nothing for anybody.
    const block = readVariables(boot) === undefined ? undefined : readSmallFile(path);
    return changeEnvironment(block ?? emptyEnvironment(), {
      hostctl_check: canCount ? '1' : '0',
      hostctl_try: tried === undefined ? undefined : String(tried),
      hostctl_left: tried === undefined ? undefined : String(triesLeft),
      hostctl_good: good === undefined ? undefined : String(good),
    });
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    throw new HostctlError('state-invalid', `Cannot use GRUB's environment block "${path}": it is full`, {
      hint: 'Remove variables that nothing needs with "grub-editenv FILE unset NAME"',
      cause: error,
    });
  }
}

const NOTHING_TRIED = { tried: undefined, triesLeft: 0 } as const;
const NOTHING_CHANGED = (): void => {};

/** Returns how to take the change back; it has been when this throws. */
function changeVariables(boot: string, before: GrubState, changes: Partial<GrubState>): () => void {
  const takeBack = (): void => {
    try {
      writeVariables(boot, before);
    } catch {
      // The error that brought us here says more; a number without its entry means nothing to GRUB.
    }
  };
  try {
    writeVariables(boot, { ...before, ...changes });
  } catch (error) {
    takeBack();
    throw error;
  }
  return takeBack;
}

function writeVariables(boot: string, state: GrubState): void {
  const path = `${boot}/${ENVIRONMENT}`;
  const block = nextBlock(boot, state);
  // Where there is none it gets its name as a whole.
  if (exists(path)) overwriteFile(path, block);
  else replaceFile(path, block);
}
