/**
 * How the entries of a directory fall into blocks: filled greedily in byte order, the rest is a tail beside the inode
 * unless it is large.
 */

import { BLOCK_SIZE, dirent, MAX_TAIL } from './layout.ts';

export interface DirectoryExtent {
  /** Full blocks. */
  readonly blocks: number;
  /** Bytes beside the inode, at most 2048. */
  readonly tail: number;
}

/** The index after the last of `names` that still goes into a block starting with `names[from]`. */
export function blockEnd(names: readonly string[], from: number): number {
  let used = 0;
  let index = from;
  for (; index < names.length; index++) {
    used += dirent.size + names[index]!.length;
    if (used > BLOCK_SIZE) break;
  }
  return index;
}

/** Room taken by a directory with these sorted names, "." and ".." included. */
export function directoryExtent(names: readonly string[]): DirectoryExtent {
  let blocks = 0;
  let used = 0;
  for (const name of names) {
    const cost = dirent.size + name.length;
    if (used + cost > BLOCK_SIZE) {
      blocks++;
      used = 0;
    }
    used += cost;
  }
  return used > MAX_TAIL ? { blocks: blocks + 1, tail: 0 } : { blocks, tail: used };
}

/** `i_size` of the directory. */
export function directorySize(extent: DirectoryExtent): number {
  return extent.blocks * BLOCK_SIZE + extent.tail;
}
