/** The commands that a Markdown page tells its reader to run. */

import { readFileSync } from 'node:fs';
import { projectPath } from '../../scripts/lib/project.ts';

/** Lines of its code blocks, without what stands behind a `#`. */
export function commandBlock(page: string): string[] {
  const lines = readFileSync(projectPath(page), 'utf8').split('\n');
  return lines
    .filter((line) => /^ {4}(hostctl|npm|examples\/)/.test(line))
    .map((line) => line.replace(/ +#.*$/, '').trim());
}

/** Every `hostctl …` that stands in code, in blocks and in the text. */
export function hostctlCommands(page: string): string[][] {
  const text = readFileSync(projectPath(page), 'utf8');
  // Also a name that the text breaks over a line.
  const inline = [...text.matchAll(/`hostctl ([^`]*)`/g)].map(([, words = '']) => words);
  const blocks = commandBlock(page).flatMap((line) => /^hostctl (.*)$/.exec(line)?.[1] ?? []);
  return [...inline, ...blocks].map((words) => words.split(/\s+/).filter(Boolean));
}
