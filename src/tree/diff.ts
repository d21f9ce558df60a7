/**
 * What differs between two finished trees, name by name in depth-first byte order. Times are no difference unless the
 * caller says so: they tell when an image was built, not what is in it. Pure.
 */

import { digestAlgorithm, fsverityDigest } from '../format/fsverity/digest.ts';
import { compareRaw, type RawName } from './name.ts';
import { inodeOf, type DirectoryNode, type FileContent, type TreeEntry, type TreeNode } from './node.ts';

/** In what two inodes of one path differ. */
export type TreeAspect = 'type' | 'content' | 'target' | 'device' | 'mode' | 'owner' | 'xattrs' | 'mtime' | 'links';

/** `path` is absolute; "/" is the root. All that is below an added or removed directory is listed as well. */
export type TreeDifference =
  | { readonly kind: 'added'; readonly path: RawName; readonly after: TreeNode }
  | { readonly kind: 'removed'; readonly path: RawName; readonly before: TreeNode }
  | {
      readonly kind: 'modified';
      readonly path: RawName;
      readonly before: TreeNode;
      readonly after: TreeNode;
      readonly aspects: readonly TreeAspect[];
    };

interface Pair {
  readonly path: RawName;
  readonly before: TreeNode | undefined;
  readonly after: TreeNode | undefined;
}

/** What else differs of two inodes of one type. */
export type FurtherAspects = (before: TreeNode, after: TreeNode) => readonly TreeAspect[];

export function* diffTrees(
  before: DirectoryNode,
  after: DirectoryNode,
  further: FurtherAspects = () => [],
): Generator<TreeDifference, void> {
  const pending: Pair[] = [{ path: '/' as RawName, before, after }];
  for (let pair = pending.pop(); pair !== undefined; pair = pending.pop()) {
    const difference = compare(pair, further);
    if (difference !== undefined) yield difference;
    pending.push(...childPairs(pair).reverse());
  }
}

function compare({ path, before, after }: Pair, further: FurtherAspects): TreeDifference | undefined {
  if (before === undefined) return after === undefined ? undefined : { kind: 'added', path, after };
  if (after === undefined) return { kind: 'removed', path, before };
  const own = aspectsOf(before, after);
  const aspects = before.kind === after.kind ? [...own, ...further(before, after)] : own;
  return aspects.length === 0 ? undefined : { kind: 'modified', path, before, after, aspects };
}

function childPairs({ path, before, after }: Pair): Pair[] {
  const earlier = entriesOf(before);
  const later = entriesOf(after);
  const prefix = path === '/' ? '/' : `${path}/`;
  return [...new Set([...earlier.keys(), ...later.keys()])].sort(compareRaw).map((name) => ({
    path: `${prefix}${name}` as RawName,
    before: nodeAt(earlier, name),
    after: nodeAt(later, name),
  }));
}

function entriesOf(node: TreeNode | undefined): ReadonlyMap<RawName, TreeEntry> {
  return node?.kind === 'directory' ? node.entries : new Map();
}

function nodeAt(entries: ReadonlyMap<RawName, TreeEntry>, name: RawName): TreeNode | undefined {
  const entry = entries.get(name);
  return entry === undefined ? undefined : inodeOf(entry);
}

/** In what two inodes differ, times and links left out. */
export function aspectsOf(a: TreeNode, b: TreeNode): TreeAspect[] {
  if (a.kind !== b.kind) return ['type'];
  const aspects: TreeAspect[] = [];
  if (a.kind === 'file' && b.kind === 'file' && !isSameContent(a.content, b.content)) aspects.push('content');
  if (a.kind === 'symlink' && b.kind === 'symlink' && a.target !== b.target) aspects.push('target');
  if ('rdev' in a && 'rdev' in b && a.rdev !== b.rdev) aspects.push('device');
  if (a.mode !== b.mode) aspects.push('mode');
  if (a.uid !== b.uid || a.gid !== b.gid) aspects.push('owner');
  if (!isSameXattrs(a.xattrs, b.xattrs)) aspects.push('xattrs');
  return aspects;
}

/** Digests must be of one algorithm; what is inline in one tree need not be in the other. */
export function isSameContent(a: FileContent, b: FileContent): boolean {
  if (a.kind === 'inline') return b.kind === 'inline' ? Buffer.compare(a.bytes, b.bytes) === 0 : isSameContent(b, a);
  if (a.digest === undefined) return false;
  if (b.kind === 'external') return a.size === b.size && a.digest === b.digest;
  return a.size === b.bytes.length && a.digest === fsverityDigest(digestAlgorithm(a.digest), b.bytes);
}

function isSameXattrs(a: ReadonlyMap<RawName, Uint8Array>, b: ReadonlyMap<RawName, Uint8Array>): boolean {
  if (a.size !== b.size) return false;
  return [...a].every(([name, value]) => {
    const other = b.get(name);
    return other !== undefined && Buffer.compare(value, other) === 0;
  });
}
