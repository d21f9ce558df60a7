/** What the documentation tells people to type is what the program takes. */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { recordedProgram } from '../../scripts/lib/program-tree.ts';
import { projectPath } from '../../scripts/lib/project.ts';
import type { VerbSpec } from '../../src/cli/command-tree.ts';
import { commandBlock, hostctlCommands } from '../helpers/documented-commands.ts';

const program = recordedProgram();
const PAGES = ['README.md', ...readdirSync(projectPath('docs')).map((name) => `docs/${name}`)];

/** What is wrong with a command line; undefined if nothing. A verb alone is a mention of it. */
function problemOf(words: readonly string[]): string | undefined {
  let verb: VerbSpec = program;
  let options = program.options;
  let given = 0;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? '';
    // Several names at once: `ls`, `a|b`.
    const alternatives = word.split('|');
    if (word.startsWith('-')) {
      const names = alternatives.map((name) => name.replace(/^--/, '').split('=')[0]);
      const found = names.map((name) => options.find((one) => one.name === name));
      if (found.includes(undefined)) return `has no option "${word}"`;
      at += found[0]?.values ?? 0;
      continue;
    }
    const next = alternatives.map((name) => verb.verbs.find((one) => one.name === name));
    if (verb.verbs.length > 0) {
      if (next.includes(undefined)) return `has no verb "${word}"`;
      verb = next[0] ?? verb;
      options = [...verb.options, ...options];
    } else {
      given += 1;
    }
  }
  const most = verb.arguments.some(({ isRepeatable }) => isRepeatable) ? Infinity : verb.arguments.length;
  const least = verb.arguments.filter(({ isOptional }) => !isOptional).length;
  return given > most || (given > 0 && given < least) ? `takes ${most} arguments, not ${given}` : undefined;
}

describe('documented commands', () => {
  test.each(PAGES)('in %s are those of the program', (page) => {
    for (const words of hostctlCommands(page)) {
      expect(problemOf(words), `hostctl ${words.join(' ')}`).toBeUndefined();
    }
  });

  test('are found at all', () => {
    expect(hostctlCommands('README.md').length).toBeGreaterThan(8);
    expect(problemOf(['no-such-verb'])).toMatch(/no verb/);
    expect(problemOf(['status', '--no-such'])).toMatch(/no option/);
    expect(problemOf(['switch', 'a', 'b'])).toMatch(/takes 1/);
  });

  test.each(PAGES)('of npm in %s are scripts of the package', (page) => {
    const { scripts } = JSON.parse(readFileSync(projectPath('package.json'), 'utf8')) as { scripts: object };
    const text = readFileSync(projectPath(page), 'utf8');
    for (const [, name = ''] of text.matchAll(/npm (?:run )?([a-z:]+)/g)) expect(Object.keys(scripts)).toContain(name);
  });

  test('of the first five minutes are each run by a test', () => {
    // Where each is run; a new one is to be added there first.
    const RUN_BY: Readonly<Record<string, string>> = {
      'npm run demo': 'test/long/readme.test.ts',
      'npm run package': 'test/long/readme.test.ts',
      'npm test': 'scripts/test.ts',
      'hostctl install to-disk /dev/sdX oci:/srv/os:stable': 'test/vm/machine.test.ts',
      'hostctl upgrade --plan': 'test/root/readme.test.ts',
      'hostctl upgrade': 'test/root/readme.test.ts',
      'hostctl switch oci:/srv/os:next': 'test/root/readme.test.ts',
      'hostctl status': 'test/root/readme.test.ts',
      'hostctl rollback': 'test/root/readme.test.ts',
    };
    expect(commandBlock('README.md').sort()).toEqual(Object.keys(RUN_BY).sort());
    for (const [command, file] of Object.entries(RUN_BY)) {
      const words = command.startsWith('hostctl install') ? 'install to-disk' : 'commandBlock';
      if (file.startsWith('test/')) expect(readFileSync(projectPath(file), 'utf8'), file).toContain(words);
    }
  });
});
