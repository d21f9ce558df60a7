/**
 * `npm run bench:layouts`: what application images on one base take, and how fast they are mounted and walked, one EROFS
 * image for each layer as containers/storage has it, flat, cached and split. Times are of the processor, so that they
 * can be compared on a machine that does other things too. Needs root; the mounts show nowhere else.
 *
 *   npm run bench:layouts -- [--bases 5000,30000] [--images 1,10,50,150] [--json FILE] [--chart FILE]
 */

import { execFileSync } from 'node:child_process';
import { closeSync, lstatSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { joinComposefsDelta, writeComposefsDelta } from '../src/format/erofs/delta.ts';
import { writeComposefsImage } from '../src/format/erofs/writer.ts';
import { fsverityDigest } from '../src/format/fsverity/digest.ts';
import { mountImage } from '../src/ops/mount-image.ts';
import { mountByDescriptors } from '../src/ops/mount-layers.ts';
import { commitImage, commitParts } from '../src/store/images.ts';
import { ObjectStore } from '../src/store/objects.ts';
import { objectFile, openOrCreateRepository, type Repository } from '../src/store/repository.ts';
import { allocatedBytes } from '../src/sys/files.ts';
import { openRealHost } from '../src/sys/real-host.ts';
import type { DirectoryNode, VerityDigest } from '../src/tree/node.ts';
import { walkTree } from '../src/tree/walk.ts';
import { appTree, baseTrees } from './lib/bench/layout-trees.ts';
import { layoutChart, layoutTable, WAYS, type LayoutRow, type Way } from './lib/bench/layout-report.ts';
import { projectPath } from './lib/project.ts';

const { values } = parseArgs({
  options: {
    bases: { type: 'string', default: '5000,30000' },
    images: { type: 'string', default: '1,10,50,150' },
    json: { type: 'string' },
    chart: { type: 'string' },
  },
});
const numbers = (text: string): number[] => text.split(',').map(Number);

const algorithm = 'sha512';
/** Those of the base of an ordinary application image. */
const BASE_LAYERS = 4;
/** Each tenth of the paths of an image. */
const WALKED = 10;

const host = openRealHost({
  log: { debug: () => undefined, info: () => undefined, warn: (message) => console.error(message) },
  progress: () => undefined,
  signal: new AbortController().signal,
  lockWaitMs: 0,
});
const run = { isRestarted: true, restart: () => Promise.resolve(0), setExitCode: () => undefined };

/** An image in the repository, and what is opened for a mount of it. */
interface Stored {
  readonly digest: VerityDigest;
  readonly layers: readonly VerityDigest[];
}

/** One way of keeping images, on a repository of its own. */
class Keeper {
  readonly #way: Way;
  readonly repository: Repository;
  readonly #store: ObjectStore;
  readonly #bases: readonly DirectoryNode[];
  readonly #baseBytes: Uint8Array;
  readonly #baseLayers: readonly VerityDigest[];

  constructor(way: Way, path: string, bases: readonly DirectoryNode[]) {
    this.#way = way;
    this.#bases = bases;
    this.repository = openOrCreateRepository(host, path, { algorithm });
    this.#store = new ObjectStore(host, this.repository);
    this.#baseBytes = imageOf(bases.at(-1)!);
    this.#baseLayers = way === 'per layer' ? this.#storeLayers() : [];
    if (way === 'split' || way === 'cached') this.#commit(this.#baseBytes);
  }

  /** Stores an image as a pull does it, digests and the putting together again included. */
  keep(tree: DirectoryNode): Stored {
    const base = this.#bases.at(-1)!;
    if (this.#way === 'per layer') {
      const layer = this.#store.put(writeComposefsDelta(base, tree, algorithm));
      return { digest: layer, layers: [layer, ...this.#baseLayers] };
    }
    const bytes = imageOf(tree);
    if (this.#way === 'flat') return { digest: this.#commit(bytes), layers: [] };
    const delta = writeComposefsDelta(base, tree, algorithm);
    const digest = fsverityDigest(algorithm, bytes);
    const again = joinComposefsDelta(this.#baseBytes, delta, algorithm);
    if (fsverityDigest(algorithm, again) !== digest) throw new Error('Base and delta make another image');
    const baseDigest = fsverityDigest(algorithm, this.#baseBytes);
    const parts = { layout: this.#way, base: baseDigest, delta: this.#store.put(delta) };
    commitParts(this.repository, this.#store, digest, { ...RECORD, parts });
    return { digest, layers: [] };
  }

  async mount({ digest, layers }: Stored, directory: string): Promise<void> {
    if (layers.length === 0) {
      const { path } = this.repository;
      await mountImage(host, { image: digest, repo: path, directory, verity: 'off', writable: undefined }, run);
      return;
    }
    const imageFds = layers.map((layer) => openSync(objectFile(this.repository, layer), 'r'));
    const mount = {
      repository: this.repository,
      digest,
      imageFds,
      directory,
      verity: 'off',
      writable: undefined,
    } as const;
    mountByDescriptors(host, host.syscalls.mountApi!, mount);
    imageFds.forEach((fd) => closeSync(fd));
  }

  close(): void {
    this.#store.close();
  }

  #storeLayers(): VerityDigest[] {
    const layers = this.#bases.map((tree, index) => {
      const below = this.#bases[index - 1];
      return this.#store.put(below === undefined ? imageOf(tree) : writeComposefsDelta(below, tree, algorithm));
    });
    return layers.reverse();
  }

  #commit(bytes: Uint8Array): VerityDigest {
    return commitImage(this.repository, this.#store, bytes, RECORD);
  }
}

const RECORD = {
  parameters: { formatVersion: 1, algorithm, logBlockSize: 12 },
  xattrs: 'allowlist-only',
  bootable: false,
} as const;

function imageOf(tree: DirectoryNode): Uint8Array {
  return writeComposefsImage(tree, { algorithm }).bytes;
}

async function cpuOf<T>(body: () => T | Promise<T>): Promise<{ readonly result: T; readonly seconds: number }> {
  const before = process.cpuUsage();
  const result = await body();
  const { user, system } = process.cpuUsage(before);
  return { result, seconds: (user + system) / 1e6 };
}

/** Bytes of inodes and names of EROFS and overlayfs in memory. */
function slabBytes(): number {
  const lines = readFileSync('/proc/slabinfo', 'utf8').split('\n');
  const DENTRY = 192;
  return lines.reduce((sum, line) => {
    const [name, active, , size] = line.split(/\s+/);
    return name === 'erofs_inode' || name === 'ovl_inode' ? sum + Number(active) * (Number(size) + DENTRY) : sum;
  }, 0);
}

/** Bytes of files that are in the page cache. */
function cachedBytes(directory: string): number {
  const files = execFileSync('find', [directory, '-type', 'f', '-print0'], { maxBuffer: 1 << 26 });
  const script =
    'xargs -0 -r fincore --bytes --noheadings --raw --output RES | awk "{ sum += \\$1 } END { print sum + 0 }"';
  return Number(execFileSync('sh', ['-c', script], { input: files }).toString());
}

function dropCaches(): void {
  execFileSync('sync');
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

async function measure(
  way: Way,
  folder: string,
  bases: readonly DirectoryNode[],
  baseInodes: number,
  images: number,
): Promise<LayoutRow> {
  const keeper = new Keeper(way, `${folder}/repo`, bases);
  const stored: Stored[] = [];
  const walks: string[][] = [];
  let buildSeconds = 0;
  for (let i = 0; i < images; i++) {
    const tree = appTree(bases.at(-1)!, i);
    const built = await cpuOf(() => keeper.keep(tree));
    buildSeconds += built.seconds;
    stored.push(built.result);
    walks.push([...walkTree(tree)].filter((_, index) => (index + i) % WALKED === 0).map(({ path }) => path));
  }
  keeper.close();
  const diskBytes = allocatedBytes(`${folder}/repo`);
  const places = stored.map((_, i) => `${folder}/mount-${i}`);
  for (const place of places) mkdirSync(place);
  dropCaches();
  const before = slabBytes();
  const mounted = await cpuOf(async () => {
    for (const [i, image] of stored.entries()) await keeper.mount(image, places[i]!);
  });
  const mountedBytes = allocatedBytes(`${folder}/repo`);
  // What the measuring of digests read is no part of a walk.
  dropCaches();
  const walked = await cpuOf(() => {
    for (const [i, paths] of walks.entries()) for (const path of paths) lstatSync(`${places[i]}${path}`);
  });
  const memoryBytes = slabBytes() - before + cachedBytes(`${folder}/repo/objects`);
  for (const place of places) execFileSync('umount', [place]);
  const lookups = walks.reduce((sum, paths) => sum + paths.length, 0);
  return {
    way,
    baseInodes,
    images,
    diskBytes,
    mountedBytes,
    buildMs: (buildSeconds * 1000) / images,
    mountMs: (mounted.seconds * 1000) / images,
    memoryBytes,
    lookupsPerSecond: lookups / walked.seconds,
  };
}

if (process.getuid?.() !== 0) throw new Error('Needs root: images are mounted');
const scratch = projectPath('build', `layouts-${process.pid}`);
const rows: LayoutRow[] = [];
try {
  for (const baseInodes of numbers(values.bases)) {
    const bases = baseTrees(baseInodes, BASE_LAYERS);
    for (const images of numbers(values.images)) {
      for (const way of WAYS) {
        const folder = `${scratch}/${way.replace(' ', '-')}-${baseInodes}-${images}`;
        mkdirSync(folder, { recursive: true });
        rows.push(await measure(way, folder, bases, baseInodes, images));
        console.error(layoutTable(rows.slice(-1)).split('\n').at(-1));
        rmSync(folder, { recursive: true, force: true });
      }
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const cpu = os.cpus()[0]?.model ?? 'unknown processor';
console.log(`${cpu}, Linux ${os.release()}, Node ${process.versions.node}, load ${os.loadavg()[0]?.toFixed(1)}`);
console.log(layoutTable(rows));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, undefined, 2)}\n`);
if (values.chart !== undefined) writeFileSync(values.chart, layoutChart(rows));
