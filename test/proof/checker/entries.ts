/**
 * What a boot loader makes of a boot partition: the entries it can start, and which one it would. Written from UAPI.1
 * and UAPI.10 for the checker alone. GRUB's orders are asked too: a default on which loaders disagree is no default.
 */

import { defaultOfFedoraGrub, defaultOfUpstreamGrub, defaultOfVersionKeyGrub } from '../../helpers/loader-oracles.ts';
import { type Files, join } from './files.ts';

export interface LoaderEntry {
  readonly fileName: string;
  readonly keys: ReadonlyMap<string, readonly string[]>;
}

/** What an entry starts: a kernel, or a unified kernel image. */
export function programOf({ keys }: LoaderEntry): string {
  return keys.get('linux')?.at(-1) ?? keys.get('efi')?.at(-1) ?? '';
}

/** Entries in `loader/entries` below `bootDir`; a file that is none (no kernel, bad text) is left out. */
export function readEntries(files: Files, bootDir: string): LoaderEntry[] {
  const directory = join(bootDir, 'loader/entries');
  const entries: LoaderEntry[] = [];
  for (const fileName of (files.list(directory) ?? []).sort()) {
    if (!/^[A-Za-z0-9+\-_.]+\.conf$/.test(fileName)) continue;
    const text = files.read(join(directory, fileName))?.toString('utf8');
    if (text === undefined) continue;
    const keys = parseEntryText(text);
    if (keys.has('linux') || keys.has('efi')) entries.push({ fileName, keys });
  }
  return entries;
}

/** Every key with its values in their order. */
export function parseEntryText(text: string): Map<string, readonly string[]> {
  const keys = new Map<string, readonly string[]>();
  for (const line of text.split('\n')) {
    const [, key, value] = /^\s*([^#\s]\S*)\s+(.*\S)\s*$/.exec(line) ?? [];
    if (key !== undefined && value !== undefined) keys.set(key, [...(keys.get(key) ?? []), value]);
  }
  return keys;
}

/** The one entry that every loader starts by itself. Undefined without entries; throws where loaders disagree. */
export function defaultEntry(entries: readonly LoaderEntry[]): LoaderEntry | undefined {
  const [first] = [...entries].sort(compareEntries);
  const candidates = entries
    .filter(({ fileName }) => triesLeft(fileName) !== 0)
    .map(({ fileName, keys }) => ({
      fileName,
      ...(keys.get('version')?.[0] ? { version: keys.get('version')?.[0] ?? '' } : {}),
    }));
  if (first && candidates.length > 0) {
    const choices = {
      fedora: defaultOfFedoraGrub(candidates),
      upstream: defaultOfUpstreamGrub(candidates),
      versionKey: defaultOfVersionKeyGrub(candidates),
    };
    for (const [loader, choice] of Object.entries(choices)) {
      if (choice !== first.fileName)
        throw new Error(`loaders disagree: ${first.fileName}, but ${loader} ${choice ?? ''}`);
    }
  }
  return first;
}

function compareEntries(a: LoaderEntry, b: LoaderEntry): number {
  const one = (entry: LoaderEntry, key: string): string | undefined => entry.keys.get(key)?.at(-1);
  const bad = Number(triesLeft(a.fileName) === 0) - Number(triesLeft(b.fileName) === 0);
  if (bad !== 0) return bad;
  const keyA = one(a, 'sort-key');
  const keyB = one(b, 'sort-key');
  if ((keyA === undefined) !== (keyB === undefined)) return keyA === undefined ? 1 : -1;
  if (keyA !== undefined && keyB !== undefined) {
    if (keyA !== keyB) return keyA < keyB ? -1 : 1;
    const machineA = one(a, 'machine-id') ?? '';
    const machineB = one(b, 'machine-id') ?? '';
    if (machineA !== machineB) return machineA < machineB ? -1 : 1;
    const version = compareVersion(one(b, 'version') ?? '', one(a, 'version') ?? '');
    if (version !== 0) return version;
  }
  return compareVersion(stableId(b.fileName), stableId(a.fileName));
}

/** Tries left by the counter in the name; undefined without one. */
export function triesLeft(fileName: string): number | undefined {
  const left = /\+(\d+)(?:-\d+)?\.conf$/.exec(fileName)?.[1];
  return left === undefined ? undefined : Number(left);
}

/** The name without counter and suffix. */
export function stableId(fileName: string): string {
  return fileName.replace(/(\+\d+(-\d+)?)?\.conf$/, '');
}

const TOKEN = /[-.~^]|\d+|[A-Za-z]+/g;
/** Lowest first: what each kind of token counts for against another kind; the end stands after "~" only. */
const RANK = ['~', '', '-', '^', '.', 'letters', 'digits'];

function compareVersion(a: string, b: string): number {
  const left = a.match(TOKEN) ?? [];
  const right = b.match(TOKEN) ?? [];
  for (let i = 0; i < Math.max(left.length, right.length); i += 1) {
    const x = left[i] ?? '';
    const y = right[i] ?? '';
    const kinds = rank(x) - rank(y);
    if (kinds !== 0) return kinds;
    if (/^\d/.test(x)) {
      const numbers = BigInt(x) - BigInt(y);
      if (numbers !== 0n) return numbers < 0n ? -1 : 1;
    } else if (x !== y) {
      return x < y ? -1 : 1;
    }
  }
  return 0;
}

function rank(token: string): number {
  return RANK.indexOf(/^\d/.test(token) ? 'digits' : /^[A-Za-z]/.test(token) ? 'letters' : token);
}
