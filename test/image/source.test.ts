/** From a layout directory to the manifest, by digest at every step. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import type { OciDigest } from '../../src/format/oci/digest.ts';
import { parseImageReference } from '../../src/format/oci/reference.ts';
import { LAYERS_IN_PLACE } from '../../src/image/layer-blobs.ts';
import { openImageSource, resolveImage } from '../../src/image/source.ts';
import { ociLayout, refName, sha256, writeBlob, writeIndex, writeJson, type Descriptor, type Json, type LayoutSpec } from '../helpers/oci-builder.ts'; // prettier-ignore
import { scratchDir } from '../helpers/scratch-dir.ts';
import { tar, tarDir } from '../helpers/tar-builder.ts';

const amd64 = { os: 'linux', architecture: 'amd64' };
const layer = { tar: tar([tarDir('usr')]) };
const one: LayoutSpec = { layers: [layer] };
const indexType = 'application/vnd.oci.image.index.v1+json';

function open(directory: string, tag = '', host = amd64) {
  return openImageSource(parseImageReference(`oci:${directory}${tag}`), host);
}

/** The manifest digest, or the code and message of the error without the reference. */
function result(directory: string, tag = ''): string {
  try {
    return open(directory, tag).manifestDigest;
  } catch (error) {
    if (!(error instanceof HostctlError)) throw error;
    const place = `Cannot use "oci:${directory}${tag}": `;
    expect(error.message.startsWith(place), error.message).toBe(true);
    return `${error.code}: ${error.message.slice(place.length).replaceAll(directory, 'DIR')}`;
  }
}

function index(directory: string, manifests: readonly Json[]): Descriptor {
  return writeJson(directory, { mediaType: indexType, value: { schemaVersion: 2, mediaType: indexType, manifests } });
}

const platform = (architecture: string): Json => ({ platform: { os: 'linux', architecture } });

describe('an image in a layout', () => {
  test('is opened with everything that is needed to read it', () => {
    const directory = scratchDir();
    const built = ociLayout(directory, {
      layers: [layer, { ...layer, compression: 'none' }],
      labels: { version: '1' },
      tag: 'v1',
    });
    const source = open(directory, ':v1');
    expect({
      ...source,
      layers: source.layers.map(({ number, count, diffId, blobFile }) => ({ number, count, diffId, blobFile })),
    }).toEqual({
      reference: { transport: 'oci', path: directory, tag: 'v1' },
      manifestDigest: built.manifestDigest,
      manifestType: 'application/vnd.oci.image.manifest.v1+json',
      referrers: source.referrers,
      manifest: source.manifest,
      manifestBytes: source.manifestBytes,
      config: { platform: amd64, diffIds: [sha256(layer.tar), sha256(layer.tar)], labels: new Map([['version', '1']]) },
      configBytes: source.configBytes,
      choice: [],
      blobs: LAYERS_IN_PLACE,
      layers: [1, 2].map((number) => ({
        number,
        count: 2,
        diffId: sha256(layer.tar),
        blobFile: `${directory}/blobs/${source.manifest.layers[number - 1]!.digest.replace(':', '/')}`,
      })),
    });
    expect(sha256(source.manifestBytes)).toBe(built.manifestDigest);
    expect(sha256(source.configBytes)).toBe(built.config.digest);
  });

  test('is the same with docker media types', () => {
    const directory = scratchDir();
    const { manifestDigest } = ociLayout(directory, { ...one, docker: true });
    expect(result(directory)).toBe(manifestDigest);
  });

  test('is found through indexes for this platform', () => {
    const directory = scratchDir();
    const arm = ociLayout(directory, { ...one, architecture: 'arm64' }).manifest;
    const amd = ociLayout(directory, one).manifest;
    const inner = index(directory, [
      { ...arm, ...platform('arm64') },
      { ...amd, ...platform('amd64') },
    ]);
    const outer = index(directory, [{ ...inner, mediaType: indexType }]);
    writeIndex(directory, { schemaVersion: 2, manifests: [{ ...outer, annotations: refName('multi') }] });
    expect([result(directory), result(directory, ':multi')]).toEqual([amd.digest, amd.digest]);
    expect(open(directory).choice).toEqual([
      { digest: inner.digest, platform: undefined, verdict: 'not-the-best' },
      { digest: arm.digest, platform: 'linux/arm64', verdict: 'other-platform' },
      { digest: amd.digest, platform: 'linux/amd64', verdict: 'chosen' },
    ]);
    expect(open(directory, '', { os: 'linux', architecture: 'arm64' }).manifestDigest).toBe(arm.digest);
    expect(() => open(directory, '', { os: 'linux', architecture: 's390x' })).toThrow('Image is not made for linux/s390x'.toLowerCase().slice(1)); // prettier-ignore
  });

  test('is found by its config where the index states no platform', () => {
    const directory = scratchDir();
    const arm = ociLayout(directory, { ...one, architecture: 'arm64' }).manifest;
    const amd = ociLayout(directory, one).manifest;
    const both = index(directory, [{ ...arm }, { ...amd }]);
    writeIndex(directory, { schemaVersion: 2, manifests: [both] });
    expect(result(directory)).toBe(amd.digest);
  });

  test('whose layers skopeo has unpacked is read as plain', () => {
    const directory = scratchDir();
    const digest = sha256(layer.tar);
    const { manifest } = ociLayout(directory, { layers: [{ tar: layer.tar, blob: layer.tar }] });
    const read = (options: { isUnpacked?: boolean }) => {
      const { mediaType, size } = manifest;
      const top = { mediaType, size, digest: manifest.digest as OciDigest, annotations: new Map<string, string>() };
      const resolving = resolveImage(top, amd64, options);
      let step = resolving.next();
      while (step.done !== true) {
        step = resolving.next(readFileSync(`${directory}/blobs/${step.value.descriptor.digest.replace(':', '/')}`));
      }
      return step.value.layers.map(({ descriptor }) => [descriptor.digest, descriptor.compression]);
    };
    expect(read({ isUnpacked: true })).toEqual([[digest, 'none']]);
    expect(() => read({})).toThrow('digest of its compressed blob');
  });

  test('may be embedded in descriptors', () => {
    const directory = scratchDir();
    const built = ociLayout(directory, one);
    const data = execFileSync('base64', [
      '-w0',
      `${directory}/blobs/${built.manifestDigest.replace(':', '/')}`,
    ]).toString();
    rmSync(`${directory}/blobs/${built.manifestDigest.replace(':', '/')}`);
    writeIndex(directory, { schemaVersion: 2, manifests: [{ ...built.manifest, data }] });
    expect(result(directory)).toBe(built.manifestDigest);
  });
});

describe('what is refused', () => {
  test.each<readonly [string, LayoutSpec, string]>([
    ['another architecture', { ...one, architecture: 'arm64' }, 'image-unsupported: image is not made for linux/amd64, only for "linux/arm64"'],
    ['another system', { ...one, os: 'windows' }, 'image-unsupported: image is not made for linux/amd64, only for "windows/amd64"'],
    ['no layers', { layers: [] }, 'image-unsupported: manifest has no layers'],
    ['a layout of the future', { ...one, layoutFile: '{"imageLayoutVersion":"2.0.0"}' }, 'image-unsupported: layout has the version "2.0.0" instead of "1.0.0"'],
    ['a layout file that is no JSON', { ...one, layoutFile: 'x' }, 'image-invalid: file "oci-layout" is not JSON (at character 0)'],
    ['a layout file of 5 KiB', { ...one, layoutFile: ' '.repeat(5000) }, 'image-unsupported: file "DIR/oci-layout" has more than 4096 bytes'],
    ['an index with a name twice', { ...one, editIndex: () => '{"schemaVersion":2,"schemaVersion":2}' }, 'image-invalid: file "index.json" gives "schemaVersion" twice (at character 34)'],
    ['an index of 5 MiB', { ...one, editIndex: () => ' '.repeat(5 << 20) }, 'image-unsupported: file "DIR/index.json" has more than 4194304 bytes'],
    ['a manifest with a name twice', { ...one, editManifest: () => '{"config":{},"config":{}}' }, 'image-invalid: manifest gives "config" twice (at character 21)'],
    ['a config with a name twice', { ...one, editConfig: () => '{"os":"linux","os":"x"}' }, 'image-invalid: config gives "os" twice (at character 18)'],
    ['a diff id that is the digest of the compressed blob', { layers: [{ ...layer, blob: Buffer.from('x'), diffId: sha256(Buffer.from('x')) }] }, 'image-invalid: layer 1 of 1 has a diff id that is the digest of its compressed blob'],
  ])('%s', (_title, spec, expected) => {
    const directory = scratchDir();
    ociLayout(directory, spec);
    expect(result(directory)).toBe(expected);
  }); // prettier-ignore

  test('a directory that is none, or no layout', () => {
    const directory = scratchDir();
    expect(result(`${directory}/none`)).toBe(
      'image-not-found: image has no file "DIR/oci-layout"'.replace('DIR', 'DIR'),
    );
    mkdirSync(`${directory}/oci-layout`);
    expect(result(directory)).toBe('image-invalid: "DIR/oci-layout" is not a regular file');
  });

  test.each<readonly [string, (directory: string, manifest: Descriptor) => unknown, RegExp]>([
    ['a manifest of another size', (_d, m) => ({ ...m, size: m.size + 1 }), /^size-mismatch: manifest sha256:\w+ "DIR\/blobs\/sha256\/\w+" has \d+ bytes instead of \d+$/],
    ['a manifest with other content', (d, m) => (writeBlob(d, Buffer.alloc(m.size, ' '), m.digest), m), /^digest-mismatch: manifest /],
    ['a manifest that is longer than it says', (d, m) => (writeBlob(d, Buffer.alloc(m.size + 5, ' '), m.digest), m), /^size-mismatch: manifest /],
    ['a manifest that is missing', (_d, m) => ({ ...m, digest: sha256(Buffer.from('nothing')) }), /^image-not-found: image has no file/],
    ['a manifest that claims 5 MiB', (_d, m) => ({ ...m, size: 5 << 20 }), /^image-unsupported: manifest sha256:\w+ has 5242880 bytes/],
    ['a digest that is a path', (_d, m) => ({ ...m, digest: 'sha256:../../../../etc/passwd' }), /^image-invalid: entry 1 of the file "index\.json": digest "sha256:\.\.\/\.\.\/\.\.\/\.\.\/etc\/passwd" is not a digest$/],
    ['a manifest that is said to be an index', (_d, m) => ({ ...m, mediaType: indexType }), /^image-invalid: index says it is/],
    ['Docker schema 1', (_d, m) => ({ ...m, mediaType: 'application/vnd.docker.distribution.manifest.v1+prettyjws' }), /^image-unsupported: manifest sha256:\w+ is of Docker schema 1$/],
    ['data that is not the manifest', (_d, m) => ({ ...m, data: 'e30=' }), /^size-mismatch: manifest sha256:\w+ embedded/],
    ['an index that says amd64 of an image for arm64', (d) => ({ ...index(d, [{ ...ociLayout(d, { ...one, architecture: 'arm64' }).manifest, ...platform('amd64') }]) }), /^image-invalid: index and config of sha256:\w+ state different platforms$/],
    ['nine nested indexes', (d, m) => nest(d, m, 9), /^image-unsupported: indexes are nested deeper than 8$/],
  ])('%s', (_title, edit, expected) => {
    const directory = scratchDir();
    const { manifest } = ociLayout(directory, one);
    const entry = edit(directory, manifest);
    writeIndex(directory, { schemaVersion: 2, manifests: [entry] });
    expect(result(directory)).toMatch(expected);
  }); // prettier-ignore

  test('no blob that is a pipe, a device or a directory', () => {
    const directory = scratchDir();
    const { manifestDigest } = ociLayout(directory, one);
    const file = `${directory}/blobs/${manifestDigest.replace(':', '/')}`;
    for (const make of [
      () => execFileSync('mkfifo', [file]),
      () => symlinkSync('/dev/zero', file),
      () => mkdirSync(file),
    ]) {
      rmSync(file, { recursive: true });
      make();
      expect(result(directory)).toBe(
        `image-invalid: "DIR/blobs/${manifestDigest.replace(':', '/')}" is not a regular file`,
      );
    }
  });

  test('indexes that name one child many times on every level are walked once', () => {
    const directory = scratchDir();
    const { manifest } = ociLayout(directory, { ...one, architecture: 'arm64' });
    let entry: Json = { ...manifest };
    for (let level = 0; level < 7; level++) entry = { ...index(directory, Array<Json>(100).fill(entry)) };
    writeIndex(directory, { schemaVersion: 2, manifests: [entry] });
    expect(result(directory)).toBe('image-unsupported: image is not made for linux/amd64, only for "linux/arm64"');
  });

  test('more documents than any image has', () => {
    const directory = scratchDir();
    ociLayout(directory, one);
    const many = (prefix: string): Json[] => Array.from({ length: 999 }, (_, i) => ({ ...index(directory, [{ mediaType: 'text/plain', digest: sha256(Buffer.from(`${prefix}${i}`)), size: 1 }]) })); // prettier-ignore
    const top = index(directory, [{ ...index(directory, many('a')) }, { ...index(directory, many('b')) }]);
    writeIndex(directory, { schemaVersion: 2, manifests: [top] });
    expect(result(directory)).toBe('image-unsupported: image has more than 1000 documents');
  });
});

function nest(directory: string, manifest: Descriptor, levels: number): Json {
  let entry: Json = { ...manifest };
  for (let level = 0; level < levels; level++) entry = { ...index(directory, [entry]) };
  return entry;
}

test('the files of a layout are only read', () => {
  const directory = scratchDir();
  ociLayout(directory, one);
  writeFileSync(`${directory}/stray`, 'x');
  const before = execFileSync('find', [directory, '-type', 'f', '-printf', '%P %s %T@\n']).toString();
  open(directory);
  expect(execFileSync('find', [directory, '-type', 'f', '-printf', '%P %s %T@\n']).toString()).toBe(before);
});
