import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarDir, tarFile } from '../helpers/tar-builder.ts';

const packages = (...versions: [string, string][]): Uint8Array =>
  tarFile(
    'var/lib/dpkg/status',
    versions
      .map(([name, version]) => `Package: ${name}\nStatus: install ok installed\nVersion: ${version}\n\n`)
      .join(''),
  );

const first = (): string =>
  bootableLayout({
    version: '1',
    kargs: ['quiet', 'old'],
    more: [packages(['bash', '5.1'], ['gone', '1']), tarFile('usr/bin/gone', 'x')],
  }).reference;

const second = (): string =>
  bootableLayout({
    version: '2',
    kernels: ['6.13.0'],
    kargs: ['quiet', 'new'],
    more: [
      packages(['bash', '5.2'], ['added', '2']),
      tarDir('etc/ssh', { mode: 0o700 }),
      tarFile('usr/bin/true', 'another', { mode: 0o755 }),
    ],
  }).reference;

function lines(...args: string[]): string[] {
  const { exitCode, stdout, stderr } = hostctl(args);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  return stdout.split('\n').slice(0, -1);
}

const DIFFERENCES = [
  'Kernel: 6.12.0 -> 6.13.0 (version)',
  'Kernel arguments:',
  'D  old',
  'A  new',
  'Packages:',
  'D  gone 1',
  'A  added 2',
  'M  bash 5.1 -> 5.2',
  'Files:',
  'M  /etc/ssh  (mode)',
  'D  /usr/bin/gone',
  'M  /usr/bin/true  (content)',
  'M  /usr/lib/bootc/kargs.d/10-console.toml  (content)',
  'D  /usr/lib/modules/6.12.0',
  'D  /usr/lib/modules/6.12.0/initramfs.img',
  'D  /usr/lib/modules/6.12.0/vmlinuz',
  'A  /usr/lib/modules/6.13.0',
  'A  /usr/lib/modules/6.13.0/initramfs.img',
  'A  /usr/lib/modules/6.13.0/vmlinuz',
  'M  /usr/lib/os-release  (content)',
  'M  /var/lib/dpkg/status  (content)',
];

describe('diff', () => {
  test('of two deployments, of two images and of one of each says the same', async () => {
    const sysroot = scratchSysroot();
    const [one, two] = [first(), second()];
    await sysroot.deploy(one);
    await sysroot.deploy(two);
    const before = snapshot(sysroot.path);
    const at = ['--sysroot', sysroot.path];
    expect(lines('diff', '1', '2', ...at)).toEqual(['From deployment 1', 'To   deployment 2', '', ...DIFFERENCES]);
    expect(lines('diff', one, two)).toEqual([`From ${one}`, `To   ${two}`, '', ...DIFFERENCES]);
    expect(lines('diff', '1', two, ...at)).toEqual(['From deployment 1', `To   ${two}`, '', ...DIFFERENCES]);
    expect(snapshot(sysroot.path)).toEqual(before);
  });

  test('for machines has the same facts', () => {
    const [one, two] = [first(), second()];
    const document = JSON.parse(hostctl(['diff', '--json', one, two]).stdout) as { files: unknown[] };
    expect(document).toMatchObject({
      from: one,
      to: two,
      kernel: { from: '6.12.0', to: '6.13.0', changed: ['version'] },
      kargs: { added: ['new'], removed: ['old'] },
      packages: {
        added: [{ name: 'added', version: '2' }],
        removed: [{ name: 'gone', version: '1' }],
        changed: [{ name: 'bash', from: '5.1', to: '5.2' }],
      },
    });
    expect(document.files.slice(0, 2)).toEqual([
      { change: 'modified', path: '/etc/ssh', type: 'directory', aspects: ['mode'] },
      { change: 'removed', path: '/usr/bin/gone', type: 'file' },
    ]);
  });

  test('of one image with itself finds nothing, and says where packages are unknown', async () => {
    const sysroot = scratchSysroot();
    const { reference } = bootableLayout();
    await sysroot.deploy(reference);
    expect(lines('diff', '1', reference, '--sysroot', sysroot.path).slice(3)).toEqual([
      'Kernel: the same (6.12.0)',
      'Kernel arguments: the same',
      'Packages: unknown',
      'Files: the same',
    ]);
  });

  test('of deployments of one image shows the arguments of the user', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(first());
    lines('kargs', '--append', 'mine', '--sysroot', sysroot.path);
    expect(lines('diff', '1', '2', '--sysroot', sysroot.path).slice(3)).toEqual([
      'Kernel: the same (6.12.0)',
      'Kernel arguments:',
      'A  mine',
      'Packages: the same',
      'Files: the same',
    ]);
  });

  test('without a name is between what boots next and what is staged', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(first(), { kargs: ['mine'] });
    await sysroot.deploy(second(), { stage: true, kargs: ['more'] });
    const shown = lines('diff', '--sysroot', sysroot.path);
    expect(shown.slice(0, 8)).toEqual([
      'From deployment 1',
      'To   deployment 2',
      '',
      'Kernel: 6.12.0 -> 6.13.0 (version)',
      'Kernel arguments:',
      'D  old',
      'A  new',
      'A  more',
    ]);
  });

  test('of what nobody has is refused', async () => {
    const sysroot = scratchSysroot();
    await sysroot.deploy(first());
    const run = (...args: string[]): object => hostctl(['diff', '--sysroot', sysroot.path, ...args]);
    expect(run()).toMatchObject({ exitCode: 7, stdout: '', stderr: expect.stringContaining('no two') as string });
    expect(run('9', '1')).toMatchObject({ exitCode: 7, stdout: '' });
    expect(run('oci:/no/such', '1')).toMatchObject({
      stdout: '',
      stderr: expect.stringContaining('/no/such') as string,
    });
  });

  test('of images needs neither root nor a host', () => {
    const [one, two] = [first(), second()];
    for (const reference of [one, two]) chmodSync(reference.slice('oci:'.length), 0o755);
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    expect(hostctl(['diff', one, two], user)).toMatchObject({ exitCode: 0, stderr: '' });
  });
});

describe('config-diff', () => {
  async function deployed(): Promise<{ readonly sysroot: ScratchSysroot; readonly etc: string }> {
    const sysroot = scratchSysroot();
    const { digest } = await sysroot.deploy(bootableLayout().reference);
    return { sysroot, etc: `${sysroot.path}/state/deploy/${digest}/etc` };
  }

  const changed = (sysroot: ScratchSysroot, ...args: string[]): string[] =>
    lines('config-diff', '--sysroot', sysroot.path, ...args);

  test('lists what was changed, and nothing where nothing was', async () => {
    const { sysroot, etc } = await deployed();
    expect(changed(sysroot)).toEqual(['Nothing is changed in /etc of deployment 1']);
    writeFileSync(`${etc}/hostname`, 'mine\n');
    chmodSync(`${etc}/ssh`, 0o700);
    mkdirSync(`${etc}/own`);
    writeFileSync(`${etc}/own/fi\nle`, '');
    rmSync(`${etc}/motd`);
    const before = snapshot(sysroot.path);
    expect(changed(sysroot)).toEqual([
      'M  /etc/hostname  (content)',
      'D  /etc/motd',
      'A  /etc/own',
      'A  /etc/own/fi\\x0ale',
      'M  /etc/ssh  (mode)',
    ]);
    expect(snapshot(sysroot.path)).toEqual(before);
  });

  test('marks where the default changed too, and the default can be read', async () => {
    const { sysroot, etc } = await deployed();
    writeFileSync(`${etc}/hostname`, 'mine\n');
    writeFileSync(`${etc}/motd`, 'mine\n');
    const more = [tarFile('etc/hostname', 'theirs\n')];
    const { digest } = await sysroot.deploy(bootableLayout({ version: '2', more }).reference);
    expect(changed(sysroot)).toEqual([
      'M  /etc/hostname  (content, the default changed too)',
      'M  /etc/motd  (content)',
      `See a default with "hostctl image cat ${digest.slice(0, 16)} /etc/FILE"`,
    ]);
    expect(lines('image', 'cat', '--sysroot', sysroot.path, digest.slice(0, 16), '/etc/hostname')).toEqual(['theirs']);
    const { stdout } = hostctl(['config-diff', '--json', '--sysroot', sysroot.path]);
    expect(JSON.parse(stdout)).toEqual({
      id: 2,
      digest,
      differences: [
        { change: 'modified', path: '/etc/hostname', type: 'file', aspects: ['content'], shadowed: true },
        { change: 'modified', path: '/etc/motd', type: 'file', aspects: ['content'], shadowed: false },
      ],
    });
    expect(changed(sysroot, '1')).toEqual(['M  /etc/hostname  (content)', 'M  /etc/motd  (content)']);
  });

  test('of a broken record of shadowed defaults warns and lists all the same', async () => {
    const { sysroot, etc } = await deployed();
    writeFileSync(`${etc}/hostname`, 'mine\n');
    writeFileSync(`${etc}-shadowed`, 'garbage');
    const result = hostctl(['config-diff', '--sysroot', sysroot.path]);
    expect(result).toMatchObject({ exitCode: 0, stdout: 'M  /etc/hostname  (content)\n' });
    expect(result.stderr).toContain('Cannot read the list of shadowed defaults: line 1 is cut off');
  });

  test('is refused where nothing is deployed, /etc is gone, or nobody may read the image', async () => {
    const { sysroot, etc } = await deployed();
    const run = (path: string, prefix: string[] = []): number | null =>
      hostctl(['config-diff', '--sysroot', path], prefix).exitCode;
    const empty = scratchSysroot().path;
    chmodSync(sysroot.path, 0o755);
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    expect([run(empty), run(sysroot.path, user)]).toEqual([7, 10]);
    rmSync(etc, { recursive: true });
    expect(run(sysroot.path)).toBe(7);
  });
});
