/**
 * Random triples of `/etc` trees, and what merging them must give, said as plainly as possible: by value, recursive,
 * and without any code of the merge itself.
 */

import { isDeepStrictEqual } from 'node:util';
import { planEtcMerge, type EtcChange, type EtcConflictRule } from '../../src/deploy/etc-merge.ts';
import type { RawName } from '../../src/tree/name.ts';
import { inodeOf, type DirectoryNode, type TreeEntry, type TreeNode } from '../../src/tree/node.ts';
import { dir, fifo, file, link, symlink } from './tree-builder.ts';

/** What a merge looks at, as plain data: no times, no shared inodes. */
export type Plain =
  | { readonly dir: Readonly<Record<string, Plain>>; readonly mode: number; readonly xattrs: string }
  | { readonly leaf: string; readonly mode: number; readonly xattrs: string };

export function plain(entry: TreeEntry): Plain {
  const node = inodeOf(entry);
  const xattrs = [...node.xattrs]
    .map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`)
    .sort()
    .join();
  const { mode } = node;
  switch (node.kind) {
    case 'directory':
      return { dir: Object.fromEntries([...node.entries].map(([name, child]) => [name, plain(child)])), mode, xattrs };
    case 'file': {
      const content =
        node.content.kind === 'inline' ? Buffer.from(node.content.bytes).toString('latin1') : node.content.digest;
      return { leaf: `file ${content ?? ''}`, mode, xattrs };
    }
    case 'symlink':
      return { leaf: `symlink ${node.target}`, mode: 0, xattrs };
    default:
      return { leaf: node.kind, mode, xattrs };
  }
}

export interface Outcome {
  readonly result: Plain;
  /** Sorted. */
  readonly conflicts: readonly string[];
}

/** The rules of the merge, straight from their wording. */
export function modelMerge(base: Plain, local: Plain, next: Plain, rule: EtcConflictRule | undefined): Outcome {
  const conflicts: string[] = [];
  const merge = (path: string, p: Plain | undefined, c: Plain | undefined, n: Plain | undefined): Plain | undefined => {
    const conflict = (): Plain | undefined => {
      if (rule === 'keep-local') return c;
      if (rule === undefined) conflicts.push(path);
      return n;
    };
    if (same(p, c)) return n;
    if (c === undefined) return n === undefined || isDir(p) === isDir(n) ? undefined : conflict();
    if (n !== undefined && isDir(c) !== isDir(n)) return p !== undefined && isDir(p) === isDir(n) ? c : conflict();
    if (!('dir' in c)) return c;
    const inP = p !== undefined && 'dir' in p ? p.dir : {};
    const inN = n !== undefined && 'dir' in n ? n.dir : {};
    const children: Record<string, Plain> = {};
    for (const name of new Set([...Object.keys(inP), ...Object.keys(c.dir), ...Object.keys(inN)])) {
      const child = merge(path === '' ? name : `${path}/${name}`, inP[name], c.dir[name], inN[name]);
      if (child !== undefined) children[name] = child;
    }
    const changedItself = p === undefined || !('dir' in p) || p.mode !== c.mode || p.xattrs !== c.xattrs;
    if (n === undefined && !changedItself && Object.keys(children).length === 0) return undefined;
    return { ...(changedItself || n === undefined ? c : n), dir: children };
  };
  const result = merge('', withoutSpecials(base), withoutSpecials(local), withoutSpecials(next));
  if (result === undefined) throw new Error('The root cannot go');
  return { result, conflicts: conflicts.sort() };
}

export function withoutSpecials(node: Plain): Plain {
  if (!('dir' in node)) return node;
  const kept = Object.entries(node.dir).filter(([, child]) => !('leaf' in child) || child.leaf !== 'fifo');
  return { ...node, dir: Object.fromEntries(kept.map(([name, child]) => [name, withoutSpecials(child)])) };
}

function isDir(node: Plain | undefined): boolean {
  return node !== undefined && 'dir' in node;
}

function same(a: Plain | undefined, b: Plain | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  if (a.mode !== b.mode || a.xattrs !== b.xattrs) return false;
  if ('leaf' in a) return 'leaf' in b && a.leaf === b.leaf;
  if (!('dir' in b)) return false;
  const names = new Set([...Object.keys(a.dir), ...Object.keys(b.dir)]);
  return [...names].every((name) => same(a.dir[name], b.dir[name]));
}

/** Does the changes of a plan to plain data. Throws where a change finds other than it promises. */
export function applyInMemory(next: Plain, changes: readonly EtcChange[]): Plain {
  const root = structuredClone(withoutSpecials(next)) as Mutable;
  for (const change of changes) {
    const names = change.path.split('/');
    const last = names.pop() ?? '';
    let parent = root;
    for (const name of names) parent = childDir(parent, name);
    const there = change.path === '' ? root : parent.dir?.[last];
    switch (change.kind) {
      case 'add':
        if (there !== undefined) throw new Error(`add: "${change.path}" is there`);
        if (parent.dir === undefined) throw new Error(`add: "${change.path}" has no parent`);
        parent.dir[last] = alone(change.node);
        break;
      case 'replace':
        if (there === undefined || there.dir !== undefined) throw new Error(`replace: "${change.path}" is no file`);
        (parent.dir ?? {})[last] = alone(change.node);
        break;
      case 'remove':
        if (there === undefined) throw new Error(`remove: "${change.path}" is not there`);
        delete parent.dir?.[last];
        break;
      case 'metadata': {
        if (there?.dir === undefined) throw new Error(`metadata: "${change.path}" is no directory`);
        const { mode, xattrs } = plain(change.node);
        Object.assign(there, { mode, xattrs });
      }
    }
  }
  return root as Plain;
}

interface Mutable {
  dir?: Record<string, Mutable>;
  mode: number;
  xattrs: string;
}

function childDir(parent: Mutable, name: string): Mutable {
  const child = parent.dir?.[name];
  if (child?.dir === undefined) throw new Error(`"${name}" is no directory`);
  return child;
}

function alone(node: TreeNode): Mutable {
  const copy = plain(node) as Mutable;
  return copy.dir === undefined ? copy : { ...copy, dir: {} };
}

/** A generator of numbers below `limit` that gives the same sequence for the same seed (mulberry32). */
export function randomOf(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

export interface Triple {
  readonly base: DirectoryNode;
  readonly local: DirectoryNode;
  readonly next: DirectoryNode;
}

const NAMES = ['a', 'b', 'c', '\xff\n'] as RawName[];
const DEPTH = 3;

/** What a scan would have left of the tree. */
export function scanned(node: DirectoryNode): DirectoryNode {
  const kept = [...node.entries].filter(([, entry]) => entry.kind !== 'fifo');
  const entries = kept.map(([name, entry]) => [name, entry.kind === 'directory' ? scanned(entry) : entry] as const);
  return { ...node, entries: new Map(entries) };
}

/** Three trees that have much in common; few names and contents, so that every rule comes up soon. */
export function randomTriple(seed: number): Triple {
  const random = randomOf(seed);
  const base = randomDirectory(random, 0);
  return { base, local: mutated(base, random), next: mutated(base, random) };
}

function randomDirectory(random: (limit: number) => number, depth: number): DirectoryNode {
  const node = dir({ mode: random(4) === 0 ? 0o700 : 0o755 });
  for (const name of NAMES) if (random(2) === 0) node.entries.set(name, randomNode(random, depth + 1));
  return node;
}

function randomNode(random: (limit: number) => number, depth: number): TreeNode {
  const choice = random(12);
  if (choice < 5 && depth < DEPTH) return randomDirectory(random, depth);
  if (choice < 7) return symlink(`t${random(2)}`);
  if (choice === 7) return fifo();
  if (choice === 8) return file('long'.repeat(20 + random(2)));
  return file(`${random(3)}`, { mode: random(3) === 0 ? 0o600 : 0o644 });
}

/** A copy with a few changes; sometimes one file gets a second name. */
function mutated(node: DirectoryNode, random: (limit: number) => number, depth = 0): DirectoryNode {
  const copy: DirectoryNode = { ...node, mode: random(12) === 0 ? 0o750 : node.mode, entries: new Map() };
  for (const name of NAMES) {
    const entry = node.entries.get(name);
    const choice = random(14);
    if (choice === 0) continue;
    if (choice === 1 || (choice === 2 && entry === undefined)) copy.entries.set(name, randomNode(random, depth + 1));
    else if (entry?.kind === 'directory') copy.entries.set(name, mutated(entry, random, depth + 1));
    else if (entry !== undefined) copy.entries.set(name, { ...entry });
  }
  const linked = [...copy.entries.values()].find((entry) => entry.kind === 'file');
  const free = NAMES.find((name) => !copy.entries.has(name));
  if (random(10) === 0 && linked?.kind === 'file' && free !== undefined) copy.entries.set(free, link(linked));
  return copy;
}

const RULES: readonly (EtcConflictRule | undefined)[] = [undefined, 'keep-local', 'take-image'];

export interface CheckedMerges {
  /** What the merge gave and what the rules say, where the two differ. */
  readonly failures: readonly { readonly merge: string; readonly found: Outcome; readonly expected: Outcome }[];
  /** How many had a conflict that no policy settled. */
  readonly conflicting: number;
}

/** Merges `count` random triples under every policy, with and without their conflicts. */
export function checkRandomMerges(firstSeed: number, count: number): CheckedMerges {
  const failures: CheckedMerges['failures'][number][] = [];
  let conflicting = 0;
  for (let seed = firstSeed; seed < firstSeed + count; seed += 1) {
    const triple = randomTriple(seed);
    const next = plain(triple.next);
    for (const rule of RULES) {
      const plan = planEtcMerge(triple, rule === undefined ? {} : { otherwise: rule });
      const found = {
        result: applyInMemory(next, plan.changes),
        conflicts: plan.conflicts.map(({ path }) => path).sort(),
      };
      const expected = modelMerge(plain(triple.base), plain(triple.local), next, rule);
      if (!isDeepStrictEqual(found, expected)) {
        failures.push({ merge: `seed ${seed}, policy ${rule ?? 'none'}`, found, expected });
      }
      if (found.conflicts.length > 0) conflicting += 1;
    }
  }
  return { failures, conflicting };
}
