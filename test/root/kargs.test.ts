import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readStaged, writeStaged } from '../../src/deploy/staged.ts';
import { openSysroot } from '../../src/deploy/sysroot.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { hostctl, type ProgramResult } from '../helpers/run-program.ts';
import { scratchSysroot, type ScratchSysroot } from '../helpers/scratch-sysroot.ts';
import { snapshot } from '../helpers/snapshot.ts';

interface Result {
  readonly changed: boolean;
  readonly from: number;
  readonly id: number | null;
  readonly added: readonly object[];
  readonly removed: readonly object[];
}

function kargs(sysroot: ScratchSysroot, ...args: string[]): ProgramResult {
  return hostctl(['kargs', '--sysroot', sysroot.path, ...args]);
}

function json(sysroot: ScratchSysroot, ...args: string[]): Result {
  const { exitCode, stdout, stderr } = kargs(sysroot, '--json', '--quiet', ...args);
  expect(stderr).toBe('');
  expect(exitCode).toBe(0);
  return JSON.parse(stdout) as Result;
}

/** Everything but who held the lock last. */
function facts(sysroot: ScratchSysroot): Record<string, unknown> {
  const found: Record<string, unknown> = { ...snapshot(sysroot.path) };
  delete found['state/hostctl/lock-holder'];
  return found;
}

/** Arguments of the entry that boots next, but for those of every deployment. */
function booting(sysroot: ScratchSysroot): string[] {
  const { next, deployments } = sysroot.status();
  const args = deployments.find(({ id }) => id === next)?.entry?.kargs ?? [];
  return args.filter((arg) => !/^(composefs\.digest|panic|rd\.shell|rd\.emergency)=/.test(arg));
}

async function deployed(): Promise<ScratchSysroot> {
  const sysroot = scratchSysroot();
  await sysroot.deploy(bootableLayout({ kargs: ['console=ttyS0', 'quiet'] }).reference, {
    kargs: ['root=UUID=1', 'x'],
  });
  return sysroot;
}

describe('kargs', () => {
  test('shows every argument with where it comes from', async () => {
    const sysroot = await deployed();
    const before = facts(sysroot);
    const { stdout } = kargs(sysroot);
    expect(
      stdout
        .replaceAll(/ +/g, ' ')
        .replace(/=\?v1-sha512-12:[0-9a-f]{128}/, '=…')
        .split('\n'),
    ).toEqual([
      'root=UUID=1 (root)',
      'composefs.digest=… (hostctl)',
      'panic=30 (hostctl)',
      'rd.shell=0 (hostctl)',
      'rd.emergency=reboot (hostctl)',
      'console=ttyS0 (image 10-console.toml)',
      'quiet (image 10-console.toml)',
      'x (user)',
      '',
    ]);
    expect(json(sysroot)).toMatchObject({
      id: 1,
      kargs: expect.arrayContaining([{ arg: 'quiet', origin: 'image', file: '10-console.toml' }]) as unknown,
    });
    expect(facts(sysroot)).toEqual(before);
  });

  test('changes them in a deployment of its own that has the same image and its own /etc', async () => {
    const sysroot = await deployed();
    const digest = sysroot.status().deployments[0]?.composefs.digest ?? '';
    writeFileSync(`${sysroot.path}/state/deploy/${digest}/etc/hostname`, 'mine\n');
    const result = json(sysroot, '--append', 'a="b c"', '--delete', 'quiet', '--replace', 'console=tty0');
    expect(result).toMatchObject({
      changed: true,
      from: 1,
      id: 2,
      added: [
        { arg: 'a="b c"', origin: 'user' },
        { arg: 'console=tty0', origin: 'user' },
      ].reverse(),
      removed: [
        { arg: 'console=ttyS0', origin: 'image', file: '10-console.toml' },
        { arg: 'quiet', origin: 'image', file: '10-console.toml' },
      ],
    });
    expect(booting(sysroot)).toEqual(['root=UUID=1', `hostctl.state=${digest}.2`, 'x', 'console=tty0', 'a="b c"']);
    expect(readFileSync(`${sysroot.path}/state/deploy/${digest}.2/etc/hostname`, 'utf8')).toBe('mine\n');
    expect(readdirSync(`${sysroot.path}/composefs/images/refs/hostctl`)).toEqual(['1', '2']);
    expect(sysroot.status()).toMatchObject({ next: 2, warnings: [] });
    expect(sysroot.status().deployments.flatMap(({ problems }) => problems)).toEqual([]);
  });

  test('of the same arguments again makes nothing', async () => {
    const sysroot = await deployed();
    json(sysroot, '--append', 'y');
    const before = facts(sysroot);
    expect(json(sysroot, '--append', 'y')).toMatchObject({ changed: false, from: 2, id: null });
    expect(facts(sysroot)).toEqual(before);
  });

  test('--plan says the same and writes nothing', async () => {
    const sysroot = await deployed();
    const before = facts(sysroot);
    const planned = json(sysroot, '--plan', '--append', 'y', '--delete', 'x');
    expect(kargs(sysroot, '--plan', '--append', 'y', '--delete', 'x').stdout).toBe(
      'Deployment 1 would be followed by one with\n- x  (user)\n+ y  (user)\n',
    );
    expect(facts(sysroot)).toEqual(before);
    expect(json(sysroot, '--append', 'y', '--delete', 'x')).toEqual({
      ...planned,
      id: 2,
      entryFile: 'hostctl-00000002+3-0.conf',
    });
  });

  test('stay as they were changed when another version is deployed', async () => {
    const sysroot = await deployed();
    json(sysroot, '--append', 'y', '--delete', 'quiet');
    await sysroot.deploy(bootableLayout({ version: '2', kargs: ['quiet', 'splash'] }).reference);
    expect(booting(sysroot)).toEqual(['root=UUID=1', 'splash', 'x', 'y']);
  });

  test('of a deployment that is staged are shown, and changed in one that takes its place', async () => {
    const sysroot = await deployed();
    await sysroot.deploy(bootableLayout({ version: '2' }).reference, { stage: true, kargs: ['z'] });
    expect(kargs(sysroot).stdout).toMatch(/^z +\(user\)$/m);
    expect(json(sysroot, '--append', 'y')).toMatchObject({ changed: true, from: 2, id: 3 });
    expect(sysroot.status()).toMatchObject({ next: 3, staged: null });
    expect(booting(sysroot).slice(-3)).toEqual(['x', 'z', 'y']);
    expect(sysroot.entries()).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000003+3-0.conf']);
  });

  test('of what is only downloaded are changed without it being booted', async () => {
    const sysroot = await deployed();
    await sysroot.deploy(bootableLayout({ version: '2' }).reference, { stage: true });
    const scratch = openSysroot(sysroot.host, { sysroot: sysroot.path });
    const staged = readStaged(scratch);
    if (staged === undefined) throw new Error('nothing is staged');
    writeStaged(scratch, { ...staged, isLocked: true });
    expect(json(sysroot, '--append', 'y')).toMatchObject({ changed: true, from: 2, id: 3 });
    expect(readStaged(scratch)).toMatchObject({ id: 3, isLocked: true });
    expect(sysroot.status()).toMatchObject({ next: 1, staged: 3 });
    expect(sysroot.entries()).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000003+3-0.conf.staged']);
  });

  test.each([
    ['what is not there', ['--delete', 'nothing'], 2, 'There is no kernel argument "nothing"'],
    ['a pin', ['--append', 'composefs.digest=v1-sha512-12:00'], 2, 'is set by hostctl and cannot be given'],
    ['a plan of nothing', ['--plan'], 2, '--plan needs --append, --delete or --replace'],
    ['an option without its argument', ['--append'], 2, 'append'],
  ])('refuses %s and leaves everything as it was', async (_, args, exitCode, message) => {
    const sysroot = await deployed();
    const before = facts(sysroot);
    const result = kargs(sysroot, ...args);
    expect(result).toMatchObject({ exitCode, stdout: '' });
    expect(result.stderr).toContain(message);
    expect(facts(sysroot)).toEqual(before);
  });

  test('of a host on which nothing is deployed is an error', () => {
    expect(kargs(scratchSysroot())).toMatchObject({ exitCode: 7, stdout: '' });
  });

  test('need root to be changed', async () => {
    const sysroot = await deployed();
    chmodSync(sysroot.path, 0o755);
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    const run = (...args: string[]): number | null =>
      hostctl(['kargs', '--sysroot', sysroot.path, ...args], user).exitCode;
    expect([run(), run('--append', 'y')]).toEqual([0, 10]);
  });
});

describe("the host's kargs.d", () => {
  const write = (sysroot: ScratchSysroot, name: string, text: string): void => {
    const digest = sysroot.status().deployments[0]?.composefs.digest ?? '';
    const directory = `${sysroot.path}/state/deploy/${digest}/etc/hostctl/kargs.d`;
    mkdirSync(directory, { recursive: true });
    writeFileSync(`${directory}/${name}`, text);
  };

  test('goes into the next deployment, and goes again with its file', async () => {
    const sysroot = await deployed();
    write(sysroot, '10-here.toml', 'kargs = ["here=1", "quiet"]\n');
    write(sysroot, '20-else.toml', 'kargs = ["power"]\nmatch-architectures = ["powerpc64"]\n');
    const second = bootableLayout({ version: '2' }).reference;
    await sysroot.deploy(second);
    expect(booting(sysroot)).toEqual(['root=UUID=1', 'console=ttyS0', 'here=1', 'quiet', 'x']);
    expect(kargs(sysroot).stdout).toMatch(/^here=1 +\(host 10-here\.toml\)$/m);
    expect(await sysroot.deploy(second)).toMatchObject({ changed: false });
    const digest = sysroot.status().deployments[0]?.composefs.digest ?? '';
    rmSync(`${sysroot.path}/state/deploy/${digest}/etc/hostctl/kargs.d/10-here.toml`);
    expect(await sysroot.deploy(second)).toMatchObject({ changed: true });
    expect(booting(sysroot)).toEqual(['root=UUID=1', `hostctl.state=${digest}.3`, 'console=ttyS0', 'x']);
  });

  test.each([
    [
      'no TOML',
      'kargs = [',
      'Cannot use "/etc/hostctl/kargs.d": Cannot read kernel arguments from "bad.toml": not valid TOML',
    ],
    ['a pin', 'kargs = ["composefs=00"]', 'is set by hostctl and cannot be given'],
  ])('with %s refuses to deploy', async (_, text, message) => {
    const sysroot = await deployed();
    write(sysroot, 'bad.toml', text);
    await expect(sysroot.deploy(bootableLayout({ version: '2' }).reference)).rejects.toThrow(
      expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining(message) as string }),
    );
    expect(sysroot.entries()).toHaveLength(1);
  });
});
