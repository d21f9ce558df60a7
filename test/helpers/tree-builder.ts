/**
 * Trees as one would list them: `tree({ '/etc/motd': file('hi'), '/etc/ssh': dir({ mode: 0o700 }) })`. Missing parents
 * are made; '/' sets the root. Everything belongs to whoever runs the test, so that it can be written to disk.
 */

import { fsverityDigest, objectPath } from '../../src/format/fsverity/digest.ts';
import { rawFromBytes, rawFromText, type RawName } from '../../src/tree/name.ts';
import type {
  DeviceNode,
  DirectoryNode,
  FileNode,
  HardlinkEntry,
  LeafNode,
  Metadata,
  SpecialNode,
  SymlinkNode,
  TreeEntry,
} from '../../src/tree/node.ts';
import { INLINE_LIMIT } from '../../src/tree/validate.ts';

type Bytes = string | Uint8Array;
export interface MetadataOptions {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: { readonly sec: bigint; readonly nsec: number };
  readonly xattrs?: Readonly<Record<string, Bytes>>;
}

const MTIME = { sec: 1_700_000_000n, nsec: 123_456_789 };

export function metadata(options: MetadataOptions = {}, mode = 0o644): Metadata {
  const xattrs = Object.entries(options.xattrs ?? {});
  return {
    mode: options.mode ?? mode,
    uid: options.uid ?? process.getuid?.() ?? 0,
    gid: options.gid ?? process.getgid?.() ?? 0,
    mtime: options.mtime ?? MTIME,
    xattrs: new Map(xattrs.map(([name, value]) => [rawFromText(name), bytesOf(value)])),
  };
}

export function dir(options: MetadataOptions = {}): DirectoryNode {
  return { kind: 'directory', ...metadata(options, 0o755), entries: new Map() };
}

/** Content above the inline limit becomes a sha256 object, whose bytes `contentOf` gives back. */
export function file(content: Bytes = '', options: MetadataOptions = {}): FileNode {
  const bytes = bytesOf(content);
  const node: FileNode = { kind: 'file', ...metadata(options), content: { kind: 'inline', bytes }, nlink: 1 };
  if (bytes.length > INLINE_LIMIT) {
    const digest = fsverityDigest('sha256', bytes);
    node.content = { kind: 'external', size: bytes.length, digest, path: objectPath(digest) };
    objects.set(digest, bytes);
  }
  return node;
}

const objects = new Map<string, Uint8Array>();

/** The bytes of any file that `file` made. */
export function contentOf({ content }: FileNode): Uint8Array {
  const bytes = content.kind === 'inline' ? content.bytes : objects.get(content.digest ?? '');
  if (bytes === undefined) throw new Error('The tree builder has not made this file');
  return bytes;
}

export function symlink(target: Bytes, options: MetadataOptions = {}): SymlinkNode {
  return { kind: 'symlink', ...metadata(options, 0o777), target: rawFromBytes(bytesOf(target)), nlink: 1 };
}

export function fifo(options: MetadataOptions = {}): SpecialNode {
  return { kind: 'fifo', ...metadata(options), nlink: 1 };
}

export function socket(options: MetadataOptions = {}): SpecialNode {
  return { kind: 'socket', ...metadata(options), nlink: 1 };
}

export function charDevice(rdev: number, options: MetadataOptions = {}): DeviceNode {
  return { kind: 'char', ...metadata(options), rdev, nlink: 1 };
}

/** One more name of an inode that stands elsewhere in the tree. */
export function link(target: LeafNode): HardlinkEntry {
  target.nlink += 1;
  return { kind: 'hardlink', target };
}

/** Keys are paths in ordinary text, or latin1 byte strings where marked with `raw:`. */
export function tree(entries: Readonly<Record<string, TreeEntry>>): DirectoryNode {
  const given = entries['/'];
  const root = given?.kind === 'directory' ? given : dir();
  for (const [path, entry] of Object.entries(entries)) {
    if (path === '/') continue;
    const raw = path.startsWith('raw:') ? (path.slice(4) as RawName) : rawFromText(path);
    const names = raw.split('/').filter(Boolean) as RawName[];
    const last = names.pop();
    if (last === undefined) throw new Error(`"${path}" names nothing`);
    let parent = root;
    for (const name of names) {
      let next = parent.entries.get(name);
      if (next === undefined) parent.entries.set(name, (next = dir()));
      if (next.kind !== 'directory') throw new Error(`"${path}" goes through a file`);
      parent = next;
    }
    parent.entries.set(last, entry);
  }
  return root;
}

function bytesOf(content: Bytes): Uint8Array {
  return typeof content === 'string' ? Buffer.from(content) : content;
}
