/** Lists of files for people: one line each, names made safe for a terminal. Pure. */

import { displayRaw } from '../../tree/name.ts';
import type { TreeEntry } from '../../tree/node.ts';
import type { WalkedEntry } from '../../tree/walk.ts';

/** `/dir/`, `/link -> target`, `/file @ xx/rest` for a file in an object, and plain paths. */
export function* lsLines(entries: Iterable<WalkedEntry>): Generator<string, void> {
  for (const { path, entry } of entries) yield path === '/' ? '/\n' : `${displayRaw(path)}${suffixOf(entry)}\n`;
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
