/**
 * What composefs adds to a file-system tree before it becomes an EROFS image: overlayfs attributes that send readers of
 * large files to their objects, whiteouts in a form that survives overlayfs, and the stubs that hide the object store's
 * own directories. The result lists every inode in image order (breadth first); the tree itself is not touched.
 */

import { rawFromBytes, type RawName } from '../../tree/name.ts';
import type { DirectoryNode, ExternalContent, LeafNode, Metadata, Timestamp, TreeNode } from '../../tree/node.ts';
import { FILE_TYPES, type NodeKind } from './file-type.ts';
import { escapeXattrName } from './xattr-name.ts';
import { XattrPool, type Xattr } from './xattrs.ts';

/** 0 and 1 are mkcomposefs' layout; 2 is the layout of composefs-rs before it had that one. */
export type ComposefsVersion = 0 | 1 | 2;

export interface PreparedInode {
  /** Index in image order. */
  readonly ino: number;
  /** Kind in the image; a whiteout has become a file. */
  readonly kind: NodeKind;
  /** The node of the tree; undefined for a stub. */
  readonly node: TreeNode | undefined;
  /** Type and permission bits. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Timestamp;
  /** Directories only: all names in byte order, "." and ".." among them, and the inode of each. */
  readonly names: readonly string[];
  readonly targets: readonly PreparedInode[];
}

export interface PreparedTree {
  readonly version: ComposefsVersion;
  /** In image order; the root is the first. */
  readonly inodes: readonly PreparedInode[];
  /** The xattrs of an inode, by full name; made anew each time, since all of them together would take much memory. */
  readonly xattrsOf: (inode: PreparedInode) => readonly Xattr[];
  readonly hasAcl: boolean;
  /** The least mtime; compact inodes have it implied. */
  readonly minMtime: Timestamp;
  /** The shared xattr table, in order. */
  readonly sharedXattrs: readonly Xattr[];
  /** Bytes. */
  readonly sharedXattrsSize: number;
}

/** What an image does to the layers below it in an overlay. */
export interface LayerMarks {
  /** Names that it hides, by directory: each becomes a whiteout that overlayfs acts on. */
  readonly hidden: ReadonlyMap<DirectoryNode, ReadonlySet<RawName>>;
  /** Directories under which nothing of lower layers shows. */
  readonly opaque: ReadonlySet<DirectoryNode>;
}

/** Whether the node asks for a file of the lower layers to be hidden: a char device 0/0. */
export function isWhiteout(node: TreeNode): boolean {
  return node.kind === 'char' && node.rdev === 0;
}

/** Whether any name that carries an inode is a whiteout. */
export function hasWhiteout(root: DirectoryNode): boolean {
  const queue: DirectoryNode[] = [root];
  for (const directory of queue) {
    for (const entry of directory.entries.values()) {
      if (entry.kind === 'directory') queue.push(entry);
      else if (entry.kind !== 'hardlink' && isWhiteout(entry)) return true;
    }
  }
  return false;
}

/** Rewrites a valid tree for format `version`; without `marks`, as an image with the object store below it. */
export function prepareTree(
  root: DirectoryNode,
  version: ComposefsVersion,
  marks: LayerMarks = marksOfWhole(root),
): PreparedTree {
  return new Preparation(root, version, marks).run();
}

/** The object store was a lower layer like any other once: nothing of it may show. */
function marksOfWhole(root: DirectoryNode): LayerMarks {
  const names = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0') as RawName);
  const missing = names.filter((name) => !root.entries.has(name));
  return { hidden: new Map([[root, new Set(missing)]]), opaque: new Set([root]) };
}

/** An inode under construction: names and targets come when its turn in the queue comes. */
interface DraftInode extends PreparedInode {
  names: string[];
  targets: PreparedInode[];
  readonly parent: PreparedInode | undefined;
}

class Preparation {
  readonly #root: DirectoryNode;
  readonly #version: ComposefsVersion;
  readonly #marks: LayerMarks;
  readonly #pool = new XattrPool();
  readonly #inodes: DraftInode[] = [];
  /** Directories that hold a whiteout. A hard link to one does not count: only the name that carries the inode does. */
  readonly #whiteoutParents = new Set<DirectoryNode>();
  /** Link targets: the only nodes that must be found again by identity. */
  readonly #linked = new Map<LeafNode, PreparedInode | undefined>();
  readonly #links: { readonly targets: PreparedInode[]; readonly index: number; readonly node: LeafNode }[] = [];

  constructor(root: DirectoryNode, version: ComposefsVersion, marks: LayerMarks) {
    this.#root = root;
    this.#version = version;
    this.#marks = marks;
  }

  run(): PreparedTree {
    this.#collect();
    const root = this.#addNode(this.#root, undefined);
    // The list of inodes is the queue: what a directory appends comes after everything of its own depth.
    for (let i = 0; i < this.#inodes.length; i++) {
      const inode = this.#inodes[i]!;
      if (inode.node?.kind === 'directory') this.#expand(inode, inode.node);
    }
    for (const { targets, index, node } of this.#links) targets[index] = this.#linked.get(node)!;
    const shared = this.#pool.share();
    return {
      version: this.#version,
      inodes: this.#inodes,
      xattrsOf: (inode) => this.#xattrsOf(inode),
      hasAcl: this.#pool.has('system.posix_acl_access') || this.#pool.has('system.posix_acl_default'),
      minMtime: this.#inodes.reduce((least, { mtime }) => (isBefore(mtime, least) ? mtime : least), root.mtime),
      sharedXattrs: shared.entries,
      sharedXattrsSize: shared.sizeBytes,
    };
  }

  #collect(): void {
    const queue = [this.#root];
    for (const directory of queue) {
      for (const entry of directory.entries.values()) {
        if (entry.kind === 'directory') queue.push(entry);
        else if (entry.kind === 'hardlink') this.#linked.set(entry.target, undefined);
        else if (isWhiteout(entry)) this.#whiteoutParents.add(directory);
      }
    }
  }

  /** Lists the entries of a directory and appends its children. */
  #expand(inode: DraftInode, directory: DirectoryNode): void {
    const names: string[] = ['.', '..', ...directory.entries.keys(), ...(this.#marks.hidden.get(directory) ?? [])];
    names.sort();
    const targets: PreparedInode[] = [];
    for (let index = 0; index < names.length; index++) {
      const name = names[index]!;
      if (name === '.') targets.push(inode);
      else if (name === '..') targets.push(inode.parent ?? inode);
      else {
        const entry = directory.entries.get(name as RawName);
        if (entry === undefined) targets.push(this.#addStub());
        else if (entry.kind !== 'hardlink') targets.push(this.#addNode(entry, inode));
        else {
          this.#links.push({ targets, index, node: entry.target });
          targets.push(inode); // replaced when every inode exists
        }
      }
    }
    inode.names = names;
    inode.targets = targets;
  }

  #addNode(node: TreeNode, parent: PreparedInode | undefined): DraftInode {
    const kind = isWhiteout(node) ? 'file' : node.kind;
    const nlink = node.kind === 'directory' ? 2 + countDirectories(node) : node.nlink;
    const inode = this.#add(kind, node, node, node.mode, nlink, parent);
    if (node.kind !== 'directory' && this.#linked.has(node)) this.#linked.set(node, inode);
    return inode;
  }

  /** A whiteout for lower layers, looking like the root, as those of object directories do. */
  #addStub(): DraftInode {
    return this.#add('char', undefined, this.#root, 0o644, 1, undefined);
  }

  /** One literal for all inodes: spreading objects here took half the time of writing an image. */
  #add(
    kind: NodeKind,
    node: TreeNode | undefined,
    { uid, gid, mtime }: Metadata,
    permissions: number,
    nlink: number,
    parent: PreparedInode | undefined,
  ): DraftInode {
    const inode: DraftInode = {
      ino: this.#inodes.length,
      kind,
      node,
      mode: FILE_TYPES[kind].modeType | permissions,
      nlink,
      uid,
      gid,
      mtime,
      names: NO_NAMES,
      targets: NO_TARGETS,
      parent,
    };
    this.#inodes.push(inode);
    const object = objectBehind(node);
    if (object !== undefined) this.#pool.useObject(object);
    for (const [name, key] of this.#settings(inode)) this.#pool.use(name, key);
    return inode;
  }

  /** In order of names. */
  #xattrsOf(inode: PreparedInode): readonly Xattr[] {
    const settings = this.#settings(inode);
    const object = objectBehind(inode.node);
    if (settings.length === 0) return object === undefined ? NO_XATTRS : this.#pool.ofObject(object);
    const own = settings.map(([name, key]) => this.#pool.get(name, key));
    return object === undefined ? own : [...own, ...this.#pool.ofObject(object)].sort(byName);
  }

  /** What does not come of an object behind the inode, in order of names, each once. */
  #settings({ node }: PreparedInode): readonly Setting[] {
    if (node === undefined) {
      const label = this.#root.xattrs.get('security.selinux' as RawName);
      return label === undefined ? [] : [['security.selinux', rawFromBytes(label)]];
    }
    if (node.xattrs.size === 0 && node.kind !== 'directory' && node.kind !== 'char') return NO_SETTINGS;
    const settings = ownXattrs(node);
    if (isWhiteout(node)) settings.push(['trusted.overlay.overlay.whiteout', ''], ['user.overlay.whiteout', '']);
    if (node.kind !== 'directory') return inOrder(settings);
    if (this.#whiteoutParents.has(node)) settings.push(...xattrsOverWhiteouts(this.#version));
    if (this.#marks.opaque.has(node)) settings.push(['trusted.overlay.opaque', 'y']);
    return inOrder(settings);
  }
}

// Shared by all inodes without any: a million empty arrays would cost more than the inodes.
const NO_NAMES: string[] = [];
const NO_TARGETS: PreparedInode[] = [];
const NO_SETTINGS: Setting[] = [];
const NO_XATTRS: readonly Xattr[] = [];

/** What gives an inode an xattr in the image; of several for one name the last holds. */
type Setting = [name: string, key: string];

function ownXattrs({ xattrs }: Metadata): Setting[] {
  const settings: Setting[] = [];
  for (const [name, value] of xattrs) settings.push([escapeXattrName(name), rawFromBytes(value)]);
  return settings;
}

/** Where the content of a file is that is not in the image. */
function objectBehind(node: TreeNode | undefined): ExternalContent | undefined {
  return node?.kind === 'file' && node.content.kind === 'external' ? node.content : undefined;
}

function xattrsOverWhiteouts(version: ComposefsVersion): Setting[] {
  const settings: Setting[] = [
    ['trusted.overlay.overlay.whiteouts', ''],
    ['user.overlay.whiteouts', ''],
  ];
  if (version >= 1) settings.push(['trusted.overlay.overlay.opaque', 'x'], ['user.overlay.opaque', 'x']);
  return settings;
}

function byName(a: Xattr, b: Xattr): number {
  return a.name.full < b.name.full ? -1 : 1;
}

/** By names; the sort keeps the order of equal ones. */
function inOrder(settings: Setting[]): Setting[] {
  if (settings.length < 2) return settings;
  settings.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return settings.filter(([name], index) => settings[index + 1]?.[0] !== name);
}

function countDirectories(directory: DirectoryNode): number {
  let count = 0;
  for (const entry of directory.entries.values()) if (entry.kind === 'directory') count++;
  return count;
}

function isBefore(a: Timestamp, b: Timestamp): boolean {
  return a.sec < b.sec || (a.sec === b.sec && a.nsec < b.nsec);
}
