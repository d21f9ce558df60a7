/**
 * What differs between two trees of `/etc`. Times are no difference, and neither are sockets, fifos and devices, which
 * count as absent; nor is `.updated`, the stamp by which systemd knows what it last ran for. Pure.
 */

import { HostctlError } from '../errors.ts';
import { digestAlgorithm, fsverityDigest } from '../format/fsverity/digest.ts';
import { compareRaw, type RawName } from '../tree/name.ts';
import {
  contentSize,
  inodeOf,
  type DirectoryNode,
  type FileContent,
  type FileNode,
  type Metadata,
  type SymlinkNode,
  type TreeEntry,
  type TreeNode,
} from '../tree/node.ts';
import { isCarriedXattr, isLabelXattr } from './xattr-rules.ts';

/** What a merge deals with. */
export type EtcLeaf = FileNode | SymlinkNode;
export type EtcNode = DirectoryNode | EtcLeaf;

/** In what two inodes of one path differ. */
export type EtcAspect = 'type' | 'content' | 'target' | 'mode' | 'owner' | 'xattrs';

/** `path` is relative to the trees' root, names joined by `/`; the root itself is ''. */
export type EtcDifference =
  | { readonly kind: 'added'; readonly path: RawName; readonly after: EtcNode }
  /** Stands for everything below it as well. */
  | { readonly kind: 'removed'; readonly path: RawName; readonly before: EtcNode }
  | {
      readonly kind: 'modified';
      readonly path: RawName;
      readonly before: EtcNode;
      readonly after: EtcNode;
      readonly aspects: readonly EtcAspect[];
    };

/** systemd's stamp, at the top of `/etc` only (`ConditionNeedsUpdate=`). */
export const UPDATE_STAMP = '.updated' as RawName;

interface Pair {
  readonly path: RawName;
  readonly before: EtcNode | undefined;
  readonly after: EtcNode | undefined;
}

/**
 * Every difference, a directory before its entries, entries in byte order. All that is below an added directory is
 * listed as added. A directory is modified when its own metadata are; what happened in it is listed by itself.
 */
export function diffEtc(base: DirectoryNode, local: DirectoryNode): EtcDifference[] {
  return diffFrom({ path: '' as RawName, before: base, after: local });
}

/** `node`, which is at `path` and not the root, and all that is below it: what a difference from nothing lists. */
export function listEtc(path: RawName, node: EtcNode): { readonly path: RawName; readonly node: EtcNode }[] {
  return diffFrom({ path, before: undefined, after: node }).flatMap((difference) =>
    difference.kind === 'added' ? [{ path: difference.path, node: difference.after }] : [],
  );
}

function diffFrom(root: Pair): EtcDifference[] {
  const differences: EtcDifference[] = [];
  const pending: Pair[] = [root];
  for (let pair = pending.pop(); pair !== undefined; pair = pending.pop()) {
    const difference = compare(pair);
    if (difference !== undefined) differences.push(difference);
    if (pair.after?.kind === 'directory') pending.push(...childPairs(pair).reverse());
  }
  return differences;
}

function compare({ path, before, after }: Pair): EtcDifference | undefined {
  if (after === undefined) return before === undefined ? undefined : { kind: 'removed', path, before };
  if (before === undefined) return { kind: 'added', path, after };
  const aspects = differingAspects(before, after);
  return aspects.length === 0 ? undefined : { kind: 'modified', path, before, after, aspects };
}

function childPairs({ path, before, after }: Pair): Pair[] {
  const earlier = before?.kind === 'directory' ? before.entries : new Map<RawName, TreeEntry>();
  const later = after?.kind === 'directory' ? after.entries : new Map<RawName, TreeEntry>();
  return [...new Set([...earlier.keys(), ...later.keys()])]
    .filter((name) => path !== '' || name !== UPDATE_STAMP)
    .sort(compareRaw)
    .map((name) => ({
      path: joinEtcPath(path, name),
      before: mergeable(earlier.get(name)),
      after: mergeable(later.get(name)),
    }));
}

/** The parent of a path other than '', and the name in it. */
export function splitEtcPath(path: RawName): { readonly parent: RawName; readonly name: RawName } {
  const slash = path.lastIndexOf('/');
  return { parent: path.slice(0, Math.max(slash, 0)) as RawName, name: path.slice(slash + 1) as RawName };
}

export function joinEtcPath(path: RawName, name: RawName): RawName {
  return path === '' ? name : (`${path}/${name}` as RawName);
}

function mergeable(entry: TreeEntry | undefined): EtcNode | undefined {
  if (entry === undefined) return undefined;
  const node = inodeOf(entry);
  return node.kind === 'directory' || node.kind === 'file' || node.kind === 'symlink' ? node : undefined;
}

/** In what two inodes differ; empty when a merge takes them for the same. Looks at no entries of directories. */
export function differingAspects(a: TreeNode, b: TreeNode): EtcAspect[] {
  if (a.kind !== b.kind) return ['type'];
  const aspects: EtcAspect[] = [];
  if (a.kind === 'file' && b.kind === 'file' && !sameContent(a.content, b.content)) aspects.push('content');
  if (a.kind === 'symlink' && b.kind === 'symlink') {
    if (a.target !== b.target) aspects.push('target');
  } else if (a.mode !== b.mode) {
    // The mode of a symlink is nobody's choice.
    aspects.push('mode');
  }
  if (a.uid !== b.uid || a.gid !== b.gid) aspects.push('owner');
  if (!sameXattrs(a, b)) aspects.push('xattrs');
  return aspects;
}

/** Writers differ in what they keep in the image, so the same content may be inline in one tree and not in the other. */
function sameContent(a: FileContent, b: FileContent): boolean {
  if (a.kind === 'inline' && b.kind === 'inline') return Buffer.compare(a.bytes, b.bytes) === 0;
  if (a.kind === 'inline') return sameContent(b, a);
  if (a.size !== contentSize(b)) return false;
  if (a.digest === undefined || (b.kind === 'external' && b.digest === undefined)) {
    throw new HostctlError('image-invalid', 'Cannot compare files whose content has no verity digest');
  }
  const algorithm = digestAlgorithm(a.digest);
  const other = b.kind === 'inline' ? fsverityDigest(algorithm, b.bytes) : b.digest;
  if (other?.length !== a.digest.length) {
    throw new HostctlError('internal', 'Cannot compare files by verity digests of two algorithms');
  }
  return other === a.digest;
}

/** A label that only one side has was given by the running kernel, or dropped with its security module. */
function sameXattrs(a: Metadata, b: Metadata): boolean {
  const names = new Set([...a.xattrs.keys(), ...b.xattrs.keys()]);
  for (const name of names) {
    if (!isCarriedXattr(name)) continue;
    const [one, other] = [a.xattrs.get(name), b.xattrs.get(name)];
    if (one === undefined || other === undefined) {
      if (!isLabelXattr(name)) return false;
    } else if (Buffer.compare(one, other) !== 0) {
      return false;
    }
  }
  return true;
}
