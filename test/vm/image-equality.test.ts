/**
 * A real image of seven layers, flattened by `image pull` and unpacked by `umoci unpack`: the two trees are the same but
 * for the documented transform, and so is what the kernel shows of a mount. Nothing is booted.
 *
 * What umoci 0.4.7 does otherwise than the rules, and how it is kept out:
 * - It reads no zstd: it gets the layers as plain tar, under the same diff ids and the same configuration.
 * - It takes markers in the order of the archive: the layers here have them first.
 * - It gives a missing parent directory the time of unpacking: every parent here has an entry.
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildPackage } from '../../scripts/lib/deb.ts';
import { repositoryContent } from '../../src/deploy/materialize.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { inspectImage } from '../../src/ops/image-tools.ts';
import { mountImage, unmountImage } from '../../src/ops/mount-image.ts';
import { pullImage } from '../../src/ops/pull-image.ts';
import { readImage } from '../../src/store/images.ts';
import { requireRepository } from '../../src/store/repository.ts';
import {
  factDifferences,
  factsOfDirectory,
  factsOfTree,
  type FileFact,
  type FileFacts,
} from '../helpers/file-facts.ts';
import { noRestart } from '../helpers/no-restart.ts';
import { missingPrograms } from '../helpers/requires.ts';
import { paxHeader, tar, tarDir, tarEntry, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';
import { writeOciLayout, type Compression } from './lib/oci-layout.ts';
import { reasonNoMachines } from './lib/requirements.ts';
import { testImage } from './lib/test-image.ts';

const say = (line: string): void => console.error(line);
const missing = missingPrograms('umoci');
const reason = missing.length > 0 ? 'umoci is missing' : await reasonNoMachines(say);
if (reason !== undefined) say(`Skipping the comparison with umoci: ${reason}`);

/** cap_net_raw=ep, VFS_CAP_REVISION_2: bytes that are no text. */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex');
const OBJECT = Buffer.alloc(20_000, 'too long to be inlined ');
const at = (mtime: string): Buffer => paxHeader({ mtime });

/** What a layer above a real system does to it. */
const UPPER_LAYERS: readonly (readonly Buffer[])[] = [
  [
    // Removed: a file, a directory with its content, what is not there.
    tarFile('usr/share/common-licenses/.wh.GPL-3'),
    tarFile('usr/share/.wh.pam-configs'),
    tarFile('usr/share/.wh.never-there'),
    // Emptied and refilled: nothing of below is left.
    tarFile('etc/apt/.wh..wh..opq'),
    tarDir('etc/apt', { mode: 0o750, gid: 42, mtime: 1_600_000_000 }),
    tarFile('etc/apt/sources.list', 'deb http://example.org trixie main\n', { mtime: 1_600_000_001 }),
    // Removed and made anew in one layer.
    tarFile('usr/share/.wh.debconf'),
    tarDir('usr/share/debconf', { mtime: 1_600_000_002 }),
    tarFile('usr/share/debconf/new', 'new', { mtime: 1_600_000_003 }),
    // Replaced, in the image and as an object.
    Buffer.concat([at('1600000004.000000007'), tarFile('etc/debian_version', '14\n', { mode: 0o640, uid: 1, gid: 2 })]),
    Buffer.concat([at('1600000005.123456789'), tarFile('usr/bin/env', OBJECT, { mode: 0o4755 })]),
    // A directory's metadata changed, its content kept.
    Buffer.concat([at('1600000006.5'), tarDir('etc/default', { mode: 0o2775, uid: 3, gid: 4 })]),
  ],
  [
    // Retyped: directory to file and to symlink, file to directory and to symlink, symlink to file and to directory.
    tarFile('usr/share/bug', 'once a directory', { mtime: 1_600_000_010 }),
    tarSymlink('usr/share/base-files', 'base-passwd', { mtime: 1_600_000_011, uid: 7 }),
    tarDir('etc/issue', { mtime: 1_600_000_012 }),
    tarFile('etc/issue/now', 'in a directory', { mtime: 1_600_000_013 }),
    tarSymlink('etc/motd', '../run/motd', { mtime: 1_600_000_014 }),
    tarFile('etc/rmt', 'once a symlink', { mtime: 1_600_000_015 }),
    tarDir('etc/localtime', { mtime: 1_600_000_016 }),
    // Hard links to files of lower layers: of the base, of the layer below, and into /run, which is emptied.
    tarDir('usr/local/links', { mtime: 1_600_000_017 }),
    tarHardlink('usr/local/links/perl', 'usr/bin/perl'),
    tarHardlink('usr/local/links/env', 'usr/bin/env'),
    tarHardlink('usr/local/links/version', 'etc/debian_version'),
    tarHardlink('run/version', 'etc/debian_version'),
    tarFile('run/left', 'of the build'),
    // Extended attributes.
    Buffer.concat([
      paxHeader({ 'SCHILY.xattr.security.capability': CAPABILITY, 'SCHILY.xattr.user.note': 'not kept' }),
      tarFile('usr/local/links/ping', OBJECT, { mode: 0o755, mtime: 1_600_000_018 }),
    ]),
    Buffer.concat([
      paxHeader({ 'SCHILY.xattr.user.note': 'not kept', 'SCHILY.xattr.trusted.note': 'neither' }),
      tarDir('usr/local/share', { mtime: 1_600_000_019 }),
    ]),
    // Names and kinds that are rare.
    tarDir('usr/local/odd', { mode: 0o1777, mtime: 1_600_000_020 }),
    tarFile('usr/local/odd/a b\n\xff\\', 'x', { mtime: 1_600_000_021 }),
    Buffer.concat([
      paxHeader({ path: `usr/local/odd/${'n'.repeat(255)}`, mtime: '1600000022.25' }),
      tarFile('cut', 'long', { uid: 100_000, gid: 200_000 }),
    ]),
    tarEntry('usr/local/odd/fifo', { type: '6', mode: 0o600, mtime: 1_600_000_023 }),
    tarEntry('usr/local/odd/char', { type: '3', devmajor: 10, devminor: 300, mtime: 1_600_000_024 }),
    tarEntry('usr/local/odd/block', { type: '4', devmajor: 259, devminor: 1, mtime: 1_600_000_025 }),
  ],
  [
    // One name of a group replaced, one removed: the others stay together.
    tarFile('usr/local/links/.wh.version'),
    tarDir('usr/local/links', { mode: 0o711, mtime: 1_600_000_030 }),
    tarFile('usr/bin/perl', OBJECT, { mode: 0o755, mtime: 1_600_000_031 }),
    tarHardlink('usr/local/links/perl-again', 'usr/local/links/perl'),
  ],
];

/** Writes the layout with the image twice: as hostctl shall read it, and as umoci can. */
async function makeLayout(folder: string, base: string): Promise<string> {
  const tars = unpackedLayers(folder, base);
  UPPER_LAYERS.forEach((entries, i) => {
    writeFileSync(join(folder, `upper-${i}.tar`), tar(entries));
    tars.push({ tar: join(folder, `upper-${i}.tar`), compression: i % 2 === 0 ? 'gzip' : 'zstd' });
  });
  const layout = join(folder, 'layout');
  const plain = tars.map((layer) => ({ ...layer, compression: 'none' as const }));
  await writeOciLayout(layout, [
    { tag: 'hostctl', layers: tars, labels: {} },
    { tag: 'umoci', layers: plain, labels: {} },
  ]);
  return layout;
}

interface Layer {
  readonly tar: string;
  readonly compression: Compression;
}

interface Manifest {
  readonly layers: readonly { readonly digest: string; readonly mediaType: string }[];
}

/** The layers of version 2 of the test image, decompressed. */
function unpackedLayers(folder: string, base: string): Layer[] {
  const blob = (digest: string): string => join(base, 'blobs', digest.replace(':', '/'));
  const index = JSON.parse(readFileSync(join(base, 'index.json'), 'utf8')) as {
    manifests: readonly { digest: string; annotations: Record<string, string> }[];
  };
  const entry = index.manifests.find(({ annotations }) => annotations['org.opencontainers.image.ref.name'] === 'v2');
  const manifest = JSON.parse(readFileSync(blob(entry!.digest), 'utf8')) as Manifest;
  return manifest.layers.map(({ digest, mediaType }, i) => {
    const compression = mediaType.endsWith('+zstd') ? 'zstd' : 'gzip';
    const path = join(folder, `base-${i}.tar`);
    execFileSync('sh', ['-c', `exec ${compression} -dc "$1" >"$2"`, 'sh', blob(digest), path]);
    return { tar: path, compression };
  });
}

/** What the documented transform makes of an unpacked image: `/`, `/run`, and the xattrs that stay. */
function transformed(facts: FileFacts): FileFacts {
  const inRun = (path: string): boolean => path.startsWith('/run/');
  const usr = facts.get('/usr')!;
  const result: FileFacts = new Map();
  for (const [path, fact] of facts) {
    if (inRun(path)) continue;
    const own: FileFact = path === '/' ? usr : path === '/run' ? { ...fact, mtime: usr.mtime } : fact;
    const kept = Object.entries(own.xattrs).filter(([name]) => name === 'security.capability');
    result.set(path, {
      ...own,
      xattrs: Object.fromEntries(kept),
      names: own.names.filter((name) => !inRun(name)),
    });
  }
  return result;
}

describe.skipIf(reason !== undefined)('A real image of several layers', () => {
  const host = testHost();
  const listXattrs = (path: Buffer): Map<string, Uint8Array> => host.syscalls.listXattrs(path);
  let folder: string;
  let reference: string;
  let repo: string;
  let digest: string;
  let ours: FileFacts;
  /** As umoci left it, before the transform. */
  let unpacked: FileFacts;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'hostctl-equality-'));
    const image = await testImage(await buildPackage(folder), say);
    const layout = await makeLayout(folder, image.layout);
    repo = join(folder, 'repo');
    reference = `oci:${layout}:hostctl`;
    ({ digest } = await pullImage(host, { image: reference, repo, algorithm: 'sha256' }));
    const repository = requireRepository(host, repo);
    ours = factsOfTree(readComposefsImage(readImage(repository, digest as never)), repositoryContent(repository));
    execFileSync('umoci', ['unpack', '--image', `${layout}:umoci`, join(folder, 'bundle')], { stdio: 'pipe' });
    unpacked = factsOfDirectory(join(folder, 'bundle/rootfs'), listXattrs);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test('has what the comparison is meant to see', async () => {
    expect((await inspectImage(host, { image: reference })).layers?.length).toBeGreaterThanOrEqual(3);
    expect([...ours.values()].filter(({ kind }) => kind === 'file').length).toBeGreaterThanOrEqual(5000);
    expect(new Set([...unpacked.values()].map(({ kind }) => kind))).toEqual(
      new Set(['directory', 'file', 'symlink', 'fifo', 'char', 'block']),
    );
    expect(unpacked.get('/usr/local/links/ping')?.xattrs).toEqual({
      'security.capability': CAPABILITY.toString('hex'),
      'user.note': Buffer.from('not kept').toString('hex'),
    });
    expect(unpacked.get('/usr/local/share')?.xattrs).toHaveProperty(['trusted.note']);
    expect([...unpacked.keys()].filter((path) => path.startsWith('/run/'))).not.toEqual([]);
  });

  test.each<[string, string, Partial<FileFact> | undefined]>([
    ['a removed file', '/usr/share/common-licenses/GPL-3', undefined],
    ['a removed directory', '/usr/share/pam-configs/unix', undefined],
    ['what an opaque directory hides', '/etc/apt/apt.conf.d', undefined],
    ['a directory that became a file', '/usr/share/bug', { kind: 'file' }],
    ['a file that became a directory', '/etc/issue', { kind: 'directory' }],
    ['a file that became a symlink', '/etc/motd', { kind: 'symlink', content: '../run/motd' }],
    [
      'hard links across layers',
      '/usr/local/links/perl',
      { names: ['/usr/bin/perl5.40.1', '/usr/local/links/perl', '/usr/local/links/perl-again'] },
    ],
    ['a group that lost its other names', '/etc/debian_version', { names: ['/etc/debian_version'] }],
    ['a fraction of a second', '/etc/debian_version', { mtime: '1600000004.7' }],
  ])('shows %s', (_, path, expected) => {
    if (expected === undefined) expect(ours.get(path)).toBeUndefined();
    else expect(ours.get(path)).toMatchObject(expected);
  });

  test('is the tree that umoci unpacks, but for the transform', () => {
    expect(factDifferences(ours, transformed(unpacked))).toEqual([]);
  });

  test('is the same tree when it is mounted', async () => {
    const directory = join(folder, 'mounted');
    mkdirSync(directory);
    await mountImage(host, { image: digest, repo, directory, verity: 'off', writable: undefined }, noRestart);
    try {
      expect(factDifferences(factsOfDirectory(directory, listXattrs), ours)).toEqual([]);
    } finally {
      await unmountImage(host, directory);
    }
  });
});
