/**
 * Decides how local changes in `/etc` go into a new deployment: three-way between the running image's default, the
 * live directory and the new image's default. The outcome is the new default with every local change on top, whole
 * files at a time. Where one side has a file and the other a directory nobody can say what was meant: a conflict,
 * which a policy may settle. Pure.
 */

import { HostctlError } from '../errors.ts';
import type { RawName } from '../tree/name.ts';
import { inodeOf, type DirectoryNode, type TreeNode } from '../tree/node.ts';
import {
  diffEtc,
  differingAspects,
  joinEtcPath,
  listEtc,
  UPDATE_STAMP,
  type EtcDifference,
  type EtcLeaf,
  type EtcNode,
} from './etc-diff.ts';

/** `base`: default of the running image; `local`: live; `next`: default of the new image. */
export interface EtcTrees {
  readonly base: DirectoryNode;
  readonly local: DirectoryNode;
  readonly next: DirectoryNode;
}

/** How a conflict is settled: the path and all below it as they are here, or as the new image has them. */
export type EtcConflictRule = 'keep-local' | 'take-image';

export interface EtcMergePolicy {
  /** For conflicts that no entry of `paths` speaks of. Without it they stay conflicts. */
  readonly otherwise?: EtcConflictRule;
  /** The rule for a path and everything below it; the longest path decides. `ask` leaves it a conflict. */
  readonly paths?: ReadonlyMap<RawName, EtcConflictRule | 'ask'>;
}

/**
 * One step from the new default to the outcome. Paths are relative to `/etc`, '' being `/etc` itself. Nodes are those
 * of the local tree: two paths of one node are hard links.
 */
export type EtcChange =
  /** Nothing stands at `path`, and its parent is there. A directory is added without its entries. */
  | { readonly kind: 'add'; readonly path: RawName; readonly node: EtcNode }
  /** Something that is no directory stands at `path`. */
  | { readonly kind: 'replace'; readonly path: RawName; readonly node: EtcLeaf }
  /** With everything below it. */
  | { readonly kind: 'remove'; readonly path: RawName }
  /** Mode, owner, xattrs and time of a directory. */
  | { readonly kind: 'metadata'; readonly path: RawName; readonly node: DirectoryNode };

export interface EtcConflict {
  readonly path: RawName;
  /** Reads on from the path: "is a directory with changes here, but a file in the new image". */
  readonly reason: string;
}

export interface SettledEtcConflict extends EtcConflict {
  readonly rule: EtcConflictRule;
}

export interface EtcMergePlan {
  /** In the order in which they must be done. */
  readonly changes: readonly EtcChange[];
  /** What the policy does not settle; nothing at or below these paths is in `changes`. */
  readonly conflicts: readonly EtcConflict[];
  /** What the policy settled, and how. */
  readonly settled: readonly SettledEtcConflict[];
  /** Where the image's default changed as well, and the local version stands before it. */
  readonly shadowed: readonly RawName[];
}

/** Plans the merge. The same trees and policy give the same plan; a plan without changes means the new default. */
export function planEtcMerge(trees: EtcTrees, policy: EtcMergePolicy = {}): EtcMergePlan {
  const planner = new Planner(trees, policy);
  for (const difference of diffEtc(trees.base, trees.local)) planner.take(difference);
  const { changes, conflicts, settled, shadowed } = planner;
  return { changes, conflicts, settled, shadowed };
}

/** Where a local difference meets the new image. */
type Place =
  /** `found` is what stands there; `missing` are the parents that do not, outermost first. */
  | { readonly kind: 'open'; readonly found: EtcNode | undefined; readonly missing: readonly EtcChange[] }
  /** Something that is no directory stands where a parent should be. */
  | { readonly kind: 'blocked'; readonly path: RawName; readonly local: DirectoryNode; readonly found: EtcNode }
  | { readonly kind: 'decided' };

class Planner {
  readonly changes: EtcChange[] = [];
  readonly conflicts: EtcConflict[] = [];
  readonly settled: SettledEtcConflict[] = [];
  readonly shadowed: RawName[] = [];
  readonly #trees: EtcTrees;
  readonly #policy: EtcMergePolicy;
  /** Directories of the outcome that have none of the new image's entries. */
  readonly #bare = new Set<RawName>();
  /** Paths of conflicts: what is below them is decided with them. */
  readonly #decided = new Set<RawName>();

  constructor(trees: EtcTrees, policy: EtcMergePolicy) {
    this.#trees = trees;
    this.#policy = policy;
    if (trees.next.entries.has(UPDATE_STAMP)) this.changes.push({ kind: 'remove', path: UPDATE_STAMP });
  }

  /** Differences come a directory before its entries. */
  take(difference: EtcDifference): void {
    const { path } = difference;
    const place = this.#placeOf(path);
    if (place.kind === 'decided') return;
    if (place.kind === 'blocked') {
      this.#conflict(place.path, place.local, place.found, 'is a directory with changes here');
    } else if (difference.kind === 'removed') {
      if (place.found !== undefined) this.#remove(path, difference.before, place.found);
    } else if (place.found === undefined) {
      this.changes.push(...place.missing);
      for (const parent of place.missing) this.#bare.add(parent.path);
      this.#add(path, difference.after);
    } else {
      this.#put(difference, place.found);
    }
  }

  #remove(path: RawName, before: EtcNode, found: EtcNode): void {
    if (isDirectory(before) !== isDirectory(found)) {
      this.#conflict(path, undefined, found, `is removed here (it was ${nameOf(before)})`);
      return;
    }
    this.changes.push({ kind: 'remove', path });
    if (!isSameDefault(before, found)) this.shadowed.push(path);
  }

  /** The local version meets something in the new image. */
  #put(difference: Exclude<EtcDifference, { kind: 'removed' }>, found: EtcNode): void {
    const { path, after } = difference;
    const before = difference.kind === 'modified' ? difference.before : undefined;
    if (isDirectory(after) !== isDirectory(found)) {
      if (before !== undefined && isDirectory(before) === isDirectory(found)) {
        // Only this side changed from one to the other, so it is a local change like any other.
        this.changes.push({ kind: 'remove', path });
        this.#add(path, after);
        if (!isSameDefault(before, found)) this.shadowed.push(path);
      } else {
        const how = difference.kind === 'added' ? 'added' : 'changed';
        this.#conflict(path, after, found, `is ${nameOf(after)} ${how} here`);
      }
    } else if (differingAspects(after, found).length > 0) {
      if (after.kind === 'directory') this.changes.push({ kind: 'metadata', path, node: after });
      else this.changes.push({ kind: 'replace', path, node: after });
      if (before === undefined || differingAspects(before, found).length > 0) this.shadowed.push(path);
    }
  }

  #add(path: RawName, node: EtcNode): void {
    this.changes.push({ kind: 'add', path, node });
    if (node.kind === 'directory') this.#bare.add(path);
  }

  #conflict(path: RawName, local: EtcNode | undefined, found: EtcNode, how: string): void {
    this.#decided.add(path);
    const rule = ruleFor(this.#policy, path);
    const conflict = { path, reason: `${how}, but ${nameOf(found)} in the new image` };
    if (rule === undefined || rule === 'ask') {
      this.conflicts.push(conflict);
      return;
    }
    this.settled.push({ ...conflict, rule });
    if (rule === 'keep-local') {
      this.shadowed.push(path);
      this.changes.push({ kind: 'remove', path });
      if (local === undefined) return;
      for (const added of listEtc(path, local)) this.changes.push({ kind: 'add', ...added });
    }
  }

  #placeOf(path: RawName): Place {
    if (path === '') return { kind: 'open', found: this.#trees.next, missing: [] };
    const missing: EtcChange[] = [];
    const names = path.split('/') as RawName[];
    const last = names.pop();
    let prefix = '' as RawName;
    let local: EtcNode | undefined = this.#trees.local;
    let next: DirectoryNode | undefined = this.#trees.next;
    for (const name of names) {
      prefix = joinEtcPath(prefix, name);
      if (this.#decided.has(prefix)) return { kind: 'decided' };
      local = childOf(local, name);
      if (local?.kind !== 'directory') throw new HostctlError('internal', 'A difference lies in no local directory');
      const found: EtcNode | undefined = this.#bare.has(prefix) ? undefined : childOf(next, name);
      if (found === undefined) {
        if (!this.#bare.has(prefix)) missing.push({ kind: 'add', path: prefix, node: local });
        next = undefined;
      } else if (found.kind === 'directory') {
        next = found;
      } else {
        return { kind: 'blocked', path: prefix, local, found };
      }
    }
    return { kind: 'open', found: last === undefined ? undefined : childOf(next, last), missing };
  }
}

/** Whether two defaults of one path are the same, with all that is below. */
function isSameDefault(before: EtcNode, found: EtcNode): boolean {
  if (before.kind === 'directory' && found.kind === 'directory') return diffEtc(before, found).length === 0;
  return differingAspects(before, found).length === 0;
}

function ruleFor(policy: EtcMergePolicy, path: RawName): EtcConflictRule | 'ask' | undefined {
  for (let at: string = path; ; at = at.slice(0, at.lastIndexOf('/'))) {
    const rule = policy.paths?.get(at as RawName);
    if (rule !== undefined) return rule;
    if (!at.includes('/')) return policy.otherwise;
  }
}

/** What stands at a name on disk: devices, fifos and sockets are never made there, so they count as absent. */
function childOf(node: TreeNode | undefined, name: RawName): EtcNode | undefined {
  const entry = node?.kind === 'directory' ? node.entries.get(name) : undefined;
  const found = entry === undefined ? undefined : inodeOf(entry);
  return found?.kind === 'directory' || found?.kind === 'file' || found?.kind === 'symlink' ? found : undefined;
}

function isDirectory(node: TreeNode): boolean {
  return node.kind === 'directory';
}

function nameOf(node: EtcNode): string {
  switch (node.kind) {
    case 'directory':
      return 'a directory';
    case 'file':
      return 'a file';
    case 'symlink':
      return 'a symlink';
  }
}
