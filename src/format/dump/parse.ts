/**
 * Composefs dump format (composefs-dump(5)) to tree. Strict where the format leaves room: nothing is guessed, wrapped or
 * cut, and every error names line and field. The tree that comes out is valid, so it can be made an image.
 */

import type { RawName } from '../../tree/name.ts';
import { displayRaw } from '../../tree/name.ts';
import {
  NO_XATTRS,
  type DirectoryNode,
  type FileContent,
  type HardlinkEntry,
  type LeafNode,
  type TreeNode,
  type VerityAlgorithm,
} from '../../tree/node.ts';
import {
  contentProblems,
  MAX_OBJECT_PATH,
  MAX_SYMLINK_TARGET,
  problemOfName,
  textProblems,
  xattrProblems,
  type ValidTree,
} from '../../tree/validate.ts';
import { digestAlgorithm } from '../fsverity/digest.ts';
import { DumpLineReader, failAt, type DumpLine, type Fail, type FieldName } from './line.ts';

export interface ParseDumpOptions {
  /** Digests must be of this algorithm; without it the first one decides. */
  readonly algorithm?: VerityAlgorithm;
}

/** The tree a dump describes. Throws `format-invalid` naming line and field. */
export function parseDump(bytes: Uint8Array, options: ParseDumpOptions = {}): ValidTree {
  // Every line was held to the rules that `validateTree` has.
  return new DumpReader(options.algorithm).read(bytes) as ValidTree;
}

/** A line that names another entry; the target may come later and may be a link itself. */
interface PendingLink {
  readonly line: number;
  readonly parent: DirectoryNode;
  readonly name: RawName;
  readonly targetPath: string;
}

class DumpReader {
  #algorithm: VerityAlgorithm | undefined;
  #root: DirectoryNode | undefined;
  /** By path without trailing slash: the root is "". */
  readonly #directories = new Map<string, DirectoryNode>();
  /** The one of the last entry: most entries lie beside the one before. */
  #parent: { readonly path: string; readonly directory: DirectoryNode } | undefined;
  #line = 1;
  readonly #fail: Fail = (field, problem) => failAt(this.#line)(field, problem);
  /** By the entry that holds the place of the link. */
  readonly #pending = new Map<HardlinkEntry, PendingLink>();

  constructor(algorithm: VerityAlgorithm | undefined) {
    this.#algorithm = algorithm;
  }

  read(bytes: Uint8Array): DirectoryNode {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const lines = new DumpLineReader(buffer);
    for (let start = 0; start < buffer.length; this.#line++) {
      const newline = buffer.indexOf(0x0a, start);
      const end = newline < 0 ? buffer.length : newline;
      this.#add(lines.read(start, end, this.#algorithm, this.#fail));
      start = end + 1;
    }
    if (this.#root === undefined) return this.#fail('PATH', 'is missing: the dump has no "/"');
    for (const link of this.#pending.values()) this.#resolve(link);
    return this.#root;
  }

  #add(line: DumpLine): void {
    const fail = this.#fail;
    if (line.digest !== undefined) this.#algorithm ??= digestAlgorithm(line.digest);
    if (line.path === '/') return this.#addRoot(line, fail);
    const path = normalizePath(line.path, 'PATH', fail);
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1) as RawName;
    const parent = this.#directoryAt(path, slash);
    if (parent === undefined) return fail('PATH', `"${shown(path)}" has no parent directory in the lines before`);
    const problem = problemOfName(name);
    if (problem !== undefined) fail('PATH', `"${shown(path)}" ${problem}`);
    if (parent.entries.has(name)) fail('PATH', `"${shown(path)}" appears twice`);
    if (line.isHardlink) {
      if (line.kind === 'directory') fail('MODE', 'asks for a hard link to a directory');
      if (line.payload === undefined) return fail('PAYLOAD', 'has no target for the hard link');
      const targetPath = normalizePath(line.payload, 'PAYLOAD', fail);
      const entry: HardlinkEntry = { kind: 'hardlink', target: UNRESOLVED };
      parent.entries.set(name, entry);
      this.#pending.set(entry, { line: this.#line, parent, name, targetPath });
      return;
    }
    const node = nodeOfLine(line, fail);
    parent.entries.set(name, node);
    if (node.kind === 'directory') this.#directories.set(path, node);
  }

  /** The directory whose path is the first `length` characters of `path`. */
  #directoryAt(path: string, length: number): DirectoryNode | undefined {
    const last = this.#parent;
    if (last?.path.length === length && path.startsWith(last.path)) return last.directory;
    const parentPath = path.slice(0, length);
    const directory = this.#directories.get(parentPath);
    if (directory !== undefined) this.#parent = { path: parentPath, directory };
    return directory;
  }

  #addRoot(line: DumpLine, fail: Fail): void {
    if (this.#root !== undefined) fail('PATH', 'is a second "/"');
    const node = line.isHardlink ? undefined : nodeOfLine(line, fail);
    if (node?.kind !== 'directory') return fail('MODE', 'of "/" is no directory');
    this.#root = node;
    this.#directories.set('', node);
  }

  /** Follows a chain of links to its end and settles every link on the way. */
  #resolve(start: PendingLink): void {
    const chain = new Set<PendingLink>();
    let link = start;
    for (;;) {
      const fail: Fail = failAt(link.line);
      if (chain.has(link)) return fail('PAYLOAD', `"${shown(link.targetPath)}" leads back to the link itself`);
      chain.add(link);
      const slash = link.targetPath.lastIndexOf('/');
      const target = this.#directories
        .get(link.targetPath.slice(0, slash))
        ?.entries.get(link.targetPath.slice(slash + 1) as RawName);
      if (target === undefined) return fail('PAYLOAD', `"${shown(link.targetPath)}" is not in the dump`);
      if (target.kind === 'directory') return fail('PAYLOAD', `"${shown(link.targetPath)}" is a directory`);
      const next = target.kind === 'hardlink' ? this.#pending.get(target) : undefined;
      if (next === undefined) return settle(chain, target.kind === 'hardlink' ? target.target : target);
      link = next;
    }
  }
}

function settle(links: Iterable<PendingLink>, target: LeafNode): void {
  for (const { parent, name } of links) parent.entries.set(name, { kind: 'hardlink', target });
}

/** Stands in a link entry until the whole dump is read. */
const UNRESOLVED: LeafNode = {
  kind: 'fifo',
  mode: 0,
  uid: 0,
  gid: 0,
  mtime: { sec: 0n, nsec: 0 },
  xattrs: NO_XATTRS,
  nlink: 0,
};

function normalizePath(path: RawName, field: FieldName, fail: Fail): string {
  if (!path.startsWith('/')) fail(field, `"${shown(path)}" is not an absolute path`);
  if (path.endsWith('/')) fail(field, `"${shown(path)}" ends in a slash`);
  return path.includes('//') ? path.replace(/\/+/g, '/') : path;
}

function shown(path: string): string {
  return displayRaw(path as RawName);
}

function nodeOfLine(line: DumpLine, fail: Fail): TreeNode {
  const { kind, mode, uid, gid, mtime, xattrs, nlink, rdev } = line;
  if (xattrs.size > 0) xattrProblems(xattrs, (problem) => fail('XATTR', problem));
  if (line.content !== undefined && line.content.length !== Number(line.size)) {
    fail('CONTENT', `has ${line.content.length} bytes, but SIZE says ${line.size}`);
  }
  if (line.content !== undefined && kind !== 'file' && line.content !== '') {
    fail('CONTENT', 'is given for something that is no regular file');
  }
  // Whole literals: spreading what all have in common took a sixth of the time of reading a dump.
  switch (kind) {
    case 'directory':
      return { kind, mode, uid, gid, mtime, xattrs, entries: new Map() };
    case 'file':
      return { kind, mode, uid, gid, mtime, xattrs, nlink, content: contentOfLine(line, fail) };
    case 'symlink': {
      if (line.payload === undefined) return fail('PAYLOAD', 'has no target for the symlink');
      textProblems('a symlink target', line.payload, MAX_SYMLINK_TARGET, (problem) => fail('PAYLOAD', problem));
      return { kind, mode, uid, gid, mtime, xattrs, nlink, target: line.payload };
    }
    case 'char':
    case 'block':
      return { kind, mode, uid, gid, mtime, xattrs, nlink, rdev, ...statedSize(line) };
    case 'fifo':
    case 'socket':
      return { kind, mode, uid, gid, mtime, xattrs, nlink, ...statedSize(line) };
  }
}

function statedSize({ size }: DumpLine): { readonly statedSize?: bigint } {
  return size > 0 ? { statedSize: BigInt(size) } : {};
}

function contentOfLine({ size, content, payload, digest }: DumpLine, fail: Fail): FileContent {
  if (content !== undefined || size === 0) {
    const inline = { kind: 'inline', bytes: Buffer.from(content ?? '', 'latin1') } as const;
    contentProblems(inline, {}, (problem) => fail('CONTENT', problem));
    return inline;
  }
  // Size and digest were found right when the line was read.
  const path = payload === '' ? undefined : payload;
  if (path !== undefined) {
    textProblems('an object path', path, MAX_OBJECT_PATH, (problem) => fail('PAYLOAD', problem));
  }
  const external = { kind: 'external', size: Number(size) } as const;
  if (path === undefined) return digest === undefined ? external : { ...external, digest };
  return digest === undefined ? { ...external, path } : { kind: 'external', size: Number(size), path, digest };
}
