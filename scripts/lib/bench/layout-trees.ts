/** Trees for the comparison of layouts: a base of a given size, and applications of 500 files of their own on it. */

import { createHash } from 'node:crypto';
import { objectPath } from '../../../src/format/fsverity/digest.ts';
import { settleLinks } from '../../../src/tree/links.ts';
import { copyTree } from '../../../src/tree/lookup.ts';
import { rawFromText } from '../../../src/tree/name.ts';
import type { DirectoryNode, FileNode, Metadata, VerityDigest } from '../../../src/tree/node.ts';

const FILES_OF_APP = 500;
/** Of these, as many stand in the place of a file of the base. */
const REPLACED = 50;
const FILES_OF_DIRECTORY = 19;

const MTIME = { sec: 1_700_000_000n, nsec: 0 };

function metadata(mode: number, mtime: bigint): Metadata {
  return { mode, uid: 0, gid: 0, mtime: { ...MTIME, sec: MTIME.sec + mtime }, xattrs: new Map() };
}

function directory(): DirectoryNode {
  return { kind: 'directory', ...metadata(0o755, 0n), entries: new Map() };
}

/** Four of five files are objects, as in Debian; the others are small enough for the image. */
function file(seed: string): FileNode {
  const hash = createHash('sha512').update(seed).digest();
  const common = metadata(0o644, BigInt(hash[1]!));
  if (hash[0]! % 5 === 0) {
    return { kind: 'file', ...common, content: { kind: 'inline', bytes: hash.subarray(0, 30) }, nlink: 1 };
  }
  const digest = hash.toString('hex') as VerityDigest;
  const size = 1000 + hash.readUInt16LE(2);
  return { kind: 'file', ...common, content: { kind: 'external', size, digest, path: objectPath(digest) }, nlink: 1 };
}

function child(parent: DirectoryNode, name: string): DirectoryNode {
  const key = rawFromText(name);
  const found = parent.entries.get(key);
  if (found?.kind === 'directory') return found;
  const made = directory();
  parent.entries.set(key, made);
  return made;
}

function addFiles(root: DirectoryNode, where: string, count: number): void {
  const top = child(child(root, 'usr'), where);
  for (let i = 0; i < count; i++) {
    const holder = child(top, `part-${Math.floor(i / FILES_OF_DIRECTORY)}`);
    holder.entries.set(rawFromText(`a-file-of-a-usual-name-${i}`), file(`${where} ${i}`));
  }
}

/** What each of `layers` layers of the base makes of those below it; the last one is the base. */
export function baseTrees(inodes: number, layers: number): DirectoryNode[] {
  const trees: DirectoryNode[] = [];
  const files = Math.floor(((inodes / layers) * FILES_OF_DIRECTORY) / (FILES_OF_DIRECTORY + 1));
  for (let layer = 0; layer < layers; layer++) {
    const tree = trees.length === 0 ? directory() : copyTree(trees.at(-1)!);
    addFiles(tree, `layer-${layer}`, files);
    trees.push(tree);
  }
  return trees;
}

/** The base with an application on it. */
export function appTree(base: DirectoryNode, number: number): DirectoryNode {
  const tree = copyTree(base);
  addFiles(tree, `app-${number}`, FILES_OF_APP - REPLACED);
  const first = child(child(tree, 'usr'), 'layer-0');
  for (let i = 0; i < REPLACED; i++) {
    const index = ((number * 7 + i) * FILES_OF_DIRECTORY) % (REPLACED * FILES_OF_DIRECTORY);
    const name = rawFromText(`a-file-of-a-usual-name-${index}`);
    child(first, `part-${index / FILES_OF_DIRECTORY}`).entries.set(name, file(`app ${number} replaces ${i}`));
  }
  settleLinks(tree);
  return tree;
}
