/**
 * Whether a tree can be a composefs image. Collects every problem rather than the first, walks without recursion, and
 * is the reason that the code behind it may trust names, sizes and link targets.
 */

import { HostctlError } from '../errors.ts';
import { displayRaw, type RawName } from './name.ts';
import type { DirectoryNode, FileContent, LeafNode, TreeNode, VerityAlgorithm, VerityDigest } from './node.ts';

export const MAX_NAME = 255;
export const MAX_SYMLINK_TARGET = 4095;
export const MAX_OBJECT_PATH = 4095;
/** Largest content kept in the image by any writer; hostctl itself inlines up to `INLINE_LIMIT`. */
export const MAX_INLINE = 5000;
/** Larger files become objects. */
export const INLINE_LIMIT = 64;
export const MAX_FILE_SIZE = 2 ** 53;
export const MAX_XATTR_VALUE = 65535;
/** For `12 + Σ(7 + name + value)` of one node. */
export const MAX_XATTRS_SIZE = 32767;

const MAX_U32 = 0xffffffff;
const DIGEST_DIGITS: Readonly<Record<VerityAlgorithm, number>> = { sha256: 64, sha512: 128 };
const SHOWN_PROBLEMS = 10;

export interface TreeProblem {
  /** Absolute path of the entry. */
  readonly path: RawName;
  /** Reads on from the path: "has a name of 256 bytes". */
  readonly problem: string;
}

export interface ValidateOptions {
  /** Digests of another algorithm are problems; without it both are accepted. */
  readonly algorithm?: VerityAlgorithm;
}

/** Every reason why the tree cannot be an image; empty for a valid tree. */
export function validateTree(root: DirectoryNode, options: ValidateOptions = {}): TreeProblem[] {
  const problems: TreeProblem[] = [];
  const seen = new Set<TreeNode>([root]);
  const links: { readonly path: RawName; readonly target: LeafNode }[] = [];
  const stack: { readonly path: string; readonly directory: DirectoryNode }[] = [{ path: '', directory: root }];
  const check = (path: RawName, node: TreeNode): void => {
    for (const problem of nodeProblems(node, options)) problems.push({ path, problem });
  };
  check('/' as RawName, root);
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    for (const [name, entry] of top.directory.entries) {
      const path = `${top.path}/${name}` as RawName;
      const nameProblem = problemOfName(name);
      if (nameProblem !== undefined) problems.push({ path, problem: nameProblem });
      if (entry.kind === 'hardlink') {
        links.push({ path, target: entry.target });
        continue;
      }
      if (seen.has(entry)) {
        problems.push({ path, problem: 'holds an inode that has another place in the tree' });
        continue;
      }
      seen.add(entry);
      check(path, entry);
      if (entry.kind === 'directory') stack.push({ path, directory: entry });
    }
  }
  for (const { path, target } of links) {
    if ((target as TreeNode).kind === 'directory') problems.push({ path, problem: 'is a hard link to a directory' });
    else if (!seen.has(target)) problems.push({ path, problem: 'is a hard link to nothing in the tree' });
  }
  return problems;
}

/** Throws one `image-invalid` error that names the problems (all of them in its cause) unless the tree is valid. */
export function assertValidTree(root: DirectoryNode, options: ValidateOptions = {}): void {
  const problems = validateTree(root, options);
  if (problems.length === 0) return;
  const texts = problems.map(({ path, problem }) => `"${displayRaw(path)}" ${problem}`);
  const rest = texts.length > SHOWN_PROBLEMS ? `; and ${texts.length - SHOWN_PROBLEMS} more` : '';
  throw new HostctlError('image-invalid', `Cannot make an image: ${texts.slice(0, SHOWN_PROBLEMS).join('; ')}${rest}`, {
    cause: new AggregateError(texts.map((text) => new HostctlError('image-invalid', `Cannot make an image: ${text}`))),
  });
}

/** What is wrong with a name inside a directory, or undefined. Problems read on from what they are about. */
export function problemOfName(name: RawName): string | undefined {
  if (name === '.' || name === '..') return 'has a reserved name';
  if (name.length === 0) return 'has an empty name';
  if (name.length > MAX_NAME) return `has a name of ${name.length} bytes, above ${MAX_NAME}`;
  if (/[\0/]/.test(name)) return 'has a name with a slash or NUL in it';
  return isRaw(name) ? undefined : 'has a name that is not a byte string';
}

function isRaw(text: string): boolean {
  return !/[^\x00-\xff]/.test(text);
}

function* nodeProblems(node: TreeNode, options: ValidateOptions): Generator<string> {
  if (!isWithin(node.mode, 0o7777)) yield `has mode 0${node.mode.toString(8)}, which is not permission bits only`;
  if (!isWithin(node.uid, MAX_U32)) yield `has uid ${node.uid}`;
  if (!isWithin(node.gid, MAX_U32)) yield `has gid ${node.gid}`;
  if (node.mtime.sec !== BigInt.asIntN(64, node.mtime.sec)) yield `has mtime ${node.mtime.sec}, beyond 64 bits`;
  if (!isWithin(node.mtime.nsec, 999_999_999)) yield `has ${node.mtime.nsec} nanoseconds in its mtime`;
  if (node.xattrs.size > 0) yield* xattrProblems(node.xattrs);
  if (node.kind === 'directory') return;
  if (!isWithin(node.nlink, MAX_U32)) yield `has link count ${node.nlink}`;
  if (node.kind === 'file') yield* contentProblems(node.content, options);
  else if (node.kind === 'symlink') yield* textProblems('a symlink target', node.target, MAX_SYMLINK_TARGET);
  else if (node.kind === 'char' || node.kind === 'block') {
    if (!isWithin(node.rdev, MAX_U32)) yield `has device number ${node.rdev}`;
  }
}

/** What is wrong with the content of a regular file. */
export function* contentProblems(content: FileContent, options: ValidateOptions = {}): Generator<string> {
  if (content.kind === 'inline') {
    if (content.bytes.length > MAX_INLINE) yield `has ${content.bytes.length} bytes inline, above ${MAX_INLINE}`;
    return;
  }
  if (content.size < 1 || !isWithin(content.size, MAX_FILE_SIZE)) yield `has external size ${content.size}`;
  if (content.path !== undefined) yield* textProblems('an object path', content.path, MAX_OBJECT_PATH);
  if (content.digest !== undefined) yield* digestProblems(content.digest, options);
}

function* digestProblems(digest: VerityDigest, { algorithm }: ValidateOptions): Generator<string> {
  const wanted = algorithm === undefined ? Object.values(DIGEST_DIGITS) : [DIGEST_DIGITS[algorithm]];
  if (!wanted.includes(digest.length) || !/^[0-9a-f]+$/.test(digest)) {
    yield `has verity digest "${digest.slice(0, 130)}", which is not ${algorithm ?? 'sha256 or sha512'}`;
  }
}

/** What is wrong with a byte string of 1…`max` bytes without NUL, called `what` (with its article). */
export function* textProblems(what: string, text: RawName, max: number): Generator<string> {
  if (text.length === 0) yield `has ${what} of 0 bytes`;
  if (text.length > max) yield `has ${what} of ${text.length} bytes, above ${max}`;
  if (text.includes('\0')) yield `has ${what} with NUL in it`;
  if (!isRaw(text)) yield `has ${what} that is not a byte string`;
}

/** What is wrong with the xattrs of one node. */
export function* xattrProblems(xattrs: ReadonlyMap<RawName, Uint8Array>): Generator<string> {
  let size = 12;
  for (const [name, value] of xattrs) {
    size += 7 + name.length + value.length;
    if (name.length < 1 || name.length > MAX_NAME) yield `has an xattr name of ${name.length} bytes`;
    if (name.includes('\0') || !isRaw(name)) yield `has xattr name "${displayRaw(name)}"`;
    if (value.length > MAX_XATTR_VALUE) yield `has ${value.length} bytes in xattr "${displayRaw(name)}"`;
  }
  if (size > MAX_XATTRS_SIZE) yield `has xattrs of ${size} bytes in all, above ${MAX_XATTRS_SIZE}`;
}

function isWithin(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}
