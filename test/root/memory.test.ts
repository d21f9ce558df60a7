/** Pulling a large image takes bounded memory: below 300 MiB resident, children included. */

import { spawn, execFileSync } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { tarDir, tarEntry, tarFile } from '../helpers/tar-builder.ts';

const PROGRAM = fileURLToPath(new URL('../../dist/main.js', import.meta.url));
const LIMIT_MIB = 300;
const LARGE_FILE = 256 << 20;
const SMALL_FILES = 5000;
const PAGE_BYTES = 4096;
const SAMPLE_MS = 20;

test.each(['gzip', 'zstd'] as const)('a 1 GB image in %s layers is pulled within 300 MiB', async (compression) => {
  const directory = scratchDir();
  writeLayout(directory, compression);
  const child = spawn(process.execPath, [PROGRAM, 'image', 'pull', `oci:${directory}`, '--repo', `${directory}/repo`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let peak = 0;
  const sampler = setInterval(() => (peak = Math.max(peak, residentBytes(child.pid ?? 0))), SAMPLE_MS);
  const [exitCode] = (await once(child, 'close')) as [number];
  clearInterval(sampler);
  expect(exitCode).toBe(0);
  // A sampler that saw nothing would pass everything.
  expect(peak).toBeGreaterThan(50 << 20);
  expect(peak / 2 ** 20).toBeLessThan(LIMIT_MIB);
});

/** Two layers: four files of 256 MiB, and many small ones. */
function writeLayout(directory: string, compression: 'gzip' | 'zstd'): void {
  mkdirSync(`${directory}/blobs/sha256`, { recursive: true });
  const layers = [
    writeLayer(directory, compression, (write) => {
      write(tarDir('usr'));
      for (let i = 0; i < 4; i++) {
        write(tarEntry(`usr/large-${i}`, { size: LARGE_FILE }));
        for (let at = 0; at < LARGE_FILE; at += PAGE_BYTES * 256) write(noise(`${i} ${at}`));
      }
    }),
    writeLayer(directory, compression, (write) => {
      for (let i = 0; i < SMALL_FILES; i++) write(tarFile(`usr/small-${i}`, Buffer.alloc(200, `small file ${i} `)));
    }),
  ];
  const config = writeBlob(
    directory,
    Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      }),
    ),
  );
  const manifest = writeBlob(
    directory,
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
        layers: layers.map(({ digest, size }) => ({
          mediaType: `application/vnd.oci.image.layer.v1.tar+${compression}`,
          digest,
          size,
        })),
      }),
    ),
  );
  writeFileSync(`${directory}/oci-layout`, '{"imageLayoutVersion":"1.0.0"}');
  const descriptor = { mediaType: 'application/vnd.oci.image.manifest.v1+json', ...manifest };
  writeFileSync(`${directory}/index.json`, JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));
}

function writeLayer(
  directory: string,
  compression: 'gzip' | 'zstd',
  fill: (write: (bytes: Uint8Array) => void) => void,
): { digest: string; size: number; diffId: string } {
  const tarFile = `${directory}/layer.tar`;
  const hash = createHash('sha256');
  const fd = openSync(tarFile, 'w');
  const write = (bytes: Uint8Array): void => {
    hash.update(bytes);
    writeSync(fd, bytes);
  };
  fill(write);
  write(Buffer.alloc(1024));
  closeSync(fd);
  const packed = `${directory}/layer.packed`;
  execFileSync('sh', ['-c', `${compression} -1 -c "$1" >"$2" && rm "$1"`, 'sh', tarFile, packed]);
  const digest = execFileSync('sha256sum', [packed], { encoding: 'utf8' }).slice(0, 64);
  const { size } = statSync(packed);
  renameSync(packed, `${directory}/blobs/sha256/${digest}`);
  return { digest: `sha256:${digest}`, size, diffId: `sha256:${hash.digest('hex')}` };
}

function writeBlob(directory: string, bytes: Uint8Array): { digest: string; size: number } {
  const digest = createHash('sha256').update(bytes).digest('hex');
  writeFileSync(`${directory}/blobs/sha256/${digest}`, bytes);
  return { digest: `sha256:${digest}`, size: bytes.length };
}

/** 1 MiB like no other that packs sixteen to one, so that the test is quick and no limit takes it for a bomb. */
function noise(seed: string): Buffer {
  const key = createHash('sha256').update(seed).digest();
  const piece = createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(16 * PAGE_BYTES));
  return Buffer.alloc(PAGE_BYTES * 256, piece);
}

/** Resident bytes of a process and everything below it. */
function residentBytes(pid: number): number {
  try {
    const pages = Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]);
    const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean),
    );
    return pages * PAGE_BYTES + children.reduce((sum, child) => sum + residentBytes(Number(child)), 0);
  } catch {
    // It ended this moment.
    return 0;
  }
}
