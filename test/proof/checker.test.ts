/** The checker must be able to say BAD: every part of a deployment is spoilt in turn. */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkHost, type Expectation, repositoryImages } from './checker/check.ts';
import { fatFiles } from './checker/fat.ts';
import { mountedFiles } from './checker/mounted.ts';
import { verityHex } from './checker/verity.ts';
import { peFile } from '../helpers/pe-builder.ts';
import { buildDeployment, type BuiltDeployment, IMAGE_FILES } from './lib/host-builder.ts';

let scratch = '';
let root = '';
let boot = '';
let old: BuiltDeployment;
let next: BuiltDeployment;
let expected: Expectation;

beforeEach(() => {
  scratch = mkdtempSync(`${tmpdir()}/checker-`);
  root = `${scratch}/root`;
  boot = `${scratch}/boot`;
  mkdirSync(root);
  mkdirSync(boot);
  old = buildDeployment(root, boot, 1);
  next = buildDeployment(root, boot, 2, { ...IMAGE_FILES, 'usr/bin/tool': 'newer '.repeat(2000) });
  expected = { old: old.options, new: next.options };
});

afterEach(() => {
  rmSync(scratch, { recursive: true });
});

function check(): ReturnType<typeof checkHost> {
  return checkHost({ boot: mountedFiles(boot), bootDir: '', root: mountedFiles(root) }, expected);
}

/** Has the new deployment boot by a unified kernel image with an add-on; the entry says what they boot by. */
function unify(addonOptions: string, entryOptions = `${next.options} ${addonOptions}`): void {
  const files = {
    'uki.efi': peFile([{ name: '.cmdline', content: `${next.options}\0` }]),
    'uki.efi.extra.d/a.addon.efi': peFile([{ name: '.cmdline', content: addonOptions }]),
  };
  const sha256 = (bytes: string | Buffer): Buffer => createHash('sha256').update(bytes).digest();
  const [uki, addon] = Object.values(files) as [Buffer, Buffer];
  const directory = `hostctl/${sha256(Buffer.concat([sha256(uki), sha256('a.addon.efi'), sha256(addon)])).toString('hex')}`;
  mkdirSync(`${boot}/${directory}/uki.efi.extra.d`, { recursive: true });
  for (const [name, bytes] of Object.entries(files)) writeFileSync(`${boot}/${directory}/${name}`, bytes);
  const lines = ['sort-key hostctl', 'version 2', `efi /${directory}/uki.efi`, `x-hostctl-options ${entryOptions}`, ''];
  writeFileSync(`${boot}/${next.entryPath}`, lines.join('\n'));
  expected = { ...expected, new: entryOptions };
}

describe('a host with a unified kernel image', () => {
  const program = (): string => readFileSync(`${boot}/${next.entryPath}`, 'utf8').match(/^efi (.*)$/m)?.[1] ?? '';

  test('boots by it', () => {
    unify('proof=1');
    expect(check()).toMatchObject({ answer: 'NEW', broken: new Map(), options: `${next.options} proof=1` });
  });

  test.each([
    ['is missing', (path: string) => unlinkSync(path), /uki.efi is missing/],
    ['is cut', (path: string) => writeFileSync(path, readFileSync(path).subarray(0, 100)), /uki.efi hashes to/],
    ['lacks an add-on', (path: string) => rmSync(`${path}.extra.d`, { recursive: true }), /uki.efi hashes to/],
  ])('is BAD when it %s', (_, spoil, reason) => {
    unify('proof=1');
    spoil(`${boot}${program()}`);
    const { answer, reason: found } = check();
    expect(answer).toBe('BAD');
    expect(found).toMatch(reason);
  });

  test('is BAD when it boots by other arguments than its entry says', () => {
    unify('proof=1', `${next.options} proof=2`);
    expect(check()).toMatchObject({ answer: 'BAD', reason: expect.stringContaining('proof=1"') as string });
  });
});

describe('a whole host', () => {
  test('with both entries boots the new one', () => {
    expect(check()).toEqual({
      answer: 'NEW',
      good: ['hostctl-00000001.conf', 'hostctl-00000002.conf'],
      goodStates: new Set([old.digest, next.digest]),
      broken: new Map(),
      options: next.options,
    });
  });

  test('without the new entry boots the old one', () => {
    unlinkSync(`${boot}/${next.entryPath}`);
    expect(check().answer).toBe('OLD');
  });

  test('whose new entry is not named yet boots the old one', () => {
    renameSync(`${boot}/${next.entryPath}`, `${boot}/${next.entryPath}.tmp`);
    expect(check().answer).toBe('OLD');
  });

  test('whose new entry is used up boots the old one', () => {
    renameSync(`${boot}/${next.entryPath}`, `${boot}/loader/entries/hostctl-00000002+0-3.conf`);
    expect(check()).toMatchObject({ answer: 'OLD', good: ['hostctl-00000001.conf'] });
  });

  test('of another system beside ours is not judged by it', () => {
    writeFileSync(`${boot}/loader/entries/aaa.conf`, 'title Other\nlinux /vmlinuz\n');
    expect(check().answer).toBe('NEW');
  });

  test('with a boot directory on the root file system is read there', () => {
    const inRoot = `${root}/boot`;
    renameSync(boot, inRoot);
    const entry = readFileSync(`${inRoot}/${next.entryPath}`, 'utf8');
    writeFileSync(`${inRoot}/${next.entryPath}`, entry.replaceAll(' /hostctl/', ' /boot/hostctl/'));
    const files = mountedFiles(root);
    const report = checkHost({ boot: files, bootDir: 'boot', root: files }, expected);
    expect(report).toMatchObject({ answer: 'NEW', good: ['hostctl-00000002.conf'] });
    expect([...report.broken.keys()]).toEqual(['hostctl-00000001.conf']);
  });

  test('with a local change in /etc that was carried over is whole', () => {
    for (const { digest } of [old, next]) writeFileSync(`${root}/state/deploy/${digest}/etc/hostname`, 'mine');
    expect(check().answer).toBe('NEW');
  });
});

function flip(path: string, at = 100): void {
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  writeFileSync(path, bytes);
}

describe('the default is BAD when', () => {
  const cases: [string, () => void, RegExp][] = [
    ['its kernel is missing', () => unlinkSync(`${boot}/${next.kernelDirectory}/linux`), /linux is missing/],
    ['its initrd is missing', () => unlinkSync(`${boot}/${next.kernelDirectory}/initrd`), /initrd is missing/],
    ['its kernel has a flipped bit', () => flip(`${boot}/${next.kernelDirectory}/linux`), /hash to/],
    ['its initrd is cut', () => writeFileSync(`${boot}/${next.kernelDirectory}/initrd`, 'x'), /hash to/],
    ['its image link is missing', () => unlinkSync(`${root}/composefs/images/${next.digest}`), /link .* is missing/],
    ['its image is missing', () => unlinkSync(`${root}/${next.objects[0] ?? ''}`), /object .* is missing/],
    ['its image has a flipped bit', () => flip(`${root}/${next.objects[0] ?? ''}`, 5000), /has digest/],
    ['an object is missing', () => unlinkSync(`${root}/${next.objects[1] ?? ''}`), /usr\/bin\/tool: object/],
    ['an object has a flipped bit', () => flip(`${root}/${next.objects[1] ?? ''}`), /has digest/],
    ['an object is empty', () => writeFileSync(`${root}/${next.objects[1] ?? ''}`, ''), /has digest/],
    ['an object has one byte more', () => appendFileSync(`${root}/${next.objects[1] ?? ''}`, 'x'), /has digest/],
    ['its state is missing', () => rmSync(`${root}/state/deploy/${next.digest}`, { recursive: true }), /is missing/],
    [
      'its /etc lacks a file',
      () => unlinkSync(`${root}/state/deploy/${next.digest}/etc/hostname`),
      /etc\/hostname is missing/,
    ],
    [
      'its /etc has an empty file',
      () => writeFileSync(`${root}/state/deploy/${next.digest}/etc/long.conf`, ''),
      /long.conf differs/,
    ],
    ['its /var is missing', () => unlinkSync(`${root}/state/deploy/${next.digest}/var`), /var is not a link/],
    ['the shared /var is missing', () => rmSync(`${root}/state/os`, { recursive: true }), /default\/var is missing/],
    [
      'its origin is missing',
      () => unlinkSync(`${root}/state/deploy/${next.digest}/${next.digest}.origin`),
      /origin is missing/,
    ],
    [
      'its origin is empty',
      () => writeFileSync(`${root}/state/deploy/${next.digest}/${next.digest}.origin`, ''),
      /origin is garbled/,
    ],
    [
      'it has another command line',
      () => writeFileSync(`${boot}/${next.entryPath}`, readFileSync(`${boot}/${next.entryPath}`, 'utf8') + 'options x'),
      /neither old nor new/,
    ],
    [
      'it is cut after the kernel line',
      () => {
        const text = readFileSync(`${boot}/${next.entryPath}`, 'utf8');
        writeFileSync(`${boot}/${next.entryPath}`, text.slice(0, text.indexOf('initrd')));
      },
      /neither old nor new/,
    ],
    [
      'there are no entries',
      () => {
        unlinkSync(`${boot}/${next.entryPath}`);
        unlinkSync(`${boot}/${old.entryPath}`);
      },
      /default none/,
    ],
    [
      'loaders disagree',
      () => writeFileSync(`${boot}/loader/entries/zz-9.conf`, 'title Other\nversion 9\nlinux /x\n'),
      /loaders disagree/,
    ],
  ];

  test.each(cases)('%s', (_, spoil, reason) => {
    spoil();
    const report = check();
    expect(report.answer).toBe('BAD');
    expect(report.reason).toMatch(reason);
  });
});

test('an entry that is not the default and broken is told, without being BAD', () => {
  unlinkSync(`${boot}/${old.kernelDirectory}/linux`);
  const report = check();
  expect(report).toMatchObject({ answer: 'NEW', good: ['hostctl-00000002.conf'] });
  expect([...report.broken.keys()]).toEqual(['hostctl-00000001.conf']);
});

test('an image that a repository offers is whole or told', () => {
  const missing = next.objects.at(-1) ?? '';
  unlinkSync(`${root}/${missing}`);
  symlinkSync('../objects/aa/bb', `${root}/composefs/images/${'a'.repeat(64)}`);
  const images = repositoryImages(mountedFiles(root), 'sha256');
  expect([...images.keys()].sort()).toEqual(['a'.repeat(64), old.digest, next.digest].sort());
  expect(images.get('a'.repeat(64))).toMatch(/leads to/);
  expect(images.get(next.digest)).toMatch(/is missing/);
});

describe('fs-verity digests', () => {
  test.each([
    ['sha256', '', '3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95'],
    ['sha256', 'a'.repeat(4097), undefined],
    ['sha512', 'b'.repeat(4096 * 64 + 1), undefined],
  ])('agree with fsverity(1) for %s of a file', (algorithm, text, known) => {
    const path = `${scratch}/file`;
    writeFileSync(path, text);
    const referee = spawnSync('fsverity', ['digest', '--compact', `--hash-alg=${algorithm}`, path], {
      encoding: 'utf8',
    });
    expect(verityHex(algorithm, Buffer.from(text))).toBe(known ?? referee.stdout.trim());
  });
});

describe.each([
  ['12', 4, []],
  ['16', 32, []],
  ['32', 64, ['-s', '1']],
])('a FAT%s partition', (bits, mebibytes, extra) => {
  const files: Record<string, Buffer> = {
    'loader/entries/hostctl-00000001+3-0.conf': Buffer.from('title x\n'),
    'loader/entries/hostctl-00000002+3-0.conf.tmp': Buffer.from('title y\n'),
    'EFI/BOOT/BOOTX64.EFI': Buffer.alloc(70_001, 'e'),
    'short.txt': Buffer.from('lower'),
    'Ünïcode näme with a very long part.conf': Buffer.from('u'),
    'empty.conf': Buffer.alloc(0),
  };

  test('is read as mtools wrote it', () => {
    const image = `${scratch}/fat.img`;
    run('truncate', ['-s', `${mebibytes}M`, image]);
    run('mkfs.vfat', ['-F', bits, ...extra, image]);
    for (const directory of ['loader', 'loader/entries', 'EFI', 'EFI/BOOT'])
      run('mmd', ['-i', image, `::/${directory}`]);
    for (const [path, content] of Object.entries(files)) {
      writeFileSync(`${scratch}/file`, content);
      run('mcopy', ['-i', image, `${scratch}/file`, `::/${path}`]);
    }
    // Many names, so that a directory has more than one cluster; every second one is removed again.
    run('mmd', ['-i', image, '::/many']);
    for (let i = 0; i < 60; i += 1) run('mcopy', ['-i', image, `${scratch}/file`, `::/many/a rather long name ${i}`]);
    for (let i = 0; i < 60; i += 2) run('mdel', ['-i', image, `::/many/a rather long name ${i}`]);

    const fat = fatFiles(readFileSync(image));
    for (const [path, content] of Object.entries(files)) {
      expect([path, fat.kind(path), sha(fat.read(path))]).toEqual([path, 'file', sha(content)]);
    }
    expect(fat.list('')?.sort()).toEqual(
      ['EFI', 'empty.conf', 'loader', 'many', 'short.txt', 'Ünïcode näme with a very long part.conf'].sort(),
    );
    expect(fat.list('LOADER/Entries')).toEqual(['hostctl-00000001+3-0.conf', 'hostctl-00000002+3-0.conf.tmp']);
    expect(fat.list('many')).toHaveLength(30);
    expect([fat.kind('many'), fat.read('many'), fat.kind('absent'), fat.list('short.txt')]).toEqual([
      'directory',
      undefined,
      undefined,
      undefined,
    ]);
  });

  test('with a broken chain is damage, not an endless loop', () => {
    const image = `${scratch}/fat.img`;
    run('truncate', ['-s', `${mebibytes}M`, image]);
    run('mkfs.vfat', ['-F', bits, ...extra, image]);
    writeFileSync(`${scratch}/file`, Buffer.alloc(200_000, 'x'));
    run('mcopy', ['-i', image, `${scratch}/file`, '::/file']);
    const disk = readFileSync(image);
    const reserved = disk.readUInt16LE(14) * disk.readUInt16LE(11);
    const zeroed = Buffer.from(disk);
    // Everything behind the first clusters of the table is free, or leads back to itself.
    zeroed.fill(0, reserved + 24, reserved + 512);
    expect(() => fatFiles(zeroed).read('file')).toThrow(/chain/);
    expect(() => fatFiles(Buffer.alloc(1024))).toThrow(/boot sector/);
  });
});

function sha(bytes: Buffer | undefined): string | undefined {
  return bytes && createHash('sha256').update(bytes).digest('hex');
}

function run(command: string, args: readonly string[]): void {
  const result = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, MTOOLS_SKIP_CHECK: '1', LC_ALL: 'C.UTF-8' },
  });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}`);
}
