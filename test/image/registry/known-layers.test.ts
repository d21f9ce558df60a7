/** Of an image in a registry, layers that are known in the repository are not fetched, nor looked at where they are cached. */

import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseImageReference } from '../../../src/format/oci/reference.ts';
import type { FetchedLayers } from '../../../src/image/layer-blobs.ts';
import { RegistryClient } from '../../../src/image/registry/client.ts';
import { NativeReader } from '../../../src/image/registry/reader.ts';
import { openRegistryImage, type RegistryReference } from '../../../src/image/registry-image.ts';
import { storeImage } from '../../../src/ops/store-image.ts';
import { fetchUnknown } from '../../../src/ops/stored-layers.ts';
import { BlobCache } from '../../../src/store/blob-cache.ts';
import { openOrCreateRepository } from '../../../src/store/repository.ts';
import { withObjectStore } from '../../../src/store/sweep.ts';
import { faultyRegistry, type FaultyRegistry } from '../../helpers/faulty-registry.ts';
import { ociLayout, type BuiltLayout } from '../../helpers/oci-builder.ts';
import { scratchDir } from '../../helpers/scratch-dir.ts';
import { tar, tarDir, tarFile } from '../../helpers/tar-builder.ts';
import { testHost } from '../../helpers/test-host.ts';

const BASE = tar([tarDir('usr'), tarFile('usr/base', Buffer.alloc(5000, 'base')), tarFile('usr/hidden', Buffer.alloc(900, 'h'))]); // prettier-ignore

interface Descriptors {
  readonly layers: readonly { readonly digest: string; readonly size: number }[];
}

interface Setting {
  readonly registry: FaultyRegistry;
  readonly repo: string;
  /** Of each version. */
  readonly layers: readonly Descriptors['layers'][];
}

/** A registry with two versions, which differ in the upper of two layers, and an empty repository. */
async function setting(): Promise<Setting> {
  const images = [1, 2].map((version) =>
    ociLayout(scratchDir(), {
      layers: [
        { tar: BASE, compression: 'gzip' },
        { tar: tar([tarFile('usr/version', Buffer.alloc(700, `version ${version}`))]), compression: 'gzip' },
      ],
    }),
  );
  const blobs = new Map(images.flatMap(blobsOf));
  const layers = images.map(
    ({ manifestDigest }) => (JSON.parse(blobs.get(manifestDigest)!.toString()) as Descriptors).layers,
  );
  const manifests = new Map(images.map(({ manifestDigest }, i) => [String(i + 1), blobs.get(manifestDigest)!]));
  const registry = await faultyRegistry({ manifests, blobs, config: images[1]!.config.digest });
  const repo = `${scratchDir()}/repo`;
  openOrCreateRepository(testHost(), repo, {});
  return { registry, repo, layers };
}

function blobsOf({ directory }: BuiltLayout): (readonly [string, Buffer])[] {
  return readdirSync(`${directory}/blobs/sha256`).map((name) => [
    `sha256:${name}`,
    readFileSync(`${directory}/blobs/sha256/${name}`),
  ]);
}

interface Pulled {
  readonly digest: string;
  readonly missingBytes: number;
  readonly layers: FetchedLayers;
  /** Digests of the layers that were asked for. */
  readonly asked: readonly string[];
}

/** @param between - what happens to the repository after the layers came, without its lock */
async function pull(
  { registry, repo, layers }: Setting,
  tag: string,
  between: () => void = () => undefined,
): Promise<Pulled> {
  const host = testHost();
  const endpoint = { host: registry.host, repository: 'os', insecure: true, ca: undefined, credentials: undefined };
  const client = new RegistryClient(host, [endpoint], () => Promise.resolve());
  const cache = new BlobCache(host, repo);
  const reader = new NativeReader(host, client, () => Promise.resolve());
  const reference = parseImageReference(`docker://${registry.host}/os:${tag}`) as RegistryReference;
  const repository = openOrCreateRepository(host, repo, {});
  registry.calls.length = 0;
  try {
    const platform = { os: 'linux', architecture: 'amd64' };
    const source = await openRegistryImage(host, reference, { reader, platform, cache });
    const fetched = await fetchUnknown(repository, source);
    between();
    const { digest } = await withObjectStore(host, repository, (store) => storeImage(host, repository, source, store));
    const all = [...new Set(layers.flat().map((layer) => layer.digest))];
    const asked = registry.calls.flatMap(({ url }) => all.filter((layer) => url.endsWith(layer)));
    return { digest, missingBytes: source.blobs.missingBytes, layers: fetched, asked };
  } finally {
    cache.close();
  }
}

const dropCache = ({ repo }: Setting): void => rmSync(`${repo}/hostctl/cache`, { recursive: true });
const recordsOf = ({ repo }: Setting): string => `${repo}/hostctl/layers`;

test('a layer with a record is not asked for, and what is said of the fetch is exact', async () => {
  const place = await setting();
  expect((await pull(place, '1')).asked).toEqual(place.layers[0]!.map(({ digest }) => digest));
  dropCache(place);
  const { digest, ...second } = await pull(place, '2');
  const [base, own] = place.layers[1]!;
  expect(second).toEqual({
    asked: [own!.digest],
    missingBytes: own!.size,
    layers: {
      fetchedLayers: 1,
      fetchedBytes: own!.size,
      savedBytes: 0,
      reusedLayers: 1,
      reusedBytes: base!.size,
    },
  });
  expect(digest).toBe((await pull(await setting(), '2')).digest);
});

test('an image of known layers alone fetches none', async () => {
  const place = await setting();
  const { digest } = await pull(place, '1');
  await pull(place, '2');
  dropCache(place);
  expect(await pull(place, '1')).toMatchObject({ digest, asked: [], missingBytes: 0 });
});

test.each<[string, (place: Setting) => void]>([
  ['a record goes', (place) => rmSync(recordsOf(place), { recursive: true })],
  ['an object goes', ({ repo }) => rmSync(`${repo}/objects`, { recursive: true })],
])('where %s after the fetch, the layer is fetched then, and the image is the same', async (_, spoil) => {
  const place = await setting();
  await pull(place, '1');
  dropCache(place);
  const { asked, missingBytes, digest } = await pull(place, '2', () => {
    spoil(place);
    openOrCreateRepository(testHost(), place.repo, {});
  });
  const [base, own] = place.layers[1]!;
  expect(asked).toEqual([own!.digest, base!.digest]);
  expect(missingBytes).toBe(own!.size + base!.size);
  expect(digest).toBe((await pull(await setting(), '2')).digest);
});
