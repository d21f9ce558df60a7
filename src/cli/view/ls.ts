/** Lists of files: for people one line each, for machines one record each; names made safe for a terminal. Pure. */

import { displayRaw } from '../../tree/name.ts';
import { inodeOf, type TreeEntry, type TreeNode } from '../../tree/node.ts';
import type { WalkedEntry } from '../../tree/walk.ts';

/** `/dir/`, `/link -> target`, `/file @ xx/rest` for a file in an object, and plain paths. */
export function lsLine({ path, entry }: WalkedEntry): string {
  return path === '/' ? '/' : `${displayRaw(path)}${suffixOf(entry)}`;
}

/** The same for machines; a hard link is shown as what it names. */
export interface LsRecord {
  readonly path: string;
  readonly kind: TreeNode['kind'];
  readonly target?: string;
  readonly object?: string;
}

export function lsRecord({ path, entry }: WalkedEntry): LsRecord {
  const node = inodeOf(entry);
  const named = { path: displayRaw(path), kind: node.kind };
  if (node.kind === 'symlink') return { ...named, target: displayRaw(node.target) };
  if (node.kind !== 'file' || node.content.kind === 'inline' || node.content.path === undefined) return named;
  return { ...named, object: displayRaw(node.content.path) };
}

function suffixOf(entry: TreeEntry): string {
  switch (entry.kind) {
    case 'directory':
      return '/';
    case 'symlink':
      return ` -> ${displayRaw(entry.target)}`;
    case 'file':
      return entry.content.kind === 'inline' || entry.content.path === undefined
        ? ''
        : ` @ ${displayRaw(entry.content.path)}`;
    case 'hardlink':
      return suffixOf(entry.target);
    default:
      return ` (${entry.kind})`;
  }
}
