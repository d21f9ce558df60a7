/** The README from a fresh clone: what it tells a new user to run with npm, but for the tests themselves. */

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { projectPath, projectVersion } from '../../scripts/lib/project.ts';
import { commandBlock } from '../helpers/documented-commands.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';

const reason = await reasonNoMachines(console.log);
if (reason !== undefined) console.error(`Skipping the README: ${reason}`);

test.skipIf(reason !== undefined)('The commands of the README run in a fresh clone', () => {
  const clone = `${scratchDir()}/clone`;
  execFileSync('git', ['clone', '--quiet', projectPath(), clone]);
  const commands = commandBlock('README.md').filter((line) => line.startsWith('npm run '));
  expect(commands).toContain('npm run demo');
  for (const command of commands) {
    const [program = '', ...words] = command.split(' ');
    execFileSync(program, words, { cwd: clone, stdio: ['ignore', 'inherit', 'inherit'] });
  }
  expect(existsSync(`${clone}/build/hostctl_${projectVersion()}_amd64.deb`)).toBe(true);
});
