/**
 * Everything a program can see of a file tree, as plain values by path: of a tree in memory, and of a directory on disk.
 * The two are read by different means, so that one can stand against the other. Paths are latin1 bytes, "/" is the root.
 */

import { createHash, type Hash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readlinkSync, readSync } from 'node:fs';
import { inodeOf, type DirectoryNode, type FileNode, type TreeNode } from '../../src/tree/node.ts';
import { walkTree } from '../../src/tree/walk.ts';
import { pathsBelow } from './requires.ts';

export interface FileFact {
  readonly kind: string;
  /** Octal, without the type. */
  readonly mode: string;
  readonly owner: string;
  /** Seconds and nanoseconds. */
  readonly mtime: string;
  /** Name to value in hex. */
  readonly xattrs: Readonly<Record<string, string>>;
  /** SHA-256 of a file's content, target of a symlink, number of a device. */
  readonly content: string | undefined;
  /** Every name of the inode, sorted; empty for directories. */
  readonly names: readonly string[];
}

export type FileFacts = Map<string, FileFact>;

/** @param contentOf - the bytes of a file, in pieces */
export function factsOfTree(root: DirectoryNode, contentOf: (file: FileNode) => Iterable<Uint8Array>): FileFacts {
  const found = [...walkTree(root)].map(({ path, entry }) => ({ path: path, inode: inodeOf(entry) }));
  const names = namesByInode(found.filter(({ inode }) => inode.kind !== 'directory'));
  const facts: FileFacts = new Map();
  for (const { path, inode } of found) {
    const { mode, uid, gid, mtime, xattrs } = inode;
    const group = names.get(inode) ?? [];
    facts.set(path, {
      kind: inode.kind,
      mode: mode.toString(8),
      owner: `${uid}:${gid}`,
      mtime: `${mtime.sec}.${mtime.nsec}`,
      xattrs: hexValues(xattrs),
      content: facts.get(group.find((name) => facts.has(name)) ?? '')?.content ?? contentOfNode(inode, contentOf),
      names: group,
    });
  }
  return facts;
}

function contentOfNode(node: TreeNode, contentOf: (file: FileNode) => Iterable<Uint8Array>): string | undefined {
  switch (node.kind) {
    case 'file': {
      const hash = createHash('sha256');
      for (const piece of contentOf(node)) hash.update(piece);
      return hash.digest('hex');
    }
    case 'symlink':
      return node.target;
    case 'block':
    case 'char':
      return String(node.rdev);
    default:
      return undefined;
  }
}

const NS = 10n ** 9n;

const KINDS = new Map([
  [0o040000, 'directory'],
  [0o100000, 'file'],
  [0o120000, 'symlink'],
  [0o060000, 'block'],
  [0o020000, 'char'],
  [0o010000, 'fifo'],
  [0o140000, 'socket'],
]);

/** @param listXattrs - all xattrs of a path, not following a symlink */
export function factsOfDirectory(
  directory: string,
  listXattrs: (path: Buffer) => ReadonlyMap<string, Uint8Array>,
): FileFacts {
  const found = ['', ...pathsBelow(directory)].sort().map((name) => {
    const file = Buffer.from(`${directory}/${name}`, 'latin1');
    const stat = lstatSync(file, { bigint: true });
    return { path: `/${name}`, file, stat, inode: `${stat.dev}:${stat.ino}` };
  });
  const names = namesByInode(found.filter(({ stat }) => !stat.isDirectory()));
  const facts: FileFacts = new Map();
  for (const { path, file, stat, inode } of found) {
    const kind = KINDS.get(Number(stat.mode) & 0o170000) ?? 'unknown';
    const group = names.get(inode) ?? [];
    if (kind !== 'directory' && Number(stat.nlink) !== group.length) {
      throw new Error(`${path} has ${stat.nlink} links, but these names: ${group.join(', ')}`);
    }
    facts.set(path, {
      kind,
      mode: (Number(stat.mode) & 0o7777).toString(8),
      owner: `${stat.uid}:${stat.gid}`,
      mtime: timeOf(stat.mtimeNs),
      xattrs: hexValues(listXattrs(file)),
      content: facts.get(group.find((name) => facts.has(name)) ?? '')?.content ?? contentOnDisk(file, kind, stat.rdev),
      names: group,
    });
  }
  return facts;
}

/** Seconds towards the past, also before 1970. */
function timeOf(mtimeNs: bigint): string {
  const nsec = ((mtimeNs % NS) + NS) % NS;
  return `${(mtimeNs - nsec) / NS}.${nsec}`;
}

function contentOnDisk(file: Buffer, kind: string, rdev: bigint): string | undefined {
  if (kind === 'file') return hashOfFile(file);
  if (kind === 'symlink') return readlinkSync(file, 'latin1');
  return kind === 'block' || kind === 'char' ? String(rdev) : undefined;
}

function hashOfFile(file: Buffer): string {
  const hash: Hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(1 << 20);
  const fd = openSync(file, 'r');
  try {
    for (let read = readSync(fd, buffer); read > 0; read = readSync(fd, buffer)) hash.update(buffer.subarray(0, read));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

function namesByInode<K>(found: readonly { readonly path: string; readonly inode: K }[]): Map<K, string[]> {
  const names = new Map<K, string[]>();
  for (const { path, inode } of found) {
    const group = names.get(inode);
    if (group === undefined) names.set(inode, [path]);
    else group.push(path);
  }
  for (const group of names.values()) group.sort();
  return names;
}

function hexValues(xattrs: ReadonlyMap<string, Uint8Array>): Record<string, string> {
  const values = [...xattrs].map(([name, value]) => [name, Buffer.from(value).toString('hex')] as const);
  return Object.fromEntries(values.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Where the two differ, path by path; short enough to be read when a test fails. */
export function factDifferences(left: FileFacts, right: FileFacts): string[] {
  const paths = [...new Set([...left.keys(), ...right.keys()])].sort();
  const show = (fact: FileFact | undefined): string => (fact === undefined ? 'nothing' : JSON.stringify(fact));
  return paths
    .filter((path) => show(left.get(path)) !== show(right.get(path)))
    .map((path) => `${path}: ${show(left.get(path))} against ${show(right.get(path))}`);
}
