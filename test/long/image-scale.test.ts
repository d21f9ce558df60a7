/**
 * Images at the edge of what is read: memory stays below 300 MiB, and grows with the entries beyond 100,000; time grows
 * with the entries and no faster.
 */

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { once } from 'node:events';
import { build } from 'esbuild';
import { expect, test } from 'vitest';
import { projectPath, threadPrograms } from '../../scripts/lib/project.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { base256, paxHeader, tarDir, tarFile } from '../helpers/tar-builder.ts';

const LIMIT_BYTES = 300 << 20;
const FREE_ENTRIES = 100_000;
const BYTES_PER_ENTRY = 1024;

interface Cost {
  readonly exitCode: number;
  readonly peakBytes: number;
  readonly cpuSeconds: number;
  readonly stderr: string;
}

let bundle: string | undefined;

async function program(): Promise<string> {
  const outdir = new URL('../../build/scale', import.meta.url).pathname;
  bundle ??= `${outdir}/main.js`;
  const entryPoints = { main: projectPath('src/main.ts'), ...threadPrograms() };
  const banner = { js: "import { createRequire as make } from 'node:module'; const require = make(import.meta.url);" };
  await build({ entryPoints, bundle: true, platform: 'node', format: 'esm', target: 'node20', outdir, external: ['koffi'], banner }); // prettier-ignore
  return bundle;
}

/** `image digest` of a layout, with the most memory it ever had and the CPU time it took. */
async function digest(directory: string): Promise<Cost> {
  const timed = 'TIMEFORMAT="%U %S"; time "$0" "$1" --quiet image digest "oci:$2" 2>&3';
  const child = spawn('bash', ['-c', timed, process.execPath, await program(), directory], { stdio: ['ignore', 'pipe', 'pipe', 'pipe'] }); // prettier-ignore
  let [times, stderr, peakBytes] = ['', '', 0];
  child.stderr!.on('data', (data: Buffer) => (times += data.toString()));
  (child.stdio[3] as NodeJS.ReadableStream).on('data', (data: Buffer) => (stderr += data.toString()));
  child.stdout!.resume();
  const sampler = setInterval(() => (peakBytes = Math.max(peakBytes, ...peaksBelow(child.pid!))), 20);
  const [exitCode] = (await once(child, 'close')) as [number];
  clearInterval(sampler);
  const [user = 0, system = 0] = times.trim().split(' ').map(Number);
  return { exitCode, peakBytes, cpuSeconds: user + system, stderr };
}

/** The kernel's own record of the most memory of each child. */
function peaksBelow(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    return children.map((child) => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child}/status`, 'utf8'))?.[1] ?? 0) * 1024); // prettier-ignore
  } catch {
    return [0];
  }
}

type Write = (bytes: Uint8Array) => void;

/** A layout of plain layers, each written piece by piece. */
function layout(fills: readonly ((write: Write) => void)[]): string {
  const directory = scratchDir();
  mkdirSync(`${directory}/blobs/sha256`, { recursive: true });
  const blob = (bytes: Uint8Array): { digest: string; size: number } => {
    const hex = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(`${directory}/blobs/sha256/${hex}`, bytes);
    return { digest: `sha256:${hex}`, size: bytes.length };
  };
  const layers = fills.map((fill) => {
    const hash = createHash('sha256');
    const fd = openSync(`${directory}/layer`, 'w');
    let [size, pending, pendingBytes] = [0, [] as Uint8Array[], 0];
    const flush = (): void => {
      const bytes = Buffer.concat(pending);
      hash.update(bytes);
      writeSync(fd, bytes);
      [pending, pendingBytes] = [[], 0];
    };
    const write: Write = (bytes) => {
      size += bytes.length;
      pending.push(bytes);
      pendingBytes += bytes.length;
      if (pendingBytes > 1 << 20) flush();
    };
    fill(write);
    write(Buffer.alloc(1024));
    flush();
    closeSync(fd);
    const hex = hash.digest('hex');
    renameSync(`${directory}/layer`, `${directory}/blobs/sha256/${hex}`);
    return { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: `sha256:${hex}`, size };
  });
  const rootfs = { type: 'layers', diff_ids: layers.map((layer) => layer.digest) };
  const config = blob(Buffer.from(JSON.stringify({ architecture: process.arch === 'x64' ? 'amd64' : process.arch, os: 'linux', rootfs }))); // prettier-ignore
  const type = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = blob(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: type, config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config }, layers }))); // prettier-ignore
  writeFileSync(`${directory}/index.json`, JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType: type, ...manifest }] })); // prettier-ignore
  writeFileSync(`${directory}/oci-layout`, '{"imageLayoutVersion":"1.0.0"}');
  return directory;
}

const files = (count: number, perDirectory: number) => (write: Write): void => {
  write(tarDir('usr'));
  for (let i = 0; i < count; i++) {
    if (i % perDirectory === 0) write(tarDir(`usr/d${i}`));
    write(tarFile(`usr/d${i - (i % perDirectory)}/file-${i}`, ''));
  }
}; // prettier-ignore

/** Fails where it took too much; prints what it took. */
async function measured(title: string, entries: number, directory: string): Promise<Cost> {
  const cost = await digest(directory);
  console.log(`${title}: ${(cost.peakBytes / 2 ** 20).toFixed(0)} MiB, ${cost.cpuSeconds.toFixed(1)} s CPU`);
  expect([cost.exitCode, cost.stderr]).toEqual([0, '']);
  expect(cost.peakBytes).toBeGreaterThan(30 << 20);
  expect(cost.peakBytes).toBeLessThan(LIMIT_BYTES + BYTES_PER_ENTRY * Math.max(0, entries - FREE_ENTRIES));
  return cost;
}

test('a million entries take memory and time in proportion', async () => {
  const few = await measured('100,000 entries', 100_000, layout([files(100_000, 100)]));
  const many = await measured('1,000,000 entries', 1_000_000, layout([files(1_000_000, 100)]));
  expect(many.cpuSeconds).toBeLessThan(20 * few.cpuSeconds);
});

test('a hundred thousand entries in one directory', async () => {
  await measured('100,000 in one directory', 100_000, layout([files(100_000, 100_000)]));
});

test('512 layers, each with what the others have too', async () => {
  const layers = Array.from({ length: 512 }, (_, i) => (write: Write) => {
    write(tarDir('usr'));
    for (let j = 0; j < 100; j++) write(tarFile(`usr/f${(i + j) % 300}`, `${i}`));
  });
  await measured('512 layers', 51_200, layout(layers));
});

test('xattrs without end, of which few are kept', async () => {
  const xattrs = paxHeader(Array.from({ length: 250 }, (_, i) => [`SCHILY.xattr.user.${i}`, 'v'.repeat(2000)] as const));
  const storm = (write: Write): void => {
    write(tarDir('usr'));
    for (let i = 0; i < 1000; i++) [xattrs, tarFile(`usr/f${i}`)].forEach(write);
  };
  await measured('250,000 xattrs', 1000, layout([storm]));
}); // prettier-ignore

test('a sparse file of 10 GiB, stored as what 1,000 times as much may be made of', async () => {
  const size = 10 * 2 ** 30;
  const stored = 12 << 20;
  const sparse = (write: Write): void => {
    write(tarDir('usr'));
    const pair = (value: number): string => base256(BigInt(value), 12).toString('latin1');
    // The size of the blob is only known to be right once it has been read, so what is large comes first.
    write(tarFile('usr/stored', Buffer.alloc(stored, 'data')));
    write(tarFile('usr/sparse', '', { type: 'S', format: 'gnu', at: [[386, pair(size) + pair(0)], [483, pair(size)]] })); // prettier-ignore
  };
  await measured('10 GiB sparse', 1, layout([sparse]));
});

test('a sparse file of 60 GiB in half a kilobyte is a bomb', async () => {
  const pair = (value: number): string => base256(BigInt(value), 12).toString('latin1');
  const bomb = (write: Write): void => write(tarFile('usr', '', { type: 'S', format: 'gnu', at: [[483, pair(60 * 2 ** 30)]] })); // prettier-ignore
  const { exitCode, peakBytes, stderr } = await digest(layout([bomb]));
  expect([exitCode, stderr]).toEqual([7, expect.stringContaining('more than 1000 times as large as the blob')]);
  expect(peakBytes).toBeLessThan(LIMIT_BYTES);
});
