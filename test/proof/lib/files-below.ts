import { readdirSync } from 'node:fs';

/** Paths of the files and symlinks below a directory, seen from it, sorted. */
export function filesBelow(directory: string): string[] {
  const below = (path: string): string[] =>
    readdirSync(`${directory}/${path}`, { withFileTypes: true, encoding: 'utf8' }).flatMap((entry) =>
      entry.isDirectory() ? below(`${path}${entry.name}/`) : [`${path}${entry.name}`],
    );
  return below('').sort();
}
