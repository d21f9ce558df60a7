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

/** A tree in which nothing is wrong: `validateTree` found nothing, or it was made so. */
export type ValidTree = DirectoryNode & { readonly __brand: 'ValidTree' };

/** Gets what is wrong, to be read on from what it is about. */
export type Report = (problem: string) => void;

/** Every reason why the tree cannot be an image; empty for a valid tree. */
export function validateTree(root: DirectoryNode, options: ValidateOptions = {}): TreeProblem[] {
  const problems: TreeProblem[] = [];
  const seen = new Set<TreeNode>([root]);
  const links: { readonly path: RawName; readonly target: LeafNode }[] = [];
  const stack: { readonly path: string; readonly directory: DirectoryNode }[] = [{ path: '', directory: root }];
  let parent = '';
  let current = '';
  // Most trees have nothing wrong with them: the path is made for what has.
  const report: Report = (problem) => problems.push({ path: `${parent}/${current}` as RawName, problem });
  nodeProblems(root, options, report);
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    parent = top.path;
    for (const [name, entry] of top.directory.entries) {
      current = name;
      const nameProblem = problemOfName(name);
      if (nameProblem !== undefined) report(nameProblem);
      if (entry.kind === 'hardlink') {
        links.push({ path: `${parent}/${name}` as RawName, target: entry.target });
        continue;
      }
      const before = seen.size;
      if (seen.add(entry).size === before) {
        report('holds an inode that has another place in the tree');
        continue;
      }
      nodeProblems(entry, options, report);
      if (entry.kind === 'directory') stack.push({ path: `${parent}/${name}`, directory: entry });
    }
  }
  for (const { path, target } of links) {
    if ((target as TreeNode).kind === 'directory') problems.push({ path, problem: 'is a hard link to a directory' });
    else if (!seen.has(target)) problems.push({ path, problem: 'is a hard link to nothing in the tree' });
  }
  return problems;
}

/** Throws one `image-invalid` error that names the problems (all of them in its cause) unless the tree is valid. */
export function assertValidTree(root: DirectoryNode, options: ValidateOptions = {}): asserts root is ValidTree {
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
  if (!/[\0/\u0100-\uffff]/.test(name)) return undefined;
  return isRaw(name) ? 'has a name with a slash or NUL in it' : 'has a name that is not a byte string';
}

function isRaw(text: string): boolean {
  return !/[^\x00-\xff]/.test(text);
}

function nodeProblems(node: TreeNode, options: ValidateOptions, report: Report): void {
  if (!isWithin(node.mode, 0o7777)) report(`has mode 0${node.mode.toString(8)}, which is not permission bits only`);
  if (!isWithin(node.uid, MAX_U32)) report(`has uid ${node.uid}`);
  if (!isWithin(node.gid, MAX_U32)) report(`has gid ${node.gid}`);
  if (node.mtime.sec !== BigInt.asIntN(64, node.mtime.sec)) report(`has mtime ${node.mtime.sec}, beyond 64 bits`);
  if (!isWithin(node.mtime.nsec, 999_999_999)) report(`has ${node.mtime.nsec} nanoseconds in its mtime`);
  if (node.xattrs.size > 0) xattrProblems(node.xattrs, report);
  if (node.kind === 'directory') return;
  if (!isWithin(node.nlink, MAX_U32)) report(`has link count ${node.nlink}`);
  if (node.kind === 'file') contentProblems(node.content, options, report);
  else if (node.kind === 'symlink') textProblems('a symlink target', node.target, MAX_SYMLINK_TARGET, report);
  else if (node.kind === 'char' || node.kind === 'block') {
    if (!isWithin(node.rdev, MAX_U32)) report(`has device number ${node.rdev}`);
  }
}

/** What is wrong with the content of a regular file. */
export function contentProblems(content: FileContent, options: ValidateOptions, report: Report): void {
  if (content.kind === 'inline') {
    if (content.bytes.length > MAX_INLINE) report(`has ${content.bytes.length} bytes inline, above ${MAX_INLINE}`);
    return;
  }
  if (content.size < 1 || !isWithin(content.size, MAX_FILE_SIZE)) report(`has external size ${content.size}`);
  if (content.path !== undefined) textProblems('an object path', content.path, MAX_OBJECT_PATH, report);
  if (content.digest !== undefined) digestProblems(content.digest, options, report);
}

function digestProblems(digest: VerityDigest, { algorithm }: ValidateOptions, report: Report): void {
  const { sha256, sha512 } = DIGEST_DIGITS;
  const isLength =
    algorithm === undefined
      ? digest.length === sha256 || digest.length === sha512
      : digest.length === DIGEST_DIGITS[algorithm];
  if (!isLength || !/^[0-9a-f]+$/.test(digest)) {
    report(`has verity digest "${digest.slice(0, 130)}", which is not ${algorithm ?? 'sha256 or sha512'}`);
  }
}

/** What is wrong with a byte string of 1…`max` bytes without NUL, called `what` (with its article). */
export function textProblems(what: string, text: RawName, max: number, report: Report): void {
  if (text.length === 0) report(`has ${what} of 0 bytes`);
  if (text.length > max) report(`has ${what} of ${text.length} bytes, above ${max}`);
  if (text.includes('\0')) report(`has ${what} with NUL in it`);
  if (!isRaw(text)) report(`has ${what} that is not a byte string`);
}

/** What is wrong with the xattrs of one node. */
export function xattrProblems(xattrs: ReadonlyMap<RawName, Uint8Array>, report: Report): void {
  let size = 12;
  for (const [name, value] of xattrs) {
    size += 7 + name.length + value.length;
    if (name.length < 1 || name.length > MAX_NAME) report(`has an xattr name of ${name.length} bytes`);
    if (name.includes('\0') || !isRaw(name)) report(`has xattr name "${displayRaw(name)}"`);
    if (value.length > MAX_XATTR_VALUE) report(`has ${value.length} bytes in xattr "${displayRaw(name)}"`);
  }
  if (size > MAX_XATTRS_SIZE) report(`has xattrs of ${size} bytes in all, above ${MAX_XATTRS_SIZE}`);
}

function isWithin(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}
