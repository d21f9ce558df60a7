/**
 * What lies on the disks of the model's machine, read without any code of the program: entries as a boot loader reads
 * them, what an entry needs in order to boot, `/etc` as plain data, and a table of everything by which "nothing was
 * changed" can be told.
 */

import * as fs from 'node:fs';
import type { Plain } from '../helpers/etc-model.ts';
import type { OracleEntry } from '../helpers/loader-oracles.ts';

export interface DiskEntry extends OracleEntry {
  readonly keys: ReadonlyMap<string, string>;
  /** The verity digest of its command line. */
  readonly digest: string | undefined;
  /** Directory below `state/deploy`. */
  readonly stateName: string | undefined;
  readonly isCounted: boolean;
}

const ENTRIES = 'boot/loader/entries';

export function entriesPath(sysroot: string): string {
  return `${sysroot}/${ENTRIES}`;
}

/** Every entry a loader would show. */
export function readEntries(sysroot: string): DiskEntry[] {
  const directory = entriesPath(sysroot);
  if (!fs.existsSync(directory)) return [];
  return fs
    .readdirSync(directory)
    .filter((name) => name.endsWith('.conf'))
    .map((name) => readEntry(name, fs.readFileSync(`${directory}/${name}`, 'utf8')))
    .filter(({ keys }) => keys.has('linux'));
}

function readEntry(fileName: string, text: string): DiskEntry {
  const keys = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [key = '', ...words] = line.split(' ');
    if (words.length > 0) keys.set(key, words.join(' '));
  }
  const options = keys.get('options') ?? '';
  const digest = /(?:^| )composefs\.digest=\??v1-sha256-12:([0-9a-f]{64})(?: |$)/.exec(options)?.[1];
  return {
    fileName,
    version: keys.get('version'),
    sortKey: keys.get('sort-key'),
    machineId: keys.get('machine-id'),
    keys,
    digest,
    stateName: digest === undefined ? undefined : (/(?:^| )hostctl\.state=(\S+)/.exec(options)?.[1] ?? digest),
    isCounted: /\+\d+(-\d+)?\.conf$/.test(fileName),
  };
}

/** The number a deployment was made with, as its origin says. */
export function idOf(sysroot: string, { digest, stateName }: Pick<DiskEntry, 'digest' | 'stateName'>): number | null {
  if (digest === undefined || stateName === undefined) return null;
  const text = fs.readFileSync(`${sysroot}/state/deploy/${stateName}/${digest}.origin`, 'utf8');
  return Number(/^id = (\d+)$/m.exec(text)?.[1]);
}

/** The state directory of a deployment, found by the number in its origin. */
export function stateNameOf(sysroot: string, id: number): string | undefined {
  if (!fs.existsSync(`${sysroot}/state/deploy`)) return undefined;
  return fs
    .readdirSync(`${sysroot}/state/deploy`)
    .find((name) => idOf(sysroot, { digest: name.slice(0, 64), stateName: name }) === id);
}

/** Entries that boot without being on trial, by the state directory they boot. */
export function goodStates(entries: readonly DiskEntry[]): Set<string> {
  return new Set(entries.flatMap(({ stateName, isCounted }) => (isCounted ? [] : (stateName ?? []))));
}

/** A directory as plain data, as `etc-model.ts` has it. */
export function readPlain(path: string): Plain {
  const stat = fs.lstatSync(path);
  if (stat.isSymbolicLink()) return { leaf: `symlink ${fs.readlinkSync(path)}`, mode: 0, xattrs: '' };
  const mode = stat.mode & 0o7777;
  if (!stat.isDirectory()) return { leaf: `file ${fs.readFileSync(path, 'utf8')}`, mode, xattrs: '' };
  const names = fs.readdirSync(path).sort();
  return { dir: Object.fromEntries(names.map((name) => [name, readPlain(`${path}/${name}`)])), mode, xattrs: '' };
}

/**
 * Every path with what identifies its content: an edit in place, a replacement and a rename all show. Records of the
 * host are replaced as a whole: of them only what they say counts.
 */
export type Facts = ReadonlyMap<string, string>;

const NEITHER_HERE_NOR_THERE = new Set(['state/hostctl/lock-holder']);

export function readFacts(sysroot: string): Facts {
  const facts = new Map<string, string>();
  const walk = (directory: string): void => {
    for (const name of fs.readdirSync(`${sysroot}/${directory}`).sort()) {
      const path = directory === '' ? name : `${directory}/${name}`;
      if (NEITHER_HERE_NOR_THERE.has(path)) continue;
      const stat = fs.lstatSync(`${sysroot}/${path}`);
      if (stat.isDirectory()) {
        facts.set(path, `directory ${stat.mode}`);
        walk(path);
      } else if (stat.isFile() && path.startsWith('state/hostctl/')) {
        facts.set(path, `${stat.mode} ${fs.readFileSync(`${sysroot}/${path}`, 'latin1')}`);
      } else {
        const target = stat.isSymbolicLink() ? fs.readlinkSync(`${sysroot}/${path}`) : '';
        facts.set(path, `${stat.mode} ${stat.size} ${stat.ino} ${stat.mtimeMs} ${target}`);
      }
    }
  };
  walk('');
  return facts;
}

/** Paths that differ, with what they were and what they are. */
export function differences(before: Facts, after: Facts): string[] {
  const found: string[] = [];
  for (const path of new Set([...before.keys(), ...after.keys()])) {
    const [was, is] = [before.get(path), after.get(path)];
    if (was !== is) found.push(`${path}: ${was ?? 'absent'} -> ${is ?? 'absent'}`);
  }
  return found;
}
