import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { projectVersion } from '../../scripts/lib/project.ts';
import { ociLayout } from '../helpers/oci-builder.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { tar, tarDir, tarFile } from '../helpers/tar-builder.ts';

let folder: string;
let deb: string;
let root: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'hostctl-package-'));
  deb = await buildPackage(folder);
  root = join(folder, 'root');
  execFileSync('dpkg-deb', ['--extract', deb, root]);
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function field(name: string): string {
  return execFileSync('dpkg-deb', ['--field', deb, name], { encoding: 'utf8' }).trim();
}

test('The package holds the program, the dracut module, the units and their licence, owned by root', () => {
  const listing = execFileSync('dpkg-deb', ['--contents', deb], { encoding: 'utf8' });
  const lines = listing.split('\n').filter(Boolean);
  expect(lines.filter((line) => !/^\S+ root\/root /.test(line))).toEqual([]);
  const modes = Object.fromEntries(
    lines.map((line) => [/ \.\/(\S*)/.exec(line)?.[1] ?? '', line.slice(0, 10)]),
  ) as Record<string, string>;
  expect(modes).toMatchObject({
    'usr/bin/hostctl': 'lrwxrwxrwx',
    'usr/lib/hostctl/main.js': '-rwxr-xr-x',
    'usr/lib/hostctl/check-worker.js': '-rw-r--r--',
    'usr/lib/hostctl/decode-worker.js': '-rw-r--r--',
    'usr/lib/dracut/dracut.conf.d/50-hostctl.conf': '-rw-r--r--',
    'usr/lib/dracut/modules.d/50hostctl/hostctl-root.sh': '-rwxr-xr-x',
    'usr/lib/dracut/modules.d/50hostctl/hostctl-root.service': '-rw-r--r--',
    'usr/lib/dracut/modules.d/50hostctl/module-setup.sh': '-rwxr-xr-x',
    'usr/lib/systemd/system/hostctl-finalize-staged.path': '-rw-r--r--',
    'usr/lib/systemd/system/hostctl-finalize-staged.service': '-rw-r--r--',
    'usr/lib/systemd/system/hostctl-mark-good.service': '-rw-r--r--',
    'usr/lib/systemd/system-preset/50-hostctl.preset': '-rw-r--r--',
    'usr/share/bash-completion/completions/hostctl': '-rw-r--r--',
    'usr/share/doc/hostctl/copyright': '-rw-r--r--',
    'usr/share/fish/vendor_completions.d/hostctl.fish': '-rw-r--r--',
    'usr/share/man/man5/hostctl.conf.5.gz': '-rw-r--r--',
    'usr/share/man/man8/hostctl.8.gz': '-rw-r--r--',
    'usr/share/zsh/vendor-completions/_hostctl': '-rw-r--r--',
  });
});

test('The package depends on what its hook, its units and its program call', () => {
  const depends = field('Depends').split(', ');
  expect(depends).toContain('nodejs (>= 20.19)');
  expect(depends).toContain('fsverity');
  // Packages of the hook's programs that Debian does not call essential: mount and umount, modprobe, openssl.
  expect(depends).toEqual(expect.arrayContaining(['mount', 'kmod', 'openssl', 'dracut']));
});

test('The packaged program runs from where it is unpacked, and with its native interface', () => {
  const program = join(root, 'usr/bin/hostctl');
  expect(execFileSync(process.execPath, [program, '--version'], { encoding: 'utf8' }).trim()).toBe(projectVersion());
  const load = "require('node:module').createRequire(process.argv[1])('koffi').load('libc.so.6')";
  execFileSync(process.execPath, ['-e', load, join(root, 'usr/lib/hostctl/main.js')]);
});

test('The packaged program reads a large image by threads, one of which starts a program where koffi is missing', () => {
  const layers = (['gzip', 'zstd'] as const).map((compression, i) => ({
    tar: tar([tarDir('usr'), tarFile(`usr/file-${i}`, randomBytes(3 << 20))]),
    compression,
  }));
  const { directory } = ociLayout(join(folder, 'image'), { layers });
  const withoutKoffi = join(folder, 'without-koffi');
  cpSync(join(root, 'usr/lib/hostctl'), withoutKoffi, { recursive: true });
  for (const name of ['koffi', '@koromix']) rmSync(join(withoutKoffi, 'node_modules', name), { recursive: true });
  const digest = (program: string): { readonly stdout: string; readonly stderr: string } =>
    spawnSync(process.execPath, [program, 'image', 'digest', `oci:${directory}`, '--debug'], { encoding: 'utf8' });
  const [here, there] = [digest(join(root, 'usr/bin/hostctl')), digest(join(withoutKoffi, 'main.js'))];
  expect(here.stdout, here.stderr).toMatch(/^[0-9a-f]{128}$/m);
  expect(here.stderr).not.toContain('run: zstd');
  expect(there.stdout, there.stderr).toBe(here.stdout);
  expect(there.stderr).toContain('run: zstd -dcq');
});

test('The same source gives the same package', async () => {
  const again = mkdtempSync(join(folder, 'again-'));
  expect(readFileSync(await buildPackage(again)).equals(readFileSync(deb))).toBe(true);
});

test('The licences of all bundled packages are in it', () => {
  const copyright = readFileSync(join(root, 'usr/share/doc/hostctl/copyright'), 'utf8');
  for (const name of ['koffi', 'execa', 'yargs', 'smol-toml'])
    expect(copyright).toMatch(new RegExp(`^${name} \\S+ \\(`, 'm'));
});

test.skipIf(missingPrograms('lintian').length > 0)('lintian has nothing to say that is not explained', () => {
  const args = ['--allow-root', '--fail-on', 'none', deb];
  expect(execFileSync('lintian', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })).toBe('');
});
