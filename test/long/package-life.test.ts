/** The package on a plain Debian 13 tree: installed, upgraded, removed, purged, by dpkg in the tree. */

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { projectVersion } from '../../scripts/lib/project.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { debianArchive } from '../vm/lib/debian.ts';
import { reasonNoMachines } from '../vm/lib/requirements.ts';

const say = (line: string): void => console.log(line);
const reason = await reasonNoMachines(say);
if (reason !== undefined) console.error(`Skipping the life of the package: ${reason}`);

const UNIT = 'etc/systemd/system/boot-complete.target.wants/hostctl-mark-good.service';
/** What dpkg and systemctl write about themselves. */
const BOOKKEEPING = /^\.\/(var\/(lib\/(dpkg|systemd)|log)|etc\/ld\.so\.cache|run)(\/|$)/;

test.skipIf(reason !== undefined)('install, upgrade, remove and purge leave what they should', async () => {
  const scratch = scratchDir();
  const tree = `${scratch}/tree`;
  mkdirSync(tree);
  execFileSync('tar', ['--extract', '--zstd', '-f', await debianArchive(say), '-C', tree]);
  const dpkg = (...args: string[]): string =>
    execFileSync('chroot', [tree, 'dpkg', ...args], {
      encoding: 'utf8',
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    });
  const inTree = (...words: string[]): string => execFileSync('chroot', [tree, ...words], { encoding: 'utf8' });
  const files = (): string[] =>
    execFileSync('find', ['.'], { cwd: tree, encoding: 'utf8', maxBuffer: 1 << 28 })
      .split('\n')
      .filter((path) => !BOOKKEEPING.test(path) && path !== './new.deb' && path !== './deb')
      .sort();
  const deb = await buildPackage(scratch);
  execFileSync('cp', [deb, `${tree}/deb`]);
  execFileSync('cp', [newerPackage(scratch, deb), `${tree}/new.deb`]);
  const before = files();

  dpkg('--install', '/deb');
  expect(inTree('hostctl', '--version').trim()).toBe(projectVersion());
  expect(existsSync(`${tree}/usr/lib/dracut/modules.d/50hostctl/module-setup.sh`)).toBe(true);
  expect(inTree('systemctl', 'is-enabled', 'hostctl-mark-good.service').trim()).toBe('enabled');
  expect(inTree('systemctl', 'is-enabled', 'hostctl-finalize-staged.path').trim()).toBe('enabled');

  inTree('systemctl', '--quiet', 'disable', 'hostctl-finalize-staged.path');
  mkdirSync(`${tree}/etc/hostctl`);
  writeFileSync(`${tree}/etc/hostctl/hostctl.conf`, '[retention]\nkeep = 5\n');
  dpkg('--install', '/new.deb');
  expect(dpkg('--status', 'hostctl')).toMatch(/^Version: 9\.0$/m);
  const state = execFileSync('sh', ['-c', `chroot ${tree} systemctl is-enabled hostctl-finalize-staged.path || true`]);
  expect(state.toString().trim()).toBe('disabled');
  expect(readFileSync(`${tree}/etc/hostctl/hostctl.conf`, 'utf8')).toContain('keep = 5');

  dpkg('--remove', 'hostctl');
  dpkg('--purge', 'hostctl');
  expect(existsSync(`${tree}/${UNIT}`)).toBe(false);
  // Only the administrator's own file stays.
  expect(files().filter((path) => !before.includes(path))).toEqual(['./etc/hostctl', './etc/hostctl/hostctl.conf']);
  expect(before.filter((path) => !files().includes(path))).toEqual([]);
});

function newerPackage(scratch: string, deb: string): string {
  execFileSync('dpkg-deb', ['--raw-extract', deb, `${scratch}/newer`]);
  const control = `${scratch}/newer/DEBIAN/control`;
  writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, 'Version: 9.0'));
  execFileSync('dpkg-deb', [
    '--root-owner-group',
    '-Zxz',
    '-z1',
    '--build',
    `${scratch}/newer`,
    `${scratch}/newer.deb`,
  ]);
  return `${scratch}/newer.deb`;
}
