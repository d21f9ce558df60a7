/** A directory as a table: each path with its type and content, so that "nothing was changed" can be asserted whole. */

import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';

export function snapshot(directory: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()) {
    const path = `${directory}/${name}`;
    const stat = lstatSync(path);
    const mode = (stat.mode & 0o7777).toString(8);
    if (stat.isSymbolicLink()) found[name] = `link ${readlinkSync(path)}`;
    else if (stat.isDirectory()) found[name] = `directory ${mode}`;
    else found[name] = `file ${mode} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`;
  }
  return found;
}
