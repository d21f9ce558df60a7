/** systemd as the referee of the units: it understands every line, and finds them as closed as their job allows. */

import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { projectPath } from '../../scripts/lib/project.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

const SYSTEMD = projectPath('systemd');
const missing = missingPrograms('systemd-analyze');
if (missing.length > 0) console.error('Skipping the check of the units: systemd-analyze is missing');

const units = readdirSync(SYSTEMD).filter((name) => /\.(service|timer|path)$/.test(name));
const services = units.filter((name) => name.endsWith('.service'));

/** Tenths, as systemd-analyze adds them up: what each may be at most. */
const EXPOSURE: Readonly<Record<string, number>> = {
  'hostctl-check-boot.service': 20,
  'hostctl-count-boot.service': 25,
  'hostctl-mark-failed.service': 25,
  'hostctl-mark-good.service': 25,
  'hostctl-upgrade.service': 40,
  // Without mounts of its own; the unit says why.
  'hostctl-finalize-staged.service': 45,
};

/** The units where systemd looks for them, with a program that is there. */
function installed(): string {
  const folder = scratchDir();
  cpSync(SYSTEMD, folder, { recursive: true });
  const program = join(folder, 'hostctl');
  writeFileSync(program, '#!/bin/sh\n');
  chmodSync(program, 0o755);
  for (const name of services) {
    const path = join(folder, name);
    writeFileSync(path, readFileSync(path, 'utf8').replaceAll('/usr/bin/hostctl', program));
  }
  return folder;
}

function verify(folder: string): { readonly status: number | null; readonly output: string } {
  const paths = units.map((name) => join(folder, name));
  const env = { ...process.env, SYSTEMD_UNIT_PATH: `${folder}:`, LC_ALL: 'C' };
  // The manual is a package of its own.
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...paths], { env });
  return { status, output: `${stdout.toString()}${stderr.toString()}` };
}

test.skipIf(missing.length > 0)('systemd finds nothing to say about the units', () => {
  expect(verify(installed())).toEqual({ status: 0, output: '' });
});

test.skipIf(missing.length > 0)('it would, about a line that it does not know', () => {
  const folder = installed();
  const path = join(folder, 'hostctl-mark-good.service');
  writeFileSync(path, readFileSync(path, 'utf8').replace('PrivateNetwork=', 'PrivateNetworks='));
  expect(verify(folder).output).toContain('PrivateNetworks');
});

test('each service has a limit', () => {
  expect(Object.keys(EXPOSURE).sort()).toEqual([...services].sort());
});

test.skipIf(missing.length > 0).each(services)('%s is no more exposed than its job needs', (name) => {
  const args = ['security', '--offline=true', '--no-pager', `--threshold=${EXPOSURE[name]}`, join(SYSTEMD, name)];
  // Ends with 1 above the threshold.
  execFileSync('systemd-analyze', args, { stdio: 'pipe' });
});

test('what the preset enables and disables is what can be enabled', () => {
  const preset = readFileSync(join(SYSTEMD, '50-hostctl.preset'), 'utf8');
  const named = [...preset.matchAll(/^(enable|disable) (\S+)$/gm)].map(([, , name]) => name);
  const canBe = units.filter((name) => readFileSync(join(SYSTEMD, name), 'utf8').includes('\n[Install]\n'));
  expect([...named].sort()).toEqual([...canBe].sort());
  expect(preset).toContain('disable hostctl-upgrade.timer');
  for (const script of ['postinst', 'prerm']) {
    const text = readFileSync(projectPath('scripts/deb', script), 'utf8');
    expect([...text.matchAll(/hostctl-\S+\.\w+/g)].map(([unit]) => unit).sort()).toEqual([...canBe].sort());
  }
});

/** systemd starts a service only after its timer, should that be starting too. */
test('what a boot that hangs needs is not kept waiting by its timer', () => {
  const waitsForNothing = (name: string): boolean =>
    /^DefaultDependencies=no$/m.test(readFileSync(join(SYSTEMD, name), 'utf8'));
  const timers = units
    .filter((name) => name.endsWith('.timer'))
    .filter((name) => waitsForNothing(name.replace('.timer', '.service')));
  expect(timers).toEqual(['hostctl-mark-failed.timer']);
  expect(timers.filter((name) => !waitsForNothing(name))).toEqual([]);
});
