/**
 * `npm test`: installs what the tests call, runs them all, and ends with the line `N passed, N failed, N skipped`.
 * On a machine that cannot run everything it names what is missing and runs the rest; with CI=true or
 * HOSTCTL_VM=require every skip is a failure. Words after `--` go to vitest (`npm test -- --project unit`).
 */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { ensureHostPackages, TEST_NEEDS } from './lib/host-packages.ts';
import { projectPath } from './lib/project.ts';

interface Assertion {
  readonly fullName: string;
  readonly status: 'passed' | 'failed' | 'skipped' | 'pending' | 'todo';
}

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly assertionResults: readonly Assertion[];
  }[];
}

const NORMAL_PROJECTS = ['unit', 'conformance', 'root', 'proof', 'vm'];
const strict = process.env.CI === 'true' || process.env.HOSTCTL_VM === 'require';
const asked = process.argv.slice(2);

try {
  await ensureHostPackages(TEST_NEEDS, (line) => console.error(line));
} catch (error) {
  if (strict) throw error;
  console.error(`${error instanceof Error ? error.message : String(error)}: tests that need them are skipped`);
}

const reportFile = projectPath('build/test-report.json');
mkdirSync(dirname(reportFile), { recursive: true });
rmSync(reportFile, { force: true });
const projects = asked.some((word) => word.startsWith('--project'))
  ? []
  : NORMAL_PROJECTS.map((name) => `--project=${name}`);
const { status } = spawnSync(
  process.execPath,
  [
    projectPath('node_modules/vitest/vitest.mjs'),
    'run',
    ...projects,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${reportFile}`,
    ...asked,
  ],
  { cwd: projectPath(), stdio: 'inherit', env: { ...process.env, ...(strict ? { HOSTCTL_VM: 'require' } : {}) } },
);

const report = JSON.parse(readFileSync(reportFile, 'utf8')) as Report;
const tests = report.testResults.flatMap(({ assertionResults }) => assertionResults);
const count = (...wanted: Assertion['status'][]): number => tests.filter((test) => wanted.includes(test.status)).length;
const passed = count('passed');
const skipped = count('skipped', 'pending', 'todo');
// A file that fails before its first test counts as one failure.
const brokenFiles = report.testResults.filter(
  (file) => file.status === 'failed' && file.assertionResults.every((test) => test.status !== 'failed'),
);
const failed = count('failed') + brokenFiles.length;

for (const file of brokenFiles) console.log(`Failed as a whole: ${file.name}`);
for (const test of tests.filter(({ status: state }) => state === 'failed')) console.log(`Failed: ${test.fullName}`);
for (const test of tests.filter(({ status: state }) => state === 'skipped' || state === 'pending')) {
  console.log(`Skipped: ${test.fullName}`);
}
if (strict && skipped > 0) console.log('Skipped tests are failures here');
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = status !== 0 || failed > 0 || passed === 0 || (strict && skipped > 0) ? 1 : 0;
