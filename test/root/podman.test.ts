/** A mounted application image as the root of a container: podman runs what is in it, over it as it is and with `--rw`. */

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { repositoryContent } from '../../src/deploy/materialize.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { readImage } from '../../src/store/images.ts';
import { requireRepository } from '../../src/store/repository.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { factDifferences, factsOfDirectory, factsOfTree } from '../helpers/file-facts.ts';
import { loopsOf } from '../helpers/mount-cycles.ts';
import { mountNamespace } from '../helpers/mount-namespace.ts';
import { ociLayout } from '../helpers/oci-builder.ts';
import { pathsBelow } from '../helpers/requires.ts';
import { hostctl, type ProgramResult } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { tar, tarDir, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';
import { testHost } from '../helpers/test-host.ts';

const GREETING = 'the greeting of the application, long enough to be an object of its own\n';

/** What podman mounts over, or makes where it is not there. */
const PLACES = [
  ...['dev', 'proc', 'run', 'sys', 'tmp', 'var/tmp'].map((name) => tarDir(name)),
  ...['hosts', 'hostname', 'resolv.conf'].map((name) => tarFile(`etc/${name}`)),
  tarSymlink('etc/mtab', '../proc/self/mounts'),
];

/** As small as an application gets whose program is real: one static file. */
function appLayout(places: readonly Uint8Array[]): string {
  const directory = scratchDir();
  const base = tar([
    ...['etc', 'run', 'usr', 'usr/bin', 'var'].map((name) => tarDir(name)),
    tarFile('usr/bin/busybox', readFileSync('/bin/busybox'), { mode: 0o755 }),
    tarHardlink('usr/bin/sh', 'usr/bin/busybox'),
    tarFile('etc/greeting', 'the greeting of the base'),
    ...places,
  ]);
  const app = tar([tarFile('etc/greeting', GREETING)]);
  ociLayout(directory, {
    layers: [
      { tar: base, compression: 'gzip' },
      { tar: app, compression: 'none' },
    ],
  });
  return `oci:${directory}`;
}

interface MountedImage {
  mount(...more: string[]): void;
  unmount(): void;
  /** That what is mounted is the tree of the image. */
  expectTree(): void;
  /** That nothing is left of any mount. */
  expectNothing(): Promise<void>;
  /** @param over words for podman, and behind `root` whether it lays something over the root itself */
  podman(script: string, over?: { readonly options?: readonly string[]; readonly root?: ':O' }): ProgramResult;
}

async function mountedImage(reference: string, layout: string): Promise<MountedImage> {
  const host = testHost();
  const repo = `${scratchDir()}/repo`;
  const digest = hostctl(['image', 'pull', reference, '--repo', repo, '--layout', layout]).stdout.trim();
  const repository = requireRepository(host, repo);
  const tree = readComposefsImage(readImage(repository, digest as VerityDigest));
  const facts = factsOfTree(tree, repositoryContent(repository));
  const namespace = await mountNamespace();
  const [program = '', ...prefix] = namespace.prefix;
  execFileSync(program, [...prefix, 'mount', '--make-rshared', '/']);
  // crun refuses machines that have both versions of control groups.
  execFileSync(program, [...prefix, 'mount', '-t', 'cgroup2', 'cgroup2', '/sys/fs/cgroup']);
  const before = namespace.table();
  const [root, storage] = [scratchDir(), scratchDir()];
  return {
    mount(...more) {
      const words = ['image', 'mount', digest, root, '--repo', repo, '--verity', 'off', ...more];
      expect(hostctl(words, namespace.prefix)).toEqual({ exitCode: 0, stdout: '', stderr: '' });
    },
    unmount() {
      expect(hostctl(['image', 'umount', root], namespace.prefix).exitCode).toBe(0);
      expect(namespace.table()).toEqual(before);
    },
    expectTree() {
      const shown = factsOfDirectory(namespace.path(root), (path) => host.syscalls.listXattrs(path));
      expect(factDifferences(shown, facts)).toEqual([]);
    },
    async expectNothing() {
      const objects = pathsBelow(`${repo}/objects`).map((path) => `${repo}/objects/${path}`);
      await expect.poll(() => objects.flatMap(loopsOf), { timeout: 10_000 }).toEqual([]);
    },
    podman(script, { options = [], root: over = '' } = {}) {
      const words = [
        // What podman starts and mounts goes with it.
        ...['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', 'podman', '--cgroup-manager=cgroupfs'],
        ...['--root', `${storage}/storage`, '--runroot', `${storage}/run`, 'run', '--rm', '--pull=never'],
        ...['--network=none', '--cgroups=disabled'],
        // By default it asks for more than a machine may give that is a container itself.
        ...['--ulimit=nofile=1024:1024', '--ulimit=nproc=1024:1024'],
        ...[...options, '--rootfs', `${root}${over}`, '/usr/bin/sh', '-c', script],
      ];
      const { status, stdout, stderr, error } = spawnSync(program, [...prefix, ...words], { encoding: 'utf8' });
      if (error !== undefined) throw error;
      return { exitCode: status, stdout, stderr };
    },
  };
}

test.each(['flat', 'split'])('podman runs a program of an image that is stored %s', async (layout) => {
  const image = await mountedImage(appLayout(PLACES), layout);
  image.mount();
  const shown = { exitCode: 0, stdout: GREETING, stderr: '' };
  expect(image.podman('busybox cat /etc/greeting', { options: ['--read-only'] })).toEqual(shown);
  // Here it is the mount that refuses.
  expect(image.podman('echo no > /etc/greeting', { options: ['--tmpfs=/run'] })).toMatchObject({
    exitCode: 1,
    stderr: expect.stringMatching(/Read-only file system/) as string,
  });
  image.expectTree();
  image.unmount();

  const above = scratchDir();
  for (const name of ['upper', 'work']) mkdirSync(`${above}/${name}`);
  image.mount('--rw', `${above}/upper`, `${above}/work`);
  const script = 'busybox mkdir /var/data && echo kept > /var/data/file && echo changed > /etc/greeting';
  expect(image.podman(script)).toEqual({ exitCode: 0, stdout: '', stderr: '' });
  const kept = { exitCode: 0, stdout: 'kept\nchanged\n', stderr: '' };
  expect(image.podman('busybox cat /var/data/file /etc/greeting')).toEqual(kept);
  image.unmount();
  const written = ['var/data/file', 'etc/greeting'].map((name) => readFileSync(`${above}/upper/${name}`, 'utf8'));
  expect(written).toEqual(['kept\n', 'changed\n']);

  image.mount();
  image.expectTree();
  image.unmount();
  await image.expectNothing();
});

test('podman lays what the image lacks over it, and throws it away', async () => {
  const image = await mountedImage(appLayout([]), 'split');
  image.mount();
  expect(image.podman('true', { options: ['--read-only'] })).toMatchObject({ exitCode: 126 });
  const script = 'busybox cat /etc/greeting && echo changed > /etc/greeting && busybox cat /etc/greeting';
  const shown = { exitCode: 0, stdout: `${GREETING}changed\n`, stderr: '' };
  for (let time = 0; time < 2; time++) expect(image.podman(script, { root: ':O' })).toEqual(shown);
  image.expectTree();
  image.unmount();
  await image.expectNothing();
});
