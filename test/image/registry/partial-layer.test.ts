/**
 * zstd:chunked layers from a registry: what the repository holds does not come again, and whatever is wrong with a part,
 * the registry or an object, the image is the same as from the whole layer.
 */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { writeComposefsImage } from '../../../src/format/erofs/writer.ts';
import { fsverityDigest } from '../../../src/format/fsverity/digest.ts';
import { parseImageReference } from '../../../src/format/oci/reference.ts';
import type { FetchedLayers } from '../../../src/image/layer-blobs.ts';
import { RegistryClient } from '../../../src/image/registry/client.ts';
import { NativeReader } from '../../../src/image/registry/reader.ts';
import { openRegistryImage, type RegistryReference } from '../../../src/image/registry-image.ts';
import { openImageSource } from '../../../src/image/source.ts';
import { flattenImage } from '../../../src/ops/build.ts';
import { storeImage } from '../../../src/ops/store-image.ts';
import { measuringSink } from '../../../src/image/ingest.ts';
import { blobsOfImage, BlobCache } from '../../../src/store/blob-cache.ts';
import { planRepositoryGarbage, readRepositorySnapshot, removeRepositoryItem } from '../../../src/store/collect.ts';
import { listImages, removeImage } from '../../../src/store/images.ts';
import { openOrCreateRepository, type Repository } from '../../../src/store/repository.ts';
import { withObjectStore } from '../../../src/store/sweep.ts';
import { chunkedLayer, type ChunkedSpec } from '../../helpers/chunked-builder.ts';
import { faultyRegistry, type Fault, type FaultyRegistry } from '../../helpers/faulty-registry.ts';
import { ociLayout, sha256, type BuiltLayout, type LayerSpec } from '../../helpers/oci-builder.ts';
import { scratchDir } from '../../helpers/scratch-dir.ts';
import { testHost } from '../../helpers/test-host.ts';

const PLATFORM = { os: 'linux', architecture: 'amd64' };

/** Content that does not compress. */
function noise(seed: number, size: number): Buffer {
  let state = seed;
  return Buffer.from(Array.from({ length: size }, () => (state = (state * 1103515245 + 12345) & 0x7fffffff) >> 16));
}

const UNCHANGED = ['a', 'b', 'c', 'd'].map((name, i) => [`usr/${name}`, noise(i + 1, 20_000 + i)] as const);
const version = (seed: number): ReadonlyMap<string, Uint8Array | undefined> =>
  new Map<string, Uint8Array | undefined>([
    ['usr', undefined],
    ...UNCHANGED.slice(0, 2),
    ['usr/changed', noise(seed, 15_000)],
    ...UNCHANGED.slice(2),
    ['usr/small', Buffer.from('a few bytes')],
    ['usr/last', noise(seed + 1, 3000)],
  ]);

interface Setting {
  readonly registry: FaultyRegistry;
  readonly repo: string;
  readonly images: readonly [BuiltLayout, BuiltLayout];
  readonly layerBytes: number;
}

/** Made once: each frame is made by a program. */
let first: LayerSpec | undefined;

/** A registry that has two versions, and a repository that has pulled the first. */
async function setting(second: Partial<ChunkedSpec> = {}): Promise<Setting> {
  first ??= chunkedLayer({ files: version(50) });
  const layers = [first, chunkedLayer({ files: version(60), ...second })] as const;
  const [one, two] = layers.map((layer) => ociLayout(scratchDir(), { layers: [layer] }));
  const images = [one!, two!] as const;
  const blobs = new Map<string, Buffer>();
  for (const { directory } of images) {
    for (const name of readdirSync(`${directory}/blobs/sha256`)) {
      blobs.set(`sha256:${name}`, readFileSync(`${directory}/blobs/sha256/${name}`));
    }
  }
  const manifests = new Map(images.map(({ manifestDigest }, i) => [String(i + 1), blobs.get(manifestDigest)!]));
  const registry = await faultyRegistry({ manifests, blobs, config: images[1].config.digest });
  const repo = `${scratchDir()}/repo`;
  openOrCreateRepository(testHost(), repo, {});
  await pull(registry, repo, '1');
  registry.layerBytes = 0;
  registry.calls.length = 0;
  return { registry, repo, images, layerBytes: layers[1].blob!.length };
}

interface Pulled {
  readonly digest: string;
  readonly layers: FetchedLayers;
  readonly log: string;
}

async function pull({ host: address }: FaultyRegistry, repo: string, tag: string): Promise<Pulled> {
  const log: string[] = [];
  const info = (line: string): void => void log.push(line);
  const host = testHost({ log: { debug: () => undefined, info, warn: () => undefined } });
  const endpoint = { host: address, repository: 'os', insecure: true, ca: undefined, credentials: undefined };
  const client = new RegistryClient(host, [endpoint], () => Promise.resolve());
  const reference = parseImageReference(`docker://${address}/os:${tag}`) as RegistryReference;
  const cache = new BlobCache(host, repo);
  const reader = new NativeReader(host, client, () => Promise.resolve());
  try {
    const source = await openRegistryImage(host, reference, { reader, platform: PLATFORM, cache });
    const layers = await source.blobs.fetch();
    const { digest } = await withObjectStore(host, repository(repo), (store) => storeImage(host, repository(repo), source, store)); // prettier-ignore
    return { digest, layers, log: log.join('\n') };
  } finally {
    cache.close();
  }
}

function repository(repo: string): Repository {
  return openOrCreateRepository(testHost(), repo, {});
}

/** By the digests of configs, which name all that an image is made of. */
const digests = new Map<string, string>();

/** What the whole layout gives. */
async function digestOf({ directory, config }: BuiltLayout): Promise<string> {
  let digest = digests.get(config.digest);
  if (digest === undefined) {
    const source = openImageSource(parseImageReference(`oci:${directory}`), PLATFORM);
    const tree = await flattenImage(testHost(), source, measuringSink('sha512'));
    digest = fsverityDigest('sha512', writeComposefsImage(tree, { algorithm: 'sha512' }).bytes);
    digests.set(config.digest, digest);
  }
  return digest;
}

test('of a new version only the files that changed come, by ranges, and the image is the same', async () => {
  const { registry, repo, images, layerBytes } = await setting();
  const { digest, layers, log } = await pull(registry, repo, '2');
  expect(digest).toBe(await digestOf(images[1]));
  expect(layers).toEqual({
    fetchedLayers: 1,
    fetchedBytes: registry.layerBytes,
    savedBytes: layerBytes - registry.layerBytes,
    reusedLayers: 0,
    reusedBytes: 0,
  });
  expect(registry.layerBytes).toBeGreaterThan(18_000);
  expect(registry.layerBytes).toBeLessThan(25_000);
  expect(log).toMatch(/Fetched 0\.0 MiB of layers; 0\.1 MiB were here already/);
  expect(registry.calls.filter(({ kind }) => kind === 'layer').every(({ headers }) => headers.range !== undefined)).toBe(true); // prettier-ignore
});

test('a layer that came in parts is not fetched again, stays with its image, and gives the next version its files', async () => {
  const { registry, repo, images, layerBytes } = await setting();
  const first = await pull(registry, repo, '2');
  registry.calls.length = 0;
  expect(await pull(registry, repo, '2')).toMatchObject({
    digest: first.digest,
    layers: { fetchedLayers: 0, fetchedBytes: 0, savedBytes: 0, reusedLayers: 1, reusedBytes: layerBytes },
  });
  expect(registry.calls.filter(({ kind }) => kind === 'layer')).toEqual([]);
  const diffId = sha256(chunkedLayer({ files: version(60) }).tar).slice('sha256:'.length);
  expect(blobsOfImage(repo, images[1].manifestDigest)).toContain(diffId);
  const cached = `${repo}/hostctl/cache/blobs/sha256/${diffId}`;
  // Damaged, it is as good as none.
  writeFileSync(cached, readFileSync(cached).fill(1, 5000, 5010));
  expect(await pull(registry, repo, '2')).toMatchObject({ digest: first.digest, layers: { fetchedLayers: 1 } });
}); // prettier-ignore

const onRange =
  (deal: Fault): Fault =>
  (call) =>
    call.kind === 'layer' && call.request.headers.range !== undefined ? (deal(call), true) : false;
/** The one that brings files, behind the one that brings the tables. */
const onFiles =
  (deal: Fault): Fault =>
  (call) =>
    call.kind === 'layer' && call.start < 40_000 && call.request.headers.range !== undefined ? (deal(call), true) : false; // prettier-ignore

const WHOLE: [name: string, fault: Fault, reason: RegExp][] = [
  ['answers ranges with the whole', onRange(({ serve, body }) => serve({ status: 200, body })), /parts of blobs/],
  [
    'lies about the range',
    onRange(({ serve, start, end, body }) =>
      serve({ headers: { 'content-range': `bytes ${start + 1}-${end}/${body.length}` } }),
    ),
    /parts of blobs/,
  ],
  [
    'lies about the size',
    onRange(({ serve, start, end }) => serve({ headers: { 'content-range': `bytes ${start}-${end - 1}/99` } })),
    /parts of blobs/,
  ],
  ['refuses ranges', onRange(({ serve }) => serve({ status: 416, body: Buffer.alloc(0) })), /parts of blobs/],
  [
    'gives more than the range',
    onRange(({ serve, body, start, end }) =>
      serve({ body: Buffer.concat([body.subarray(start, end), Buffer.alloc(9)]) }),
    ),
    /longer than what was asked for/,
  ],
  ['encodes the range', onRange(({ serve }) => serve({ headers: { 'content-encoding': 'gzip' } })), /encoded/],
  [
    'gives other tables',
    onRange(({ serve, body, start, end }) => serve({ body: Buffer.from(body.subarray(start, end)).fill(3, 20, 30) })),
    /Table of contents is not the one/,
  ],
  [
    'gives other files',
    onFiles(({ serve, body, start, end }) => serve({ body: Buffer.from(body.subarray(start, end)).fill(3, 200, 230) })),
    /./,
  ],
];
test.each(WHOLE)('a registry that %s is asked for the whole layer', async (_, fault, reason) => {
  const { registry, repo, images } = await setting();
  registry.fault = fault;
  const { digest, layers, log } = await pull(registry, repo, '2');
  expect(digest).toBe(await digestOf(images[1]));
  expect(layers.savedBytes).toBe(0);
  expect(log).toMatch(/Fetching layer sha256:[0-9a-f]{64} whole: /);
  expect(log).toMatch(reason);
  expect(registry.calls.filter(({ kind, headers }) => kind === 'layer' && headers.range === undefined)).toHaveLength(1);
}); // prettier-ignore

test('a range that is cut goes on where it ended', async () => {
  const { registry, repo, images } = await setting();
  let cuts = 0;
  registry.fault = onRange(({ cut, serve }) => (cuts++ < 3 ? cut(1000) : serve()));
  const { digest, layers } = await pull(registry, repo, '2');
  expect(digest).toBe(await digestOf(images[1]));
  expect(layers.savedBytes).toBeGreaterThan(50_000);
});

type Toc = Parameters<NonNullable<ChunkedSpec['editToc']>>[0];
const entry = (toc: Toc, name: string) => toc.entries.find((found) => found['name'] === name)!;
const LIES: [name: string, lie: Partial<ChunkedSpec>, reason: RegExp][] = [
  [
    'names another content that is here',
    { editToc: (toc) => ((entry(toc, 'usr/a')['digest'] = sha256(UNCHANGED[1]![1])), toc) },
    /./,
  ],
  [
    'swaps two files of one size',
    {
      files: new Map([...version(60), ['usr/x', noise(7, 3000)]]),
      editToc: (toc) => (
        ([entry(toc, 'usr/x')['digest'], entry(toc, 'usr/last')['digest']] = [
          entry(toc, 'usr/last')['digest'],
          entry(toc, 'usr/x')['digest'],
        ]),
        toc
      ),
    },
    /other content than the table says/,
  ],
  ['gives a file another size', { editToc: (toc) => ((entry(toc, 'usr/changed')['size'] = 14_999), toc) }, /differ/],
  [
    'leaves a file out',
    { editToc: (toc) => ({ ...toc, entries: toc.entries.filter(({ name }) => name !== 'usr/last') }) },
    /differ/,
  ],
  [
    'has a file too many',
    {
      editToc: (toc) => ({
        ...toc,
        entries: [
          ...toc.entries,
          {
            ...entry(toc, 'usr/last'),
            name: 'usr/z',
            offset: entry(toc, 'usr/last')['endOffset'] as number,
            endOffset: (entry(toc, 'usr/last')['endOffset'] as number) + 1,
          },
        ],
      }),
    },
    /fewer files/,
  ],
  [
    'has its files in another order',
    { editToc: (toc) => ({ ...toc, entries: toc.entries.toReversed() }) },
    /behind what comes after it/,
  ],
  [
    'places a file where it is not',
    {
      editToc: (toc) => (
        (entry(toc, 'usr/changed')['endOffset'] = (entry(toc, 'usr/changed')['endOffset'] as number) - 40),
        toc
      ),
    },
    /./,
  ],
  ['is of another version', { editToc: (toc) => ({ ...toc, version: 2 }) }, /another version/],
  [
    'goes with another tar-split',
    { editToc: (toc) => ({ ...toc, tarSplitDigest: sha256(Buffer.from('other')) }) },
    /Tar-split is not the one/,
  ],
  [
    'says nothing of a tar-split',
    { editToc: ({ version: number, entries }) => ({ version: number, entries }) },
    /does not say which tar-split/,
  ],
  [
    'comes with other headers',
    {
      editTarSplit: (lines) =>
        lines.map((line, i) => (i === 0 ? { ...line, payload: Buffer.alloc(512, 1).toString('base64') } : line)),
    },
    /Parts give the diff id/,
  ],
  [
    'comes with lines of another kind',
    { editTarSplit: (lines) => [...lines, { type: 3 }] },
    /neither bytes nor a content/,
  ],
  [
    'unpacks to more than is held',
    { editToc: (toc) => ({ ...toc, more: 'x'.repeat(64 << 20) }) },
    /A table unpacks to more than 67108864 bytes/,
  ],
  [
    'comes with a line longer than any that is needed',
    { editTarSplit: ([first, ...lines]) => [{ ...first, more: 'x'.repeat(4 << 20) }, ...lines] },
    /has a line of more than 4194304 bytes/,
  ],
];
test.each(LIES)('a table that %s leaves the whole layer', async (_, lie, reason) => {
  const { registry, repo, images } = await setting(lie);
  const { digest, layers, log } = await pull(registry, repo, '2');
  expect(digest).toBe(await digestOf(images[1]));
  expect(layers.savedBytes).toBe(0);
  expect(log).toMatch(/Fetching layer sha256:[0-9a-f]{64} whole: /);
  expect(log).toMatch(reason);
}); // prettier-ignore

test.each<[name: string, spec: Partial<ChunkedSpec>]>([
  ['without a checksum of its table', { editAnnotations: (all) => ({ ...all, 'io.github.containers.zstd-chunked.manifest-checksum': 'sha256:1' }) }],
  ['with a table beyond its end', { editAnnotations: (all) => ({ ...all, 'io.github.containers.zstd-chunked.manifest-position': '999999:10:10:1' }) }],
  ['with a table of another type', { editAnnotations: (all) => ({ ...all, 'io.github.containers.zstd-chunked.manifest-position': '9:10:10:2' }) }],
  ['without annotations', { editAnnotations: () => ({}) }],
])('a layer %s is fetched whole at once', async (_, spec) => {
  const { registry, repo, images } = await setting(spec);
  expect((await pull(registry, repo, '2')).digest).toBe(await digestOf(images[1]));
  expect(registry.calls.filter(({ kind }) => kind === 'layer').map(({ headers }) => headers.range)).toEqual([undefined]);
}); // prettier-ignore

test('objects that are damaged or gone come again', async () => {
  const { registry, repo, images, layerBytes } = await setting();
  const lines = contentsOf(repo);
  const fileOf = (content: Uint8Array): string => {
    const object = lines.get(sha256(content).slice('sha256:'.length))!;
    return `${repo}/objects/${object.slice(0, 2)}/${object.slice(2)}`;
  };
  const [damaged, gone, longer] = UNCHANGED.map(([, content]) => fileOf(content));
  const bytes = readFileSync(damaged!);
  rmSync(damaged!);
  writeFileSync(damaged!, bytes.fill(0, 100, 110));
  rmSync(gone!);
  writeFileSync(longer!, Buffer.concat([readFileSync(longer!), Buffer.alloc(10)]));
  const { digest, layers } = await pull(registry, repo, '2');
  expect(digest).toBe(await digestOf(images[1]));
  expect(layers.savedBytes).toBeGreaterThan(15_000);
  expect(layers.savedBytes).toBeLessThan(layerBytes - 60_000);
});

test('what is known of contents goes with the image, and without it is garbage', async () => {
  const { repo } = await setting();
  const names = (): string[] => readdirSync(`${repo}/hostctl`).filter((name) => name.endsWith('.contents'));
  const [name = ''] = names();
  const [digest] = listImages(repository(repo));
  expect(name).toBe(`${digest}.contents`);
  const bytes = readFileSync(`${repo}/hostctl/${name}`);
  removeImage(repository(repo), digest!);
  expect(names()).toEqual([]);
  writeFileSync(`${repo}/hostctl/${name}`, bytes);
  const host = testHost();
  const snapshot = readRepositorySnapshot(host, repository(repo));
  const choice = { droppedRefs: new Set<string>(), keptBlobs: new Set<string>() };
  const noImages = {
    useOf: () => expect.fail('There is none'),
    baseOf: () => undefined,
    layersOf: () => [],
    lastUse: () => 0,
  };
  const { items } = planRepositoryGarbage(repository(repo), snapshot, [], choice, noImages);
  for (const item of items) removeRepositoryItem(host, repository(repo), item);
  expect(names()).toEqual([]);
});

test('without knowledge of contents the layer is fetched whole', async () => {
  const { registry, repo, images } = await setting();
  for (const name of readdirSync(`${repo}/hostctl`)) {
    if (name.endsWith('.contents')) writeFileSync(`${repo}/hostctl/${name}`, 'damaged\n');
  }
  const { digest, layers } = await pull(registry, repo, '2');
  expect(digest).toBe(await digestOf(images[1]));
  expect(layers.savedBytes).toBe(0);
});

test('a layer that has little in common with what is here is fetched whole', async () => {
  const other = Array.from({ length: 5000 }, (_, i) => createHash('sha512').update(String(i)).digest());
  const files = new Map([['usr', undefined], UNCHANGED[0]!, ['usr/new', Buffer.concat(other)] as const]);
  const { registry, repo, images } = await setting({ files });
  const { digest, layers, log } = await pull(registry, repo, '2');
  expect(digest).toBe(await digestOf(images[1]));
  expect(layers.savedBytes).toBe(0);
  // That is no surprise, and no part of a file was asked for before.
  expect(log).not.toContain('whole: ');
  const ranges = registry.calls.filter(({ kind }) => kind === 'layer').map(({ headers }) => headers.range);
  expect(ranges.at(-1)).toBeUndefined();
  expect(ranges.slice(0, -1)).toHaveLength(1);
});

function contentsOf(repo: string): ReadonlyMap<string, string> {
  const names = readdirSync(`${repo}/hostctl`).filter((name) => name.endsWith('.contents'));
  const lines = names.flatMap((name) => readFileSync(`${repo}/hostctl/${name}`, 'utf8').trim().split('\n'));
  return new Map(lines.map((line) => line.split(' ') as [string, string]));
}
