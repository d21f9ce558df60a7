/** `usr-overlay` in a mount namespace whose root looks as the boot hook leaves it. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { mountNamespace } from '../helpers/mount-namespace.ts';
import { hostctl, type ProgramResult } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';

const DIGEST = 'ab'.repeat(64);
const reason = process.getuid?.() === 0 ? undefined : 'mounting needs root';
if (reason !== undefined) console.error(`Skipping usr-overlay's tests: ${reason}`);

interface Machine {
  readonly hostctl: (...args: readonly string[]) => ProgramResult;
  readonly sh: (script: string) => string;
}

/** This machine's own files below a root mounted like an image. */
async function machine(
  source = `composefs:${DIGEST}`,
  options = 'ro',
  cmdline = `composefs=${DIGEST}`,
): Promise<Machine> {
  const { prefix } = await mountNamespace();
  const scratch = scratchDir();
  const root = `${scratch}/root`;
  for (const name of ['root', 'memory']) mkdirSync(`${scratch}/${name}`);
  writeFileSync(`${scratch}/cmdline`, `quiet ${cmdline}\n`);
  const memory = `${scratch}/memory`;
  // An overlay needs two layers.
  const layers =
    options === 'ro' ? `lowerdir=/:${memory}` : `lowerdir=/,upperdir=${memory}/upper,workdir=${memory}/work`;
  const script = `
    mount -t tmpfs tmpfs "${memory}"
    mkdir "${memory}/upper" "${memory}/work"
    mount -t overlay "${source}" -o "${options},${layers}" "${root}"
    mount --rbind /dev "${root}/dev"
    mount -t proc proc "${root}/proc"
    mount --bind "${scratch}/cmdline" "${root}/proc/cmdline"
    mount -t tmpfs tmpfs "${root}/run"`;
  execFileSync(prefix[0] ?? '', [...prefix.slice(1), 'sh', '-euc', script]);
  const inside = [...prefix, 'chroot', root];
  return {
    hostctl: (...args) => hostctl(args, inside),
    sh: (text) => {
      const { stdout, stderr } = spawnSync(inside[0] ?? '', [...inside.slice(1), 'sh', '-c', text], {
        encoding: 'utf8',
      });
      return stdout + stderr;
    },
  };
}

const NEW = '/usr/share/hostctl-usr-overlay-test';

describe.skipIf(reason !== undefined)('usr-overlay', () => {
  test('makes /usr writable, and nothing else, and leaves one mount', async () => {
    const { hostctl: run, sh } = await machine();
    const before = sh('stat -c "%a %u %g" /usr; ls /usr/bin | head -20');
    expect(sh(`touch ${NEW}`)).toMatch(/Read-only file system/);
    expect(run('usr-overlay')).toEqual({
      exitCode: 0,
      stdout: '/usr can be written until the next boot\n',
      stderr: '',
    });
    expect(sh(`echo new >${NEW} && cat ${NEW}; touch /etc/hostctl-test-new`)).toMatch(
      /^new\n.*Read-only file system\n$/,
    );
    expect(sh('stat -c "%a %u %g" /usr; ls /usr/bin | head -20')).toBe(before);
    const mounts = sh('cat /proc/self/mountinfo').split('\n');
    expect(mounts.filter((line) => line.includes('hostctl-usr-overlay')).map((line) => line.split(' ')[4])).toEqual([
      '/usr',
    ]);
    expect(sh('ls /run/hostctl')).toBe('');
    expect(spawnSync('test', ['-e', NEW]).status).toBe(1);
  });

  test('is shown by status, which has nothing to say before', async () => {
    const { hostctl: run } = await machine();
    const codes = (): string[] => {
      const { warnings } = JSON.parse(run('status', '--json').stdout) as { warnings: { code: string }[] };
      return warnings.map(({ code }) => code).filter((code) => code === 'usr-overlay');
    };
    expect(codes()).toEqual([]);
    run('usr-overlay');
    expect(codes()).toEqual(['usr-overlay']);
  });

  test('is refused a second time', async () => {
    const { hostctl: run } = await machine();
    run('usr-overlay');
    const second = run('usr-overlay');
    expect(second.exitCode).toBe(7);
    expect(second.stderr).toMatch(/can be written already/);
  });

  test.each([
    ['a root of another kind', 'overlay', 'ro', `composefs=${DIGEST}`, /does not run a deployment/],
    ['a root of another digest than the command line', undefined, 'ro', `composefs=${'cd'.repeat(64)}`, /does not run/],
    ['a command line without a digest', undefined, 'ro', 'rw', /does not run a deployment/],
    ['a root that is writable already', undefined, 'rw', `composefs=${DIGEST}`, /root of this machine is transient/],
  ])('is refused on %s', async (_, source, options, cmdline, message) => {
    const { hostctl: run, sh } = await machine(source, options, cmdline);
    const before = sh('cat /proc/self/mountinfo');
    const result = run('usr-overlay');
    expect(result.exitCode).toBe(7);
    expect(result.stderr).toMatch(message);
    expect(sh('cat /proc/self/mountinfo')).toBe(before);
  });
});
