import { execFileSync } from 'node:child_process';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { HookSandbox, type HookRun, type Measured, reasonNoHook } from '../helpers/hook-sandbox.ts';

const reason = reasonNoHook();
if (reason !== undefined) console.error(`Skipping the root hook's tests: ${reason}`);

let sandbox: HookSandbox;
beforeEach(() => {
  if (reason === undefined) sandbox = new HookSandbox();
});
afterEach(() => {
  if (reason === undefined) sandbox.remove();
});

const OTHER = 'ab'.repeat(64);

/** Mounts the hook is responsible for, without those of the sandbox. */
function rootMounts(run: HookRun): string[] {
  return run.mounts.filter((line) => /^\/sysroot|hostctl-root|erofs/.test(line));
}

describe.skipIf(reason !== undefined)('The root hook boots', () => {
  const spellings: [string, (digest: string) => string][] = [
    ['composefs.digest=', (d) => `composefs.digest=v1-sha512-12:${d}`],
    ['composefs=', (d) => `composefs=${d}`],
    ['a quoted value', (d) => `quiet composefs.digest="v1-sha512-12:${d}" rw`],
    ['a quoted argument beside one with blanks', (d) => `foo="composefs= bar" "composefs.digest=v1-sha512-12:${d}"`],
    ['format version 2', (d) => `composefs.digest=v2-sha512-12:${d}`],
    ['tabs and blanks around it', (d) => `\tro   composefs.digest=v1-sha512-12:${d}\t \n`],
    ['an image that is missing before it', (d) => `composefs=${OTHER} composefs=${d}`],
    ['the same image without fs-verity allowed', (d) => `composefs.digest=?v1-sha512-12:${d}`],
    ['other arguments that only look like ours', (d) => `ostree.composefs=1 xcomposefs=2 composefs=${d} composefs.x=3`],
    ['its state directory by name', (d) => `composefs=${d} hostctl.state=${d}`],
  ];
  test.each(spellings)('with %s', (_, cmdline) => {
    const run = sandbox.run(cmdline(sandbox.digest), {
      probes: ['cat /sysroot/usr/marker', 'cat /sysroot/etc/name', 'cat /sysroot/var/kept', 'ls /run'],
    });
    expect({ stderr: run.stderr, status: run.status }).toEqual({ stderr: '', status: 0 });
    expect(run.probes).toEqual([
      'from the image\n',
      `${sandbox.digest}\n`,
      'var\n',
      expect.stringContaining('systemd'),
    ]);
    expect(run.probes[3]).not.toContain('hostctl-root');
  });

  test('into exactly four mounts, with verity required and nothing of its own left over', () => {
    const run = sandbox.run(`composefs=${sandbox.digest}`);
    const source = rootMounts(run)[0]?.split(' ')[2];
    expect(rootMounts(run)).toEqual([
      `/sysroot/sysroot ext4 ${source} ro,relatime`,
      `/sysroot overlay composefs:${sandbox.digest} ro,relatime`,
      `/sysroot/etc ext4 ${source} rw,relatime`,
      `/sysroot/var ext4 ${source} rw,relatime`,
    ]);
    expect(run.overlayOptions).toContain('verity=require');
  });

  test('with the state directory that hostctl.state= names', () => {
    sandbox.addDeployment(`${sandbox.digest}.17`);
    const run = sandbox.run(`composefs=${sandbox.digest} hostctl.state=${sandbox.digest}.17`, {
      probes: ['cat /sysroot/etc/name'],
    });
    expect(run.probes).toEqual([`${sandbox.digest}.17\n`]);
  });

  test('leaving only /etc and /var writable, also where the physical root was mounted read-only', () => {
    const probes = ['etc', 'var', 'usr', 'sysroot'].map((name) => `touch /sysroot/${name}/new && echo written`);
    const run = sandbox.run(`composefs=${sandbox.digest}`, { readOnly: true, probes });
    expect(run.probes.map((answer) => answer.includes('written'))).toEqual([true, true, false, false]);
  });

  test('and links the disk for the generators of the real root', () => {
    const run = sandbox.run(`composefs=${sandbox.digest}`, {
      probes: ['readlink /run/systemd/volatile-root', 'findmnt -n -o SOURCE /sysroot/sysroot | cut -d "[" -f 1'],
    });
    const numbers = execFileSync('lsblk', ['-n', '-d', '-o', 'MAJ:MIN', run.probes[1]?.trim() ?? '']);
    expect(run.probes[0]?.trim()).toBe(`/dev/block/${numbers.toString().trim()}`);
  });

  test('by a loop device where the kernel cannot mount a file, and leaves none behind', () => {
    const run = sandbox.run(`composefs=${sandbox.digest}`, { noFileMounts: true, probes: ['cat /sysroot/usr/marker'] });
    expect(run.stderr).toBe('');
    expect(run.probes).toEqual(['from the image\n']);
    const devices = execFileSync('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']).toString();
    expect(devices).not.toContain(sandbox.objectPath);
  });

  test('a sha256 image', () => {
    sandbox.remove();
    sandbox = new HookSandbox('sha256');
    expect(sandbox.run(`composefs.digest=v1-sha256-12:${sandbox.digest}`).status).toBe(0);
    expect(sandbox.run(`composefs=${sandbox.digest}`).status).toBe(0);
  });

  test('without fs-verity where "?" allows it, and says so loudly', () => {
    const run = sandbox.run(`composefs.digest=?v1-sha512-12:${sandbox.digest}`, { measured: 'none' });
    expect(run.status).toBe(0);
    expect(run.stderr).toMatch(/^hostctl: WARNING: .*NOT VERIFIED\n$/);
    // Off is the kernel's default, which it does not show.
    expect(run.overlayOptions).not.toContain('verity');
  });
});

interface Refusal {
  readonly name: string;
  readonly cmdline?: (digest: string) => string;
  readonly measured?: Measured;
  readonly before?: () => void;
  readonly reason: string;
  readonly message: RegExp;
  /** Digest in the record's name, where it is not the sandbox's. */
  readonly recorded?: string;
}

const inRepository = (path: string): string => join(sandbox.physical, 'composefs', path);
const inState = (path: string): string => join(sandbox.physical, 'state', path);
const imageLink = (): string => inRepository(`images/${sandbox.digest}`);
const object = (): string => inRepository(`objects/${sandbox.objectPath}`);
const deployment = (path: string): string => inState(`deploy/${sandbox.digest}/${path}`);
const link = (target: string, path: string): void => {
  rmSync(path, { recursive: true });
  symlinkSync(target, path);
};

const refusals: Refusal[] = [
  // The command line.
  {
    name: 'a command line without a digest',
    cmdline: () => 'quiet rw',
    reason: 'cmdline-invalid',
    message: /names no composefs digest/,
    recorded: 'unknown',
  },
  {
    name: 'an argument without a value',
    cmdline: () => 'composefs',
    reason: 'cmdline-invalid',
    message: /has no digest/,
    recorded: 'unknown',
  },
  {
    name: 'a digest that is too short',
    cmdline: (d) => `composefs.digest=v1-sha512-12:${d.slice(1)}`,
    reason: 'cmdline-invalid',
    message: /has the wrong form/,
    recorded: 'unknown',
  },
  {
    name: 'a digest of the other hash',
    cmdline: (d) => `composefs.digest=v1-sha256-12:${d}`,
    reason: 'cmdline-invalid',
    message: /has the wrong form/,
    recorded: 'unknown',
  },
  {
    name: 'capital digits',
    cmdline: (d) => `composefs=${d.slice(0, 126)}AB`,
    reason: 'cmdline-invalid',
    message: /not lower-case hexadecimal/,
    recorded: 'unknown',
  },
  {
    name: 'a path in place of a digest',
    cmdline: (d) => `composefs=${'../objects/'.repeat(4)}${d.slice(0, 84)}`,
    reason: 'cmdline-invalid',
    message: /not lower-case hexadecimal/,
    recorded: 'unknown',
  },
  {
    name: 'another block size',
    cmdline: (d) => `composefs.digest=v1-sha512-16:${d}`,
    reason: 'cmdline-invalid',
    message: /Cannot understand/,
    recorded: 'unknown',
  },
  {
    name: 'a second digest that is malformed',
    cmdline: (d) => `composefs=${d} composefs=xyz`,
    reason: 'cmdline-invalid',
    message: /has the wrong form/,
  },
  {
    name: 'a state directory out of its place',
    cmdline: (d) => `composefs=${d} hostctl.state=../${d}`,
    reason: 'cmdline-invalid',
    message: /is not a deployment's/,
  },
  {
    name: 'dots for a state directory',
    cmdline: (d) => `composefs=${d} hostctl.state=..`,
    reason: 'cmdline-invalid',
    message: /does not belong to a digest/,
  },
  {
    name: "another digest's state directory",
    cmdline: (d) => `composefs=${d} hostctl.state=${OTHER}`,
    reason: 'cmdline-invalid',
    message: /does not belong to a digest/,
  },
  {
    name: 'two state directories',
    cmdline: (d) => `composefs=${d} hostctl.state=${d} hostctl.state=${d}.1`,
    reason: 'cmdline-invalid',
    message: /given twice/,
  },
  // The image.
  {
    name: 'an image that is missing',
    before: () => rmSync(imageLink()),
    reason: 'image-missing',
    message: /does not exist in the repository/,
  },
  {
    name: 'an image whose object is missing',
    before: () => rmSync(object()),
    reason: 'image-missing',
    message: /object of image .* does not exist/,
  },
  {
    name: 'an image link to another object',
    before: () => link(`../objects/ab/${'cd'.repeat(63)}`, imageLink()),
    reason: 'image-invalid',
    message: /not to its own object/,
  },
  {
    name: 'an image that is a file in images/ itself',
    before: () => {
      rmSync(imageLink());
      renameSync(object(), imageLink());
    },
    reason: 'image-invalid',
    message: /is not a link to an object/,
  },
  {
    name: 'an image object that is a link',
    before: () => {
      renameSync(object(), `${object()}.real`);
      symlinkSync(`${object()}.real`, object());
    },
    reason: 'image-missing',
    message: /object of image .* does not exist/,
  },
  {
    name: 'an image without fs-verity',
    measured: 'none',
    reason: 'image-unverified',
    message: /has no usable fs-verity: .*No data available/,
  },
  {
    name: 'an image with another digest',
    measured: 'other',
    reason: 'image-mismatch',
    message: /has the digest sha512:0+ instead/,
  },
  {
    name: 'an image with another digest where fs-verity is optional',
    cmdline: (d) => `composefs=?${d}`,
    measured: 'other',
    reason: 'image-mismatch',
    message: /has the digest sha512:0+ instead/,
  },
  {
    name: 'a changed image where fs-verity is optional and missing',
    cmdline: (d) => `composefs=?${d}`,
    measured: 'none',
    before: () => writeFileSync(object(), 'another image'),
    reason: 'image-mismatch',
    message: /has the digest sha512:[0-9a-f]+ instead/,
  },
  {
    name: 'an image that is no EROFS',
    before: () => writeFileSync(object(), Buffer.alloc(8192)),
    reason: 'mount-failed',
    message: /Cannot mount the image/,
  },
  // The deployment's own directories.
  {
    name: 'a missing state directory',
    before: () => rmSync(inState(`deploy/${sandbox.digest}`), { recursive: true }),
    reason: 'state-missing',
    message: /state\/deploy\/[0-9a-f]+ does not exist/,
  },
  {
    name: 'a missing /etc',
    before: () => rmSync(deployment('etc'), { recursive: true }),
    reason: 'state-missing',
    message: /\/etc does not exist/,
  },
  {
    name: 'a link for /etc',
    before: () => link('../../../composefs', deployment('etc')),
    reason: 'state-missing',
    message: /\/etc does not exist/,
  },
  {
    name: 'a missing /var',
    before: () => rmSync(inState('os/default/var'), { recursive: true }),
    reason: 'state-missing',
    message: /for \/var does not exist/,
  },
  {
    name: 'a link for /var that leads out of the physical root',
    before: () => link('/run', deployment('var')),
    reason: 'state-invalid',
    message: /var leads to "\/run"/,
  },
  {
    name: 'a link for /var that only names a stateroot',
    before: () => link('default', deployment('var')),
    reason: 'state-invalid',
    message: /var leads to "default"/,
  },
  {
    name: 'a link for /var with a path in it',
    before: () => link('../../os/../os/var', deployment('var')),
    reason: 'state-invalid',
    message: /var leads to/,
  },
];

describe.skipIf(reason !== undefined)('The root hook refuses', () => {
  test.each(refusals)('$name', (refusal) => {
    const { cmdline = (d: string) => `composefs.digest=v1-sha512-12:${d}` } = refusal;
    refusal.before?.();
    const line = cmdline(sandbox.digest);
    const run = sandbox.run(line, { measured: refusal.measured ?? 'right' });

    expect(run.status).toBe(1);
    expect(run.stderr).toMatch(refusal.message);
    expect(run.stderr.split('\n').filter(Boolean)).toEqual([
      expect.stringMatching(/^hostctl: Refusing to boot: .* \([a-z-]+\)$/),
    ]);
    expect(run.mounts.filter((mount) => mount.includes('overlay composefs'))).toEqual([]);

    const record = sandbox.failure(`boot-failure-${refusal.recorded ?? sandbox.digest}`);
    expect(record.split('\n').map((field) => field.split('=')[0])).toEqual([
      'version',
      'reason',
      'message',
      'digest',
      'state',
      'kernel',
      'boot',
      '',
    ]);
    expect(record).toContain(`\nreason=${refusal.reason}\n`);
    expect(record).toMatch(refusal.message);
  });

  test('an image without the directories it mounts on', () => {
    sandbox.remove();
    sandbox = new HookSandbox('sha512', ['etc', 'var']);
    const run = sandbox.run(`composefs=${sandbox.digest}`);
    expect(run.stderr).toMatch(/has no directory \/sysroot \(image-unsuitable\)/);
  });

  test('an image whose systemd cannot be read, in whose place process 1 would stand still', () => {
    sandbox.remove();
    sandbox = new HookSandbox('sha512', undefined, { 'usr/lib/systemd/systemd/is-a-directory': '' });
    const run = sandbox.run(`composefs=${sandbox.digest}`);
    expect(run.stderr).toMatch(/Cannot read \/usr\/lib\/systemd\/systemd of the image: .+ \(image-unreadable\)/);
    expect(run.status).toBe(1);
  });

  test('and still says why where nothing can be recorded', () => {
    rmSync(inState(''), { recursive: true });
    const run = sandbox.run(`composefs=${sandbox.digest}`);
    expect(run.stderr).toMatch(/state-missing\)\nhostctl: The reason could not be recorded/);
  });

  test('and replaces the record of an earlier failure of the same image', () => {
    mkdirSync(dirname(inState('hostctl/x')), { recursive: true });
    writeFileSync(inState(`hostctl/boot-failure-${sandbox.digest}`), 'old\n');
    sandbox.run(`composefs=${sandbox.digest}`, { measured: 'other' });
    expect(sandbox.failure(`boot-failure-${sandbox.digest}`)).toMatch(/^version=1\nreason=image-mismatch\n/);
  });
});
