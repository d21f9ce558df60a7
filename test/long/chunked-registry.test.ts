/**
 * Images that skopeo of Debian 13 pushes to a registry as gzip, zstd and zstd:chunked: pulled whole, pulled again, and
 * pulled after one file changed. What was transferred is printed.
 */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { setup } from '../helpers/build-program.ts';
import { ociLayout } from '../helpers/oci-builder.ts';
import { startHostctl, startRegistry, type TestRegistry } from '../helpers/registry.ts';
import { hostctl } from '../helpers/run-program.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { inSidRoot, trixieRoot } from '../helpers/sid-root.ts';
import { paxHeader, tar, tarDir, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';

const FORMATS = ['gzip', 'zstd', 'zstd:chunked'] as const;
const FILES = 1500;

/** Like real files: from a few bytes to a megabyte, half of it text that compresses. */
function content(seed: number): Buffer {
  const size = seed % 100 === 0 ? 1 << 20 : 40 + ((seed * 7919) % 20_000);
  let state = seed + 1;
  return Buffer.from(
    Array.from({ length: size }, (_, i) => {
      state = (state * 1103515245 + 12345) & 0x7fffffff;
      return i % 512 < 256 ? state >> 16 : 97 + (i % 26);
    }),
  );
}

/** A layer whose file 700 is of `version`, with names and metadata of several kinds. */
function layer(version: number): Buffer {
  return tar([
    tarDir('usr'),
    ...Array.from({ length: FILES }, (_, i) => {
      const file = tarFile(`usr/file-${i}`, content(i === 700 ? FILES + version : i), { mtime: i });
      return i % 50 === 0 ? Buffer.concat([paxHeader({ mtime: `${i}.5`, 'SCHILY.xattr.security.capability': 'x' }), file]) : file;
    }),
    tarHardlink('usr/hard', 'usr/file-3'),
    tarSymlink('usr/soft', 'file-3'),
    tarFile('usr/empty'),
    tarFile('usr/zeros', Buffer.alloc(3 << 20)),
  ]);
} // prettier-ignore

let registry: TestRegistry;
let folder: string;
/** `image digest` of the layouts. */
let digests: readonly string[];

beforeAll(async () => {
  setup();
  folder = mkdtempSync(`${os.tmpdir()}/hostctl-chunked-`);
  registry = await startRegistry();
  const root = await trixieRoot();
  const pushes = FORMATS.flatMap((format) =>
    [1, 2].map((version) => {
      const target = `docker://${nameOf(format)}:${version}`;
      // It would take what it pushed in another format before: this skopeo cannot be told not to.
      const forget = 'rm -rf /var/lib/containers/cache';
      return `${forget} && skopeo copy -q --dest-tls-verify=false --dest-compress-format ${format} oci:v${version} ${target}`;
    }),
  );
  const fill = (batch: string): Promise<void> => {
    digests = [1, 2].map((version) => {
      const directory = `${batch}/v${version}`;
      mkdirSync(directory);
      ociLayout(directory, { layers: [{ tar: layer(version), compression: 'none' }] });
      return hostctl(['image', 'digest', `oci:${directory}`]).stdout.trim();
    });
    return Promise.resolve();
  };
  await inSidRoot(root, pushes.join(' && '), fill, () => Promise.resolve());
});
afterAll(async () => {
  await registry.close();
  rmSync(folder, { recursive: true, force: true });
});

function nameOf(format: string): string {
  return `${registry.host}/${format.replace(':', '-')}`;
}

/** The type of the layer as the registry has it. */
async function mediaType(format: string): Promise<string> {
  const [host, name] = nameOf(format).split('/');
  const accept = 'application/vnd.oci.image.manifest.v1+json';
  const answer = await fetch(`http://${host}/v2/${name}/manifests/1`, { headers: { accept } });
  return ((await answer.json()) as { layers: { mediaType: string }[] }).layers[0]!.mediaType;
}

interface Pulled {
  readonly digest: string;
  readonly layers: { readonly fetchedBytes: number; readonly savedBytes: number };
}

async function pull(repo: string, format: string, version: number): Promise<Pulled> {
  const words = ['image', 'pull', `docker://${nameOf(format)}:${version}`, '--repo', repo, '--json'];
  const { exitCode, stdout, stderr } = await startHostctl({ folder, host: registry.host }, words).result;
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  console.log(stderr.trim());
  return JSON.parse(stdout) as Pulled;
}

test.each(FORMATS)('%s', async (format) => {
  expect(await mediaType(format)).toMatch(format === 'gzip' ? /[+]gzip$/ : /[+]zstd$/);
  const repo = `${scratchDir()}/repo`;
  const whole = await pull(repo, format, 1);
  const again = await pull(repo, format, 1);
  const changed = await pull(repo, format, 2);
  const unchanged = await pull(repo, format, 2);
  const shown = (title: string, { layers }: Pulled): string => `${title} ${layers.fetchedBytes} transferred, ${layers.savedBytes} saved`; // prettier-ignore
  console.log(`${format}: ${shown('whole', whole)}; ${shown('again', again)}; ${shown('one file changed', changed)}; ${shown('again', unchanged)}`); // prettier-ignore
  expect([whole, again, changed, unchanged].map(({ digest }) => digest)).toEqual([digests[0], digests[0], digests[1], digests[1]]); // prettier-ignore
  expect(whole.layers).toMatchObject({ savedBytes: 0 });
  expect(again.layers).toMatchObject({ fetchedBytes: 0, savedBytes: 0 });
  expect(unchanged.layers).toMatchObject({ fetchedBytes: 0, savedBytes: 0 });
  if (format === 'zstd:chunked') expect(changed.layers.fetchedBytes).toBeLessThan(whole.layers.fetchedBytes / 20);
  else expect(changed.layers).toMatchObject({ savedBytes: 0 });
});
