/**
 * How each kind of node is spelled in a mode and in a directory entry.
 */

import type { TreeNode } from '../../tree/node.ts';

export type NodeKind = TreeNode['kind'];

export const MODE_TYPE_MASK = 0o170000;
export const MODE_PERMISSION_MASK = 0o7777;

interface FileType {
  /** Type bits of the mode (`S_IFMT`). */
  readonly modeType: number;
  /** `file_type` of an EROFS directory entry (`EROFS_FT_*`). */
  readonly direntType: number;
}

export const FILE_TYPES: Readonly<Record<NodeKind, FileType>> = {
  file: { modeType: 0o100000, direntType: 1 },
  directory: { modeType: 0o040000, direntType: 2 },
  char: { modeType: 0o020000, direntType: 3 },
  block: { modeType: 0o060000, direntType: 4 },
  fifo: { modeType: 0o010000, direntType: 5 },
  socket: { modeType: 0o140000, direntType: 6 },
  symlink: { modeType: 0o120000, direntType: 7 },
};

const kindByMode = new Map(Object.entries(FILE_TYPES).map(([kind, type]) => [type.modeType, kind as NodeKind]));

/** The kind of node a mode says, or undefined. */
export function kindOfMode(mode: number): NodeKind | undefined {
  return kindByMode.get(mode & MODE_TYPE_MASK);
}
