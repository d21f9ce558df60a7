/** `npm run check`: types, lint, formatting, shell scripts, manual pages, unit and conformance tests. Ends at the first failure. */

import { spawnSync } from 'node:child_process';
import { ensureHostPackages, TEST_NEEDS } from './lib/host-packages.ts';
import { projectPath } from './lib/project.ts';

const node = process.execPath;
const bin = (path: string): string => projectPath('node_modules', path);
const shellScripts = [
  'completion/hostctl.bash',
  'dracut/50hostctl/module-setup.sh',
  'dracut/50hostctl/hostctl-root.sh',
  'dracut/50hostctl/hostctl-counter.sh',
  'dracut/50hostctl/hostctl-emergency.sh',
  'dracut/50hostctl/hostctl-waiting.sh',
  'systemd/hostctl-generator',
  'scripts/deb/postinst',
  'scripts/deb/prerm',
  'examples/debian/build.sh',
  'examples/debian/compose-tree.sh',
  'examples/debian/make-tree.sh',
];

const STEPS: readonly (readonly [name: string, program: string, ...args: string[]])[] = [
  ['types', node, bin('typescript/bin/tsc'), '--noEmit'],
  ['lint', node, bin('eslint/bin/eslint.js'), '.', '--max-warnings=0'],
  ['format', node, bin('prettier/bin/prettier.cjs'), '--check', '.'],
  ['shell', 'shellcheck', '--external-sources', ...shellScripts],
  ['tests', node, bin('vitest/vitest.mjs'), 'run', '--project=unit', '--project=conformance'],
];

await ensureHostPackages(TEST_NEEDS, (line) => console.error(line));
for (const [name, program, ...args] of STEPS) {
  console.log(`== ${name}`);
  const { status } = spawnSync(program, args, { cwd: projectPath(), stdio: 'inherit' });
  if (status !== 0) {
    console.error(`Failed: ${name}`);
    process.exit(1);
  }
}
console.log('All checks passed');
