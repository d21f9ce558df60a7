/** The manual pages against the program, and against mandoc and groff. */

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { manualPages } from '../../scripts/lib/manual.ts';
import { recordedProgram } from '../../scripts/lib/program-tree.ts';
import { projectPath } from '../../scripts/lib/project.ts';
import type { VerbSpec } from '../../src/cli/command-tree.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

const program = recordedProgram();
const pages = manualPages();
const allVerbs = (verb: VerbSpec): VerbSpec[] => [verb, ...verb.verbs.flatMap(allVerbs)];
const missing = missingPrograms('man', 'groff').concat(
  // mandoc has no --version.
  missingPrograms('mandoc'),
);
if (missing.length > 0) console.error(`Skipping the linters of manual pages: ${missing.join(', ')} missing`);

test('Every verb is described on one page', () => {
  expect(pages.flatMap(({ verbs }) => verbs).sort()).toEqual(program.verbs.map(({ name }) => name).sort());
});

test('Every option and argument has a description, and so has every verb', () => {
  for (const { name, describe: line, options, arguments: args } of allVerbs(program).slice(1)) {
    for (const [what, text] of [
      [name, line] as const,
      ...[...options, ...args].map((one) => [one.name, one.describe] as const),
    ]) {
      expect(text, `"${what}" of "${name}"`).toMatch(/^[A-Z/]/);
      expect(text, `"${what}" of "${name}"`).not.toMatch(/\.$/);
    }
  }
});

test.each(pages)('$file names only options, verbs and pages that exist', ({ roff }) => {
  const options = new Set([
    ...allVerbs(program).flatMap((verb) => verb.options.map(({ name }) => name)),
    'help',
    'version',
  ]);
  for (const [, name = ''] of roff.matchAll(/\\-\\-([a-z0-9]+(?:\\-[a-z0-9]+)*)/g)) {
    expect(options).toContain(name.replaceAll('\\-', '-'));
  }
  for (const [, name = ''] of roff.matchAll(/^\.BR? "?hostctl ([a-z]+(?:\\-[a-z]+)*)/gm)) {
    expect(program.verbs.map((verb) => verb.name)).toContain(name.replaceAll('\\-', '-'));
  }
  const files = pages.map(({ file }) => file);
  for (const [, name = '', section = ''] of roff.matchAll(/^\.BR (hostctl\S*) \((\d)\)/gm)) {
    expect(files).toContain(`${name.replaceAll('\\-', '-')}.${section}`);
  }
});

test('hostctl.conf(5) has the settings that the program knows, and no others', () => {
  const source = ['config', 'boot-config']
    .map((name) => readFileSync(projectPath(`src/format/${name}.ts`), 'utf8'))
    .join('');
  const known = [...source.matchAll(/(?:case |\[)'([a-z]+\.[a-z]+)'/g)].map(([, key]) => key);
  expect(known.length).toBeGreaterThan(5);
  let section = '';
  const told = pages
    .find(({ file }) => file === 'hostctl.conf.5')!
    .roff.split('\n')
    .flatMap((line, at, lines) => {
      section = /^\.SS \[(.*)\]$/.exec(line)?.[1] ?? section;
      return lines[at - 1] === '.TP' && line.startsWith('.B ') ? `${section}.${line.slice(3)}` : [];
    });
  expect(told.sort()).toEqual(known.sort());
});

describe.skipIf(missing.length > 0)('the pages', () => {
  test.each(pages)('$file is fine with mandoc and groff', ({ file, roff }) => {
    const path = `${scratchDir()}/${file}`;
    writeFileSync(path, roff);
    const run = (name: string, ...args: string[]): string => execFileSync(name, args, { encoding: 'utf8' });
    // The date is left out: it would be that of the build.
    const said = run('sh', '-c', 'mandoc -Tlint -Wwarning "$0" || true', path);
    expect(said.split('\n').filter((line) => line !== '' && !line.includes('missing date'))).toEqual([]);
    expect(run('sh', '-c', 'groff -t -man -ww -z -Tutf8 "$0" 2>&1', path)).toBe('');
    expect(run('man', '--local-file', '--encoding=utf8', path)).toContain('SEE ALSO');
  });
});
