/** `matchpathcon` of libselinux as referee of labels: most specific rule first, which for sorted rules is the last one. */

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { FileContexts, type TypeLetter } from '../../src/format/selinux/file-contexts.ts';
import type { RawName } from '../../src/tree/name.ts';
import { scratchDir } from './scratch-dir.ts';

const MODES: readonly (readonly [TypeLetter, string])[] = [
  ['-', 'file'],
  ['d', 'dir'],
  ['l', 'lnk_file'],
  ['c', 'chr_file'],
  ['b', 'blk_file'],
  ['p', 'pipe'],
  ['s', 'sock_file'],
];
const PER_CALL = 500;

/** In the order of a built policy: rules with wildcards first, the less specific before the more specific. */
export function sortedRules(rules: readonly string[]): string[] {
  const stemOf = (rule: string): string => /^(?:[^.^$?*+|[({\\\s]|\\.)*/.exec(rule)![0];
  const isExact = (rule: string): boolean => /^\s/.test(rule.slice(stemOf(rule).length));
  return rules.toSorted((a, b) => Number(isExact(a)) - Number(isExact(b)) || stemOf(a).length - stemOf(b).length);
}

/** Where the two disagree: `type path: ours against theirs`. */
export function labelDifferences(
  rules: readonly string[],
  paths: readonly string[],
  program = 'matchpathcon',
): string[] {
  const text = `${rules.join('\n')}\n`;
  const file = `${scratchDir()}/file_contexts`;
  writeFileSync(file, text, 'latin1');
  const contexts = new FileContexts();
  contexts.add(text, 'Policy');
  return MODES.flatMap(([letter, mode]) => {
    const theirs: string[] = [];
    for (let at = 0; at < paths.length; at += PER_CALL) {
      const some = paths.slice(at, at + PER_CALL);
      theirs.push(
        ...execFileSync(program, ['-f', file, '-n', '-m', mode, ...some], { encoding: 'utf8' })
          .trimEnd()
          .split('\n'),
      );
    }
    return paths.flatMap((path, i) => {
      const ours = contexts.lookup(path as RawName, letter) ?? '<<none>>';
      return ours === theirs[i] ? [] : [`${mode} ${path}: ${ours} against ${theirs[i] ?? 'nothing'}`];
    });
  });
}
