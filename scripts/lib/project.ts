/** Where the project lies. Scripts run bundled from `build/scripts/`, tests from source: the folder is looked for. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

function findProjectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('Cannot find the project: no package.json above this script');
    folder = parent;
  }
  return folder;
}

/** Absolute path of a file of the project. */
export function projectPath(...parts: string[]): string {
  return join(findProjectRoot(), ...parts);
}

/**
 * Sources of what threads run, by name. Whoever starts one looks for it beside itself, so that a bundle has each as a
 * program of its own.
 */
export function threadPrograms(): Record<string, string> {
  const sources = readdirSync(projectPath('src'), { recursive: true, encoding: 'utf8' });
  const found = sources.filter((source) => source.endsWith('-worker.ts')).sort();
  return Object.fromEntries(found.map((source) => [basename(source, '.ts'), projectPath('src', source)]));
}

/** The version in package.json. */
export function projectVersion(): string {
  const { version } = JSON.parse(readFileSync(projectPath('package.json'), 'utf8')) as { version: string };
  return version;
}
