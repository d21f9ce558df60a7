/** The tools that look at images, as people run them: `image …` but for mounts, `composefs …`, `fsverity digest`. */

import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { repositoryContent } from '../../src/deploy/materialize.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { readImage } from '../../src/store/images.ts';
import { requireRepository } from '../../src/store/repository.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { bootableLayout } from '../helpers/bootable-layout.ts';
import { factDifferences, factsOfDirectory, factsOfTree } from '../helpers/file-facts.ts';
import { ociLayout } from '../helpers/oci-builder.ts';
import { hostctl, PROGRAM, type ProgramResult } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { snapshot } from '../helpers/snapshot.ts';
import { testHost } from '../helpers/test-host.ts';
import { paxHeader, tarDir, tarEntry, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';

const LARGE = Buffer.alloc(200_000, 'a line of a large file\n');
const MORE = [
  tarFile('boot/left', 'emptied for booting'),
  tarDir('usr/share', { mtime: 1_600_000_000 }),
  tarFile('usr/share/large', LARGE, { mode: 0o4750, uid: 1, gid: 2, mtime: 1_600_000_001 }),
  tarHardlink('usr/share/large-too', 'usr/share/large'),
  Buffer.concat([
    paxHeader({ 'SCHILY.xattr.security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex') }),
    tarFile('usr/share/small', 'small\0bytes\xff', { mtime: 1_600_000_002 }),
  ]),
  tarSymlink('usr/share/link', 'large', { mtime: 1_600_000_003 }),
  tarEntry('usr/share/fifo', { type: '6', mtime: 1_600_000_004 }),
  tarFile('usr/share/new\nline \xff', '', { mtime: 1_600_000_005 }),
];

let folder: string;
let repo: string;
let reference: string;
/** The same image under a reference that was not pulled. */
let elsewhere: string;
let pulled: ProgramResult;
let digest: string;

beforeAll(() => {
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-tools-`);
  chmodSync(folder, 0o755);
  repo = `${folder}/repo`;
  mkdirSync(`${folder}/layout`);
  ({ reference } = bootableLayout({ directory: `${folder}/layout`, more: MORE }));
  cpSync(`${folder}/layout`, `${folder}/elsewhere`, { recursive: true });
  elsewhere = `oci:${folder}/elsewhere`;
  pulled = hostctl(['image', 'pull', reference, '--repo', repo]);
  digest = pulled.stdout.trim();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a command on the repository that must succeed in silence; returns what it printed. */
function output(...args: string[]): string {
  const result = hostctl([...args, '--repo', repo]);
  expect({ ...result, stdout: '' }).toEqual({ exitCode: 0, stdout: '', stderr: '' });
  return result.stdout;
}

function json(...args: string[]): unknown {
  return JSON.parse(output(...args, '--json'));
}

/** One message line with at most a cause and a hint, nothing on stdout, no stack. */
function expectRefused(result: ProgramResult, exitCode: number, message: RegExp): void {
  expect(result.stderr.split('\n')[0]).toMatch(/^hostctl: /);
  expect(result.stderr.split('\n')[0]).toMatch(message);
  expect(result.stderr.trimEnd().split('\n').length).toBeLessThanOrEqual(3);
  expect({ exitCode: result.exitCode, stdout: result.stdout }).toEqual({ exitCode, stdout: '' });
}

/** How a test names the image. */
const NAMINGS: readonly (readonly [string, () => string])[] = [
  ['digest', () => digest],
  ['prefix', () => digest.slice(0, 8)],
  ['name', () => reference],
  ['reference to elsewhere', () => elsewhere],
];

describe('image pull', () => {
  test('prints the digest, warns of a file system without fs-verity, and changes nothing the second time', () => {
    expect(pulled).toEqual({
      exitCode: 0,
      stdout: expect.stringMatching(/^[0-9a-f]{128}\n$/) as string,
      stderr: expect.stringMatching(/^(hostctl: warning: [^\n]*no fs-verity[^\n]*\n)?$/) as string,
    });
    const before = snapshot(repo);
    expect(hostctl(['image', 'pull', reference, '--repo', repo]).stdout).toBe(`${digest}\n`);
    expect(snapshot(repo)).toEqual(before);
  });

  test('says with --json what it stored', () => {
    const { stdout } = hostctl([
      'image',
      'pull',
      reference,
      '--repo',
      `${scratchDir()}/repo`,
      '--hash',
      'sha256',
      '--json',
    ]);
    expect(JSON.parse(stdout)).toMatchObject({
      digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
      parameters: 'v1-sha256-12',
      manifestDigest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as string,
    });
  });
});

describe('image digest', () => {
  test('is that of pull, and needs no repository', () => {
    expect(hostctl(['image', 'digest', reference])).toEqual({ exitCode: 0, stdout: `${digest}\n`, stderr: '' });
    expect(json('image', 'digest', reference)).toMatchObject({ digest });
  });

  test('depends on hash, version and use', () => {
    const options = [[], ['--hash', 'sha256'], ['--composefs-version', '0'], ['--bootable']];
    const digests = options.map((more) => output('image', 'digest', reference, ...more).trim());
    expect(digests.map(({ length }) => length)).toEqual([128, 64, 128, 128]);
    expect(new Set(digests).size).toBe(4);
  });
});

describe('image dump', () => {
  test.each(NAMINGS)('by %s gives the same, from which the same image is made', (_, image) => {
    const dump = output('image', 'dump', image());
    expect(dump.split('\n').slice(0, 2)).toEqual([
      expect.stringMatching(/^\/ \d+ 40755 \d+ 0 0 0 0\.0 - - -$/),
      expect.stringMatching(/^\/boot /),
    ]);
    const out = `${scratchDir()}/image`;
    const made = createFromDump('-', out, ['--hash', 'sha512'], dump);
    expect(made).toEqual({ exitCode: 0, stdout: `${digest}\n`, stderr: '' });
    expect(readFileSync(out).equals(readFileSync(`${repo}/images/${digest}`))).toBe(true);
  });
});

/** Runs `composefs create --from-dump` with `dump` on stdin. */
function createFromDump(source: string, out: string, more: string[], dump: string): ProgramResult {
  const args = [PROGRAM, 'composefs', 'create', '--from-dump', source, out, ...more];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { input: dump, encoding: 'utf8' });
  return { exitCode: status, stdout, stderr };
}

describe('image ls', () => {
  const inShare = (object: string): string[] => [
    '/usr/share/fifo (fifo)',
    `/usr/share/large @ ${object}`,
    `/usr/share/large-too @ ${object}`,
    '/usr/share/link -> large',
    '/usr/share/new\\x0aline \\xff',
    '/usr/share/small',
  ];

  test.each(NAMINGS)('by %s lists a directory', (_, image) => {
    const lines = output('image', 'ls', image(), '/usr/share').trimEnd().split('\n');
    const object = output('fsverity', 'digest', '--hash', 'sha512', largeFile()).trim();
    expect(lines).toEqual(inShare(`${object.slice(0, 2)}/${object.slice(2)}`));
  });

  test('takes the root when no path is given, a file alone, and everything below with -R', () => {
    const root = [
      '/boot/',
      '/dev/',
      '/etc/',
      '/proc/',
      '/root/',
      '/run/',
      '/sys/',
      '/sysroot/',
      '/tmp/',
      '/usr/',
      '/var/',
    ];
    expect(output('image', 'ls', digest)).toBe(root.map((line) => `${line}\n`).join(''));
    expect(output('image', 'ls', digest, 'usr/share/small')).toBe('/usr/share/small\n');
    expect(output('image', 'ls', digest, '-R', '/var')).toBe('/var/\n/var/lib/\n/var/lib/shipped\n');
  });

  test('gives objects to machines', () => {
    expect(json('image', 'ls', digest, '/usr/share')).toMatchObject([
      { path: '/usr/share/fifo', kind: 'fifo' },
      {
        path: '/usr/share/large',
        kind: 'file',
        object: expect.stringMatching(/^[0-9a-f]{2}\/[0-9a-f]{126}$/) as string,
      },
      { path: '/usr/share/large-too', kind: 'file' },
      { path: '/usr/share/link', kind: 'symlink', target: 'large' },
      { path: '/usr/share/new\\x0aline \\xff', kind: 'file' },
      { path: '/usr/share/small', kind: 'file' },
    ]);
  });
});

function largeFile(): string {
  const path = `${scratchDir()}/large`;
  writeFileSync(path, LARGE);
  return path;
}

describe('image cat', () => {
  test.each(NAMINGS)('by %s prints bytes from the image, from an object, and of a hard link', (_, image) => {
    const bytes = (path: string): Buffer =>
      execFileSync(process.execPath, [PROGRAM, 'image', 'cat', image(), path, '--repo', repo], { maxBuffer: 1 << 28 });
    expect(bytes('/usr/share/small')).toEqual(Buffer.from('small\0bytes\xff', 'latin1'));
    expect(bytes('usr/share/large').equals(LARGE)).toBe(true);
    expect(bytes('/usr/share/large-too').equals(LARGE)).toBe(true);
  });
});

describe('image export', () => {
  test.each(NAMINGS.slice(0, 3))('by %s gives a tar archive from which the same image is made', (_, image) => {
    const words = [PROGRAM, 'image', 'export', image(), '--repo', repo];
    const archive = execFileSync(process.execPath, words, { maxBuffer: 1 << 28 });
    const made = ociLayout(scratchDir(), { layers: [{ tar: archive, compression: 'none' }] });
    expect(output('image', 'digest', `oci:${made.directory}`)).toBe(`${digest}\n`);
  });

  test('is whole for a reader that takes its time', () => {
    const own = `${scratchDir()}/repo`;
    const large = Buffer.from(Array.from({ length: 1_000_000 }, (_, at) => String(at)).join('\n'));
    const more = [tarFile('usr/share/large', large)];
    const { stdout } = hostctl(['image', 'pull', bootableLayout({ more }).reference, '--repo', own]);
    const archive = execFileSync(
      'sh',
      [
        '-c',
        '"$@" | { sleep 2; cat; }',
        'sh',
        process.execPath,
        PROGRAM,
        'image',
        'export',
        stdout.trim(),
        '--repo',
        own,
      ],
      { maxBuffer: 1 << 28 },
    );
    const made = ociLayout(scratchDir(), { layers: [{ tar: archive, compression: 'none' }] });
    expect(output('image', 'digest', `oci:${made.directory}`)).toBe(stdout);
  });

  test('is unpacked by GNU tar as what it is', () => {
    const directory = scratchDir();
    const script = 'set -o pipefail; "$@" | tar -x -p --xattrs --xattrs-include="*" --numeric-owner -C "$0"';
    const words = [process.execPath, PROGRAM, 'image', 'export', digest, '--repo', repo];
    execFileSync('bash', ['-c', script, directory, ...words]);
    const host = testHost();
    const repository = requireRepository(host, repo);
    const tree = readComposefsImage(readImage(repository, digest as VerityDigest));
    const shown = factsOfDirectory(directory, (path) => host.syscalls.listXattrs(path));
    expect(factDifferences(shown, factsOfTree(tree, repositoryContent(repository)))).toEqual([]);
  });
});

describe('image inspect', () => {
  test.each(NAMINGS.slice(0, 3))('by %s tells how the image was made', (_, image) => {
    const expected = {
      digest,
      parameters: 'v1-sha512-12',
      xattrs: 'allowlist-only',
      bootable: false,
      layout: 'flat',
      imageBytes: readFileSync(`${repo}/images/${digest}`).length,
      objects: { count: expect.any(Number) as number, bytes: expect.any(Number) as number },
      owners: { names: [reference], deployments: [], bound: [], mounts: [], over: [], others: [] },
    };
    expect(json('image', 'inspect', image())).toEqual(expected);
    expect(JSON.parse(output('image', 'inspect', image()))).toEqual(expected);
  });

  test('by reference tells what it leads to', () => {
    expect(json('image', 'inspect', elsewhere)).toMatchObject({
      reference: elsewhere,
      platform: 'linux/amd64',
      labels: { 'containers.bootc': '1', 'org.opencontainers.image.version': '1' },
      layers: [
        { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip' },
        { mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd' },
        { mediaType: 'application/vnd.oci.image.layer.v1.tar' },
      ],
    });
  });
});

describe('image list and image remove', () => {
  test('show and take away names, and the image stays until it is swept', () => {
    const own = ['--repo', `${scratchDir()}/repo`];
    hostctl(['image', 'pull', reference, ...own]);
    hostctl(['image', 'pull', elsewhere, ...own]);
    const list = (): ProgramResult => hostctl(['image', 'list', ...own]);
    expect(list()).toEqual({
      exitCode: 0,
      stdout: expect.stringMatching(
        new RegExp(`^${digest} ${elsewhere}, ${reference} \\([\\d.]+ KiB of its own, 0 bytes shared\\)\\n$`),
      ) as string,
      stderr: '',
    });
    const remove = (name: string): ProgramResult => hostctl(['image', 'remove', name, ...own]);
    expect(remove(reference)).toEqual({
      exitCode: 0,
      stdout: `${digest}\n`,
      stderr: `hostctl: The image stays: ${elsewhere}\n`,
    });
    expect(remove(elsewhere)).toEqual({ exitCode: 0, stdout: `${digest}\n`, stderr: '' });
    expect(list().stdout).toMatch(new RegExp(`^${digest} nothing keeps it \\(`));
    expectRefused(remove(reference), 7, /No image .* has the name/);
  });

  test('say what each image takes alone and with others, and what keeps it', () => {
    const own = `${scratchDir()}/repo`;
    const content = (size: number): Buffer => Buffer.alloc(size, `${size}`);
    const version = (...sizes: number[]): string => {
      const more = sizes.map((size) => tarFile(`usr/share/${size}`, content(size)));
      return bootableLayout({ more }).reference;
    };
    const images = [version(1000, 3000), version(1000, 5000), version(7000)];
    const digests = images.map((image) => hostctl(['image', 'pull', image, '--repo', own]).stdout.trim());
    symlinkSync(`../../${digests[2]}`, `${own}/images/refs/other-tool`);
    const listed = JSON.parse(hostctl(['image', 'list', '--repo', own, '--json']).stdout) as {
      digest: string;
      bytes: { uniqueBytes: number; sharedBytes: number };
    }[];
    const sizes = new Map(listed.map(({ digest: of, bytes }) => [of, bytes]));
    const imageBytes = (of: string): number => readFileSync(`${own}/images/${of}`).length;
    const base = sizes.get(digests[2]!)!.sharedBytes;
    expect(base).toBeGreaterThan(15_000);
    expect(digests.map((of) => sizes.get(of))).toEqual([
      { uniqueBytes: imageBytes(digests[0]!) + 3000, sharedBytes: base + 1000 },
      { uniqueBytes: imageBytes(digests[1]!) + 5000, sharedBytes: base + 1000 },
      { uniqueBytes: imageBytes(digests[2]!) + 7000, sharedBytes: base },
    ]);
    expect(listed.find(({ digest: of }) => of === digests[2])).toMatchObject({
      names: [images[2]],
      others: ['other-tool'],
    });
    const damaged = `${own}/objects/${digests[0]!.slice(0, 2)}/${digests[0]!.slice(2)}`;
    rmSync(damaged);
    writeFileSync(damaged, 'damaged');
    const after = hostctl(['image', 'list', '--repo', own]);
    expect(after).toMatchObject({
      exitCode: 0,
      stderr: expect.stringMatching(/^hostctl: warning: .*damaged/) as string,
    });
    expect(after.stdout).toMatch(new RegExp(`^${digests[0]} ${images[0]} \\(unreadable\\)$`, 'm'));
  });
});

describe('composefs', () => {
  test('create from a directory stores what the image needs, and the others tell', () => {
    const directory = scratchDir();
    const [source, store, out] = ['source', 'store', 'image'].map((name) => `${directory}/${name}`) as [
      string,
      string,
      string,
    ];
    mkdirSync(source, { mode: 0o755 });
    writeFileSync(`${source}/large`, LARGE);
    writeFileSync(`${source}/small`, 'small');
    symlinkSync('large', `${source}/link`);
    const made = output('composefs', 'create', source, out, '--digest-store', store);
    expect(made).toBe(output('fsverity', 'digest', out));
    const object = output('fsverity', 'digest', `${source}/large`).trim();
    const path = `${object.slice(0, 2)}/${object.slice(2)}`;
    expect(readFileSync(`${store}/${path}`).equals(LARGE)).toBe(true);

    expect(output('composefs', 'ls', out)).toBe(`/\n/large @ ${path}\n/link -> large\n/small\n`);
    expect(json('composefs', 'ls', out)).toEqual([
      { path: '/', kind: 'directory' },
      { path: '/large', kind: 'file', object: path },
      { path: '/link', kind: 'symlink', target: 'large' },
      { path: '/small', kind: 'file' },
    ]);
    expect(output('composefs', 'objects', out)).toBe(`${path}\n`);
    expect(json('composefs', 'objects', out)).toEqual([path]);
    expect(output('composefs', 'missing-objects', out, '--digest-store', store)).toBe('');
    rmSync(`${store}/${path}`);
    expect(output('composefs', 'missing-objects', out, '--digest-store', store)).toBe(`${path}\n`);
    expect(json('composefs', 'missing-objects', out, '--digest-store', store)).toEqual([path]);

    const dump = output('composefs', 'dump', out);
    expect(dump.split('\n').map((line) => line.split(' ')[0])).toEqual(['/', '/large', '/link', '/small', '']);
    const again = `${directory}/again`;
    writeFileSync(`${directory}/dump`, dump);
    expect(output('composefs', 'create', '--from-dump', `${directory}/dump`, again)).toBe(made);
    expect(readFileSync(again).equals(readFileSync(out))).toBe(true);
    expect(output('composefs', 'inspect', out)).toMatch(/^00000000 /);
  });

  test.each([
    ['sha512', 128, '0'],
    ['sha256', 64, '1'],
  ])('create takes %s', (hash, digits, version) => {
    const out = `${scratchDir()}/image`;
    const args = ['composefs', 'create', scratchDir(), out, '--hash', hash, '--composefs-version', version];
    const result = JSON.parse(output(...args, '--json')) as { digest: string; hash: string };
    expect(result).toEqual({ digest: output('fsverity', 'digest', '--hash', hash, out).trim(), hash });
    expect(result.digest).toHaveLength(digits);
  });

  test.each<[string, string, RegExp]>([
    ['a line with too few fields', '/ 0 40755\n', /line 1/i],
    ['a number that is none', '/ 0 40755 1 0 0 0 0.0 - - -\n/a x 100644 1 0 0 0 0.0 - - -\n', /line 2/i],
    ['nothing at all', '', /empty|no root|dump/i],
  ])('create refuses a dump with %s and leaves nothing', (_, dump, message) => {
    const out = `${scratchDir()}/image`;
    expectRefused(createFromDump('-', out, [], dump), 7, message);
    expect(existsSync(out)).toBe(false);
  });
});

describe('image compare', () => {
  test('exits 0 where the trees are the same, 3 where they differ, and 7 where there is nothing to compare', () => {
    expect(output('image', 'compare', reference, digest)).toMatch(
      /^A {2}oci:.*\n {3}v1-sha512-12:(\w+)\nB {2}\w+\n {3}v1-sha512-12:\1\nThe same\n$/,
    );
    const { reference: other } = bootableLayout({ more: [...MORE, tarFile('usr/share/small', 'another')] });
    const result = hostctl(['image', 'compare', reference, other, '--repo', repo, '--json']);
    expect(result).toMatchObject({
      exitCode: 3,
      stderr: expect.stringContaining('stands in the layer twice') as string,
    });
    expect(
      (JSON.parse(result.stdout) as { differences: { path: string }[] }).differences.map(({ path }) => path),
    ).toEqual(['/usr/share/small']);
    expectRefused(hostctl(['image', 'compare', reference, 'dump:/nowhere']), 7, /nowhere/);
    expectRefused(hostctl(['image', 'compare', reference, '/dev/null']), 7, /composefs header/);
  });
});

describe('fsverity digest', () => {
  test('prints one digest a file', () => {
    const directory = scratchDir();
    writeFileSync(`${directory}/empty`, '');
    // Of an empty file every descriptor is the same: a constant of the format.
    const empty = '3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95';
    expect(output('fsverity', 'digest', `${directory}/empty`, `${directory}/empty`)).toBe(`${empty}\n${empty}\n`);
    expect(json('fsverity', 'digest', `${directory}/empty`)).toEqual([{ file: `${directory}/empty`, digest: empty }]);
  });
});

describe('refused is', () => {
  const unknown = 'f'.repeat(128);
  const garbage = (): string => {
    const path = `${scratchDir()}/garbage`;
    writeFileSync(path, Buffer.alloc(8192, 'garbage'));
    return path;
  };
  test.each<[string, () => string[], number, RegExp]>([
    ['no verb of image', () => ['image'], 2, /Name a verb/],
    ['an unknown verb of composefs', () => ['composefs', 'eat'], 2, /eat|did you mean/],
    ['a missing image', () => ['image', 'dump'], 2, /Too few arguments/],
    ['a missing option', () => ['composefs', 'missing-objects', garbage()], 2, /digest-store/],
    ['an unknown hash', () => ['fsverity', 'digest', '--hash', 'md5', garbage()], 2, /md5/],
    ['an unknown digest to dump', () => ['image', 'dump', unknown], 7, /There is no image "f{128}"/],
    ['an unknown digest to ls', () => ['image', 'ls', unknown], 7, /There is no image/],
    ['an unknown digest to cat', () => ['image', 'cat', unknown, '/etc/motd'], 7, /There is no image/],
    ['an unknown digest to export', () => ['image', 'export', unknown], 7, /There is no image/],
    ['a reference to elsewhere to export', () => ['image', 'export', elsewhere], 7, /There is no image/],
    ['an unknown digest to inspect', () => ['image', 'inspect', unknown], 7, /There is no image/],
    ['a prefix that is too short', () => ['image', 'ls', digest.slice(0, 7)], 7, /There is no image/],
    ['an unknown name to remove', () => ['image', 'remove', 'oci:/nowhere'], 7, /No image .* "oci:\/nowhere"/],
    ['a reference that leads nowhere', () => ['image', 'dump', 'oci:/nowhere'], 7, /nowhere/],
    ['what is no reference', () => ['image', 'digest', 'oci:'], 2, /oci:/],
    ['a path that is not there', () => ['image', 'ls', digest, '/nope'], 7, /There is no "\/nope"/],
    ['a path that leaves the image', () => ['image', 'cat', digest, '/../etc/passwd'], 7, /There is no/],
    ['a directory to cat', () => ['image', 'cat', digest, '/usr'], 7, /"\/usr" is a directory/],
    ['a symlink to cat', () => ['image', 'cat', digest, '/usr/share/link'], 7, /is a symlink/],
    ['an image file that is not there', () => ['composefs', 'dump', '/nowhere/image'], 7, /\/nowhere\/image/],
    ['a directory as image file', () => ['composefs', 'ls', scratchDir()], 7, /directory/i],
    ['an image file that is none', () => ['composefs', 'objects', garbage()], 7, /magic/i],
    ['an image file to inspect that is none', () => ['composefs', 'inspect', garbage()], 7, /magic/i],
    ['an empty image file', () => ['composefs', 'dump', '/dev/null'], 7, /./],
    ['a source that is not there', () => ['composefs', 'create', '/nowhere', `${scratchDir()}/x`], 7, /\/nowhere/],
    ['a source that is no directory', () => ['composefs', 'create', garbage(), `${scratchDir()}/x`], 7, /garbage/],
    ['an output nowhere', () => ['composefs', 'create', scratchDir(), '/nowhere/x'], 7, /\/nowhere/],
    ['a file to digest that is not there', () => ['fsverity', 'digest', '/nowhere/file'], 7, /\/nowhere\/file/],
    ['a directory to digest', () => ['fsverity', 'digest', scratchDir()], 7, /directory/i],
  ])('%s', (_, args, exitCode, message) => {
    expectRefused(hostctl([...args(), '--repo', repo]), exitCode, message);
  });

  test('a repository that does not exist, and it is not made', () => {
    const path = `${scratchDir()}/repo`;
    for (const args of [['list'], ['dump', digest], ['remove', reference]]) {
      expectRefused(hostctl(['image', ...args, '--repo', path]), 7, new RegExp(path));
    }
    expect(existsSync(path)).toBe(false);
  });

  test('a prefix of several images', () => {
    const own = `${scratchDir()}/repo`;
    hostctl(['image', 'pull', reference, '--repo', own]);
    symlinkSync('../objects/00/00', `${own}/images/${digest.slice(0, 20)}${'0'.repeat(108)}`);
    expectRefused(hostctl(['image', 'ls', digest.slice(0, 20), '--repo', own]), 2, /fits 2 images/);
    expect(hostctl(['image', 'ls', digest, '--repo', own]).exitCode).toBe(0);
  });

  test.each(['dump', 'ls', 'inspect'])('an image with another content, by %s', (verb) => {
    const own = `${scratchDir()}/repo`;
    hostctl(['image', 'pull', reference, '--repo', own]);
    const image = readFileSync(`${own}/images/${digest}`);
    image[2000]! ^= 1;
    const object = `${own}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    rmSync(object);
    writeFileSync(object, image);
    expectRefused(hostctl(['image', verb, digest, '--repo', own]), 9, /damaged/);
  });

  test('an error with --json is one document', () => {
    const { stderr } = hostctl(['image', 'ls', unknown, '--json', '--repo', repo]);
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'image-not-found', causes: [] } });
  });
});

describe('a reader that goes away', () => {
  test.each([
    ['image dump', () => ['image', 'dump', digest], 1],
    ['image ls', () => ['image', 'ls', '-R', digest], 1],
    ['image cat', () => ['image', 'cat', digest, '/usr/share/large'], 1],
    ['image export', () => ['image', 'export', digest], 1],
    ['image list', () => ['image', 'list', '--json'], 0],
    ['composefs inspect', () => ['composefs', 'inspect', `${repo}/images/${digest}`], 1],
  ])('ends %s quietly', (_, args, lines) => {
    const script = `set -o pipefail; "$@" | head -n ${lines}`;
    const words = [process.execPath, PROGRAM, ...args(), '--repo', repo];
    const { status, stdout, stderr } = spawnSync('bash', ['-c', script, 'bash', ...words], { encoding: 'utf8' });
    expect({ status, stderr, lines: stdout.split('\n').length - 1 }).toEqual({ status: 0, stderr: '', lines });
  });
});

test('a user without privileges uses all of it on a repository of his own', () => {
  const nobody = 65534;
  const prefix = ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups'];
  const home = scratchDir();
  chownSync(home, nobody, nobody);
  const own = ['--repo', `${home}/repo`];
  const as = (...args: string[]): ProgramResult => hostctl([...args, ...own], prefix);
  const quiet = (stdout: unknown): unknown => ({ exitCode: 0, stdout, stderr: '' });
  expect(as('image', 'pull', reference)).toMatchObject({ exitCode: 0, stdout: `${digest}\n` });
  expect(as('image', 'digest', reference)).toEqual(quiet(`${digest}\n`));
  expect(as('image', 'list')).toEqual(quiet(expect.stringMatching(`^${digest} ${reference} `)));
  expect(as('image', 'dump', digest)).toEqual(quiet(output('image', 'dump', digest)));
  expect(as('image', 'ls', digest)).toEqual(quiet(output('image', 'ls', digest)));
  expect(as('image', 'cat', digest, '/etc/hostname')).toEqual(quiet('example\n'));
  expect(as('image', 'export', digest)).toEqual(quiet(output('image', 'export', digest)));
  expect(as('image', 'inspect', digest)).toMatchObject({ exitCode: 0, stderr: '' });
  expect(as('image', 'remove', reference)).toEqual(quiet(`${digest}\n`));
  mkdirSync(`${home}/source`);
  writeFileSync(`${home}/source/large`, LARGE);
  chmodSync(`${home}/source`, 0o755);
  const image = `${home}/image`;
  expect(as('composefs', 'create', `${home}/source`, image, '--digest-store', `${home}/store`)).toMatchObject({
    exitCode: 0,
    stderr: '',
  });
  expect(as('composefs', 'missing-objects', image, '--digest-store', `${home}/store`)).toEqual(quiet(''));
  expect(as('composefs', 'dump', image)).toMatchObject({ exitCode: 0, stderr: '' });
  mkdirSync(`${home}/mounted`);
  expectRefused(as('image', 'mount', digest, `${home}/mounted`), 10, /Only root can mount/);
  expectRefused(as('image', 'umount', `${home}/mounted`), 10, /Only root can unmount/);
});
