/**
 * What is refused: the exit code, one clear line, a hint, and nothing left behind. Every case runs the built program.
 */

import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  statfsSync,
  type StatsFs,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { hostctl, type ProgramResult } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { tarFile } from '../helpers/tar-builder.ts';

/** Files of the lock and of an empty repository: set up before anything can fail, and useful to the next run. */
const HARMLESS =
  /^(state|state\/hostctl(\/lock-holder)?|composefs(\/(meta\.json|objects|images|images\/refs|streams|streams\/refs|objects\/[0-9a-f]{2}))?)$/;

interface Sysroot {
  readonly path: string;
  readonly boot: string;
}

function emptySysroot(): Sysroot {
  const path = scratchDir();
  mkdirSync(`${path}/boot`);
  return { path, boot: `${path}/boot` };
}

function deploy({ path, boot }: Sysroot, image: string, ...more: string[]): ProgramResult {
  return hostctl(['deploy', image, '--sysroot', path, '--boot', boot, '--allow-missing-verity', ...more]);
}

function leftBehind(path: string): string[] {
  return Object.keys(snapshot(path)).filter((name) => name !== 'boot' && !HARMLESS.test(name));
}

/** One message line, maybe its cause, and a hint where one helps; never a stack. */
function expectMessage({ stderr }: ProgramResult, message: RegExp): void {
  const lines = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('hostctl: warning:'));
  expect(lines[0]).toMatch(/^hostctl: /);
  expect(lines[0]).toMatch(message);
  expect(stderr).not.toMatch(/\n\s+at /);
}

function blobs(reference: string): string[] {
  const directory = `${reference.slice('oci:'.length)}/blobs/sha256`;
  return readdirSync(directory).map((name) => `${directory}/${name}`);
}

function largestBlob(reference: string): string {
  return blobs(reference).sort((a, b) => statSync(b).size - statSync(a).size)[0] ?? '';
}

describe('deploy refuses', () => {
  test.each<[string, () => string, number, RegExp]>([
    ['a directory that is no OCI layout', () => `oci:${scratchDir()}`, 7, /oci-layout/],
    ['a directory that does not exist', () => 'oci:/nowhere/at/all', 7, /nowhere/],
    ['a tag that does not exist', () => `${bootableLayout().reference}:nope`, 7, /nope/],
    [
      'a blob with another digest',
      () => {
        const { reference } = bootableLayout();
        const blob = largestBlob(reference);
        writeFileSync(blob, Buffer.alloc(statSync(blob).size, 1));
        return reference;
      },
      3,
      /digest/,
    ],
    [
      'a truncated blob',
      () => {
        const { reference } = bootableLayout();
        truncateSync(largestBlob(reference), 100);
        return reference;
      },
      3,
      /bytes/,
    ],
    [
      'a missing blob',
      () => {
        const { reference } = bootableLayout();
        rmSync(largestBlob(reference));
        return reference;
      },
      7,
      /blobs\/sha256/,
    ],
    [
      'an unknown media type',
      () =>
        bootableLayout({
          layout: {
            editManifest: (manifest) => ({
              ...manifest,
              layers: (manifest['layers'] as object[]).map((layer) => ({ ...layer, mediaType: 'text/plain' })),
            }),
          },
        }).reference,
      7,
      /text\/plain/,
    ],
    ['an image for another machine', () => bootableLayout({ layout: { architecture: 's390x' } }).reference, 7, /s390x/],
    ['an image without kernel', () => bootableLayout({ kernels: [] }).reference, 7, /no kernel/],
    [
      'an image with two kernels',
      () => bootableLayout({ kernels: ['6.12.1', '6.12.2'] }).reference,
      7,
      /6\.12\.1.*6\.12\.2/,
    ],
    ['an image without initramfs', () => bootableLayout({ withInitrd: false }).reference, 7, /initramfs\.img/],
    [
      'a path that leaves the tree',
      () => bootableLayout({ more: [tarFile('../etc/passwd', 'x')] }).reference,
      7,
      /\.\./,
    ],
    ['what is no reference', () => 'oci:', 2, /oci:/],
  ])('%s', (_, image, exitCode, message) => {
    const sysroot = emptySysroot();
    const result = deploy(sysroot, image());
    expectMessage(result, message);
    expect(result.exitCode).toBe(exitCode);
    expect(result.stdout).toBe('');
    expect(leftBehind(sysroot.path)).toEqual([]);
  });

  test('a file system without fs-verity, before it writes anything', () => {
    const { path, boot } = emptySysroot();
    const before = snapshot(path);
    const result = hostctl(['deploy', bootableLayout().reference, '--sysroot', path, '--boot', boot]);
    expectMessage(result, /no fs-verity/);
    expect(result.stderr).toMatch(/hint: .*--allow-missing-verity/);
    expect(result.exitCode).toBe(7);
    expect(snapshot(path)).toEqual(before);
  });

  test('a user who is not root', () => {
    const { path, boot } = emptySysroot();
    const { reference } = bootableLayout();
    for (const directory of [path, boot]) chmodSync(directory, 0o777);
    const before = snapshot(path);
    const result = hostctl(
      ['deploy', reference, '--sysroot', path, '--boot', boot, '--allow-missing-verity'],
      ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
    );
    expectMessage(result, /Only root can deploy/);
    expect(result.exitCode).toBe(10);
    expect(snapshot(path)).toEqual(before);
  });

  test('a read-only sysroot', () => {
    const sysroot = tmpfsSysroot('size=16m');
    execFileSync('mount', ['-o', 'remount,ro', sysroot.path]);
    const result = deploy(sysroot, bootableLayout().reference);
    expectMessage(result, /read-only/);
    expect(result.exitCode).toBe(7);
    expect(snapshot(sysroot.path)).toEqual({ boot: 'directory 755' });
  });

  test('a read-only boot partition', () => {
    const { path } = emptySysroot();
    const boot = tmpfsSysroot('size=16m').path;
    execFileSync('mount', ['-o', 'remount,ro', boot]);
    const result = deploy({ path, boot }, bootableLayout().reference);
    expectMessage(result, /boot partition.*read-only/);
    expect(result.exitCode).toBe(7);
    expect(leftBehind(path)).toEqual([]);
  });

  test('a sysroot that is too small, and gives its space back', () => {
    // 2 MiB in objects of 64 KiB do not fit into 1 MiB.
    const more = Array.from({ length: 32 }, (_, i) => tarFile(`usr/lib/data-${i}`, Buffer.alloc(65536, `data ${i}`)));
    const sysroot = tmpfsSysroot('size=1m');
    const boot = scratchDir();
    const result = deploy({ path: sysroot.path, boot }, bootableLayout({ more }).reference);
    expectMessage(result, /needs \d\.\d MiB for what is new in the image but has 1\.0 MiB free; nothing was changed/);
    expect(result.exitCode).toBe(5);
    expect(leftBehind(sysroot.path)).toEqual([]);
    expect(readdirSync(boot)).toEqual([]);
  });

  test.each([
    [
      'bytes',
      'size=1m',
      /needs (\d+\.\d) MiB/,
      (needed: number) => `size=${Math.ceil((needed + 0.1) * 1024)}k`,
      bytesFree,
      512 << 10,
    ],
    ['inodes', 'nr_inodes=20', /needs (\d+) inodes/, (needed: number) => `nr_inodes=${needed + 15}`, inodesFree, 315],
  ])(
    'what an image needs in %s is enough, and no more than it needs',
    (_, small, message, enough, free, atMostFree) => {
      const more = Array.from({ length: 32 }, (_, i) => tarFile(`usr/lib/data-${i}`, Buffer.alloc(65536, `data ${i}`)));
      const { reference } = bootableLayout({ more });
      const refused = deploy({ path: tmpfsSysroot(small).path, boot: scratchDir() }, reference);
      expectMessage(refused, message);
      const needed = Number(message.exec(refused.stderr)?.[1]);
      const sysroot = tmpfsSysroot(enough(needed));
      const result = deploy({ path: sysroot.path, boot: scratchDir() }, reference);
      expect(result.exitCode, result.stderr).toBe(0);
      expect(free(statfsSync(sysroot.path))).toBeLessThan(atMostFree);
    },
  );

  test('a boot partition that is too small, with the numbers, and keeps what was there', () => {
    const sysroot = emptySysroot();
    const boot = tmpfsSysroot('size=48k').path;
    rmSync(`${boot}/boot`, { recursive: true });
    deploy({ path: sysroot.path, boot }, bootableLayout({ version: '1' }).reference);
    const before = snapshot(boot);
    const more = [tarFile('usr/lib/modules/6.12.0/vmlinuz', Buffer.alloc(100_000, 'larger'))];
    const result = deploy({ path: sysroot.path, boot }, bootableLayout({ version: '2', more }).reference);
    expectMessage(result, /needs .* MiB .* has .* MiB free; nothing was changed/);
    expect(result.exitCode).toBe(5);
    expect(snapshot(boot)).toEqual(before);
    expect(Object.keys(snapshot(`${sysroot.path}/state/deploy`)).filter((name) => !name.includes('/'))).toHaveLength(1);
    expect(readdirSync(`${sysroot.path}/composefs/images`)).toHaveLength(2);
  });

  test('to wait for ever for a lock, and names who holds it', () => {
    const sysroot = emptySysroot();
    mkdirSync(`${sysroot.path}/state/hostctl`, { recursive: true });
    writeFileSync(`${sysroot.path}/state/hostctl/lock-holder`, 'process 4711 (hostctl gc)\n');
    const args = ['deploy', bootableLayout().reference, '--sysroot', sysroot.path, '--boot', sysroot.boot];
    const result = hostctl(
      [...args, '--allow-missing-verity', '--wait', '0.2'],
      ['flock', `${sysroot.path}/state/hostctl`],
    );
    expectMessage(result, /held by process 4711 \(hostctl gc\)/);
    expect(result.exitCode).toBe(6);
  });
});

describe('usage', () => {
  test.each([
    ['no verb', [], /Name a verb/],
    ['an unknown verb', ['deplou'], /deplou|did you mean/],
    ['an unknown option', ['status', '--nope'], /nope/],
    ['an option without its value', ['status', '--sysroot'], /sysroot/],
    ['an option given twice', ['status', '--sysroot', '/a', '--sysroot', '/b'], /more than once/],
    ['a missing image', ['deploy'], /Too few arguments/],
    ['a bad number of tries', ['deploy', 'oci:/x', '--tries', '0'], /--tries/],
    ['a bad wait', ['status', '--wait', 'soon'], /--wait/],
    ['a sysroot that is no directory', ['status', '--sysroot', '/etc/passwd'], /not a directory/],
    ['a kernel argument with a blank', ['deploy', 'oci:/x', '--karg', 'a b'], /a b/],
  ])('%s is exit code 2', (_, args, message) => {
    const result = hostctl(args);
    expectMessage(result, message);
    expect(result.exitCode).toBe(2);
    expect(result.stdout).toBe('');
  });

  test('an error with --json is one JSON document on stderr', () => {
    const result = hostctl(['status', '--json', '--sysroot', '/etc/passwd']);
    expect(JSON.parse(result.stderr)).toEqual({
      error: {
        code: 'usage',
        message: '"/etc/passwd" is not a directory',
        hint: 'Create it first, or pass another one',
        causes: [],
      },
    });
    expect(result.exitCode).toBe(2);
  });
});

describe('install to-disk refuses', () => {
  test.each<[string, () => string, number, RegExp]>([
    ['a target that does not exist', () => '/nowhere/disk.img', 2, /does not exist/],
    ['a directory', () => scratchDir(), 2, /neither a block device nor a file/],
    ['a file that is too small', () => fileOf(1 << 20), 5, /1048576 bytes/],
  ])('%s', (_, target, exitCode, message) => {
    const result = hostctl(['install', 'to-disk', target(), bootableLayout().reference]);
    expectMessage(result, message);
    expect(result.exitCode).toBe(exitCode);
  });

  test('a host that cannot make a verified disk, before it writes a byte', ({ skip }) => {
    const kernel = readFileSync('/proc/filesystems', 'utf8');
    skip(/\bvfat$/m.test(kernel) && existsSync('/sys/fs/ext4/features/verity'), 'this kernel has vfat and fs-verity');
    const target = fileOf(2 ** 30);
    const result = hostctl(['install', 'to-disk', target, bootableLayout().reference]);
    expectMessage(result, /The running kernel has no (vfat|fs-verity).*nothing was written/);
    expect(result.exitCode).toBe(7);
    expect(statSync(target).blocks).toBe(0);
  });
});

function fileOf(bytes: number): string {
  const path = `${scratchDir()}/disk.img`;
  writeFileSync(path, '');
  truncateSync(path, bytes);
  return path;
}

/** A sysroot on a file system of its own. */
function tmpfsSysroot(options: string): Sysroot {
  const path = scratchDir();
  execFileSync('mount', ['-t', 'tmpfs', '-o', `${options},mode=755`, 'hostctl-test', path]);
  onTestFinished(() => {
    execFileSync('umount', [path]);
  });
  mkdirSync(`${path}/boot`);
  return { path, boot: `${path}/boot` };
}

function bytesFree({ bavail, bsize }: StatsFs): number {
  return bavail * bsize;
}

function inodesFree({ ffree }: StatsFs): number {
  return ffree;
}
