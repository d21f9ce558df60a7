/** Digests, descriptors, manifests, configs and indexes: section 1 of the layer rules. */

import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../../src/errors.ts';
import { parseImageConfig } from '../../../src/format/oci/config.ts';
import {
  embeddedContent,
  parseDescriptor,
  type Descriptor,
  type Platform,
} from '../../../src/format/oci/descriptor.ts';
import { blobPath, parseOciDigest } from '../../../src/format/oci/digest.ts';
import { entriesForPlatform, parseIndex, platformDistance } from '../../../src/format/oci/index.ts';
import { parseJsonObject, type JsonValue } from '../../../src/format/oci/json.ts';
import { checkOciLayout, chooseByTag } from '../../../src/format/oci/layout.ts';
import { parseManifest } from '../../../src/format/oci/manifest.ts';
import { mediaTypeRole, mediaTypes } from '../../../src/format/oci/media-types.ts';
import { sha256, type Json } from '../../helpers/oci-builder.ts';

const hex = (char: string, length = 64): string => char.repeat(length);
const digestA = `sha256:${hex('a')}`;
const digestB = `sha256:${hex('b')}`;
const bytes = (value: unknown): Uint8Array => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const json = (value: unknown): JsonValue => parseJsonObject(bytes({ value }), 'Test', 1 << 20).get('value')!;

/** The code and message of what is thrown. */
function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof HostctlError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'accepted';
}

describe('digests', () => {
  test.each([digestA, `sha512:${hex('0', 128)}`])('accepts %s', (text) => {
    expect(blobPath(parseOciDigest(text, 'Digest'))).toBe(`blobs/${text.replace(':', '/')}`);
  });

  test.each([
    ['', 'image-invalid: Digest "" is not a digest'],
    ['sha256:', 'image-invalid: Digest "sha256:" is not a digest'],
    [`sha256:${hex('A')}`, `image-invalid: Digest "sha256:${hex('A')}" is not a digest`],
    [`sha256:${hex('a', 63)}`, `image-invalid: Digest "sha256:${hex('a', 63)}" is not a digest`],
    [`sha512:${hex('a')}`, `image-invalid: Digest "sha512:${hex('a')}" is not a digest`],
    [`${digestA}\n`, `image-invalid: Digest "${digestA}\\x0a" is not a digest`],
    [`${digestA}\0`, `image-invalid: Digest "${digestA}\\x00" is not a digest`],
    ['sha256:../../etc/passwd', 'image-invalid: Digest "sha256:../../etc/passwd" is not a digest'],
    ['../x:aa', 'image-invalid: Digest "../x:aa" is not a digest'],
    [
      `sha384:${hex('a', 96)}`,
      `image-unsupported: Digest "sha384:${hex('a', 96)}" has an algorithm that hostctl does not know`,
    ],
    ['blake3:abc', 'image-unsupported: Digest "blake3:abc" has an algorithm that hostctl does not know'],
  ])('refuses %j', (text, message) => {
    expect(refusal(() => parseOciDigest(text, 'Digest'))).toBe(message);
  });
});

describe('media types', () => {
  test.each([
    ['application/vnd.oci.image.layer.v1.tar+GZIP; charset=utf-8', { role: 'layer', compression: 'gzip' }],
    ['application/vnd.docker.image.rootfs.diff.tar.zstd', { role: 'layer', compression: 'zstd' }],
    ['application/vnd.oci.image.layer.nondistributable.v1.tar', { role: 'layer', compression: 'none' }],
    ['application/vnd.oci.image.layer.v1.tar+gzip+encrypted', { role: 'unknown' }],
    ['__proto__', { role: 'unknown' }],
  ])('%s', (mediaType, role) => {
    expect(mediaTypeRole(mediaType)).toEqual(role);
  });
});

const layerValue = { mediaType: mediaTypes.ociLayerGzip, digest: digestA, size: 5 };
const configValue = { mediaType: mediaTypes.ociConfig, digest: digestB, size: 7 };

describe('descriptors', () => {
  test('are read with all that hostctl uses', () => {
    const value = {
      ...layerValue,
      annotations: { __proto__x: 'y', a: 'b' },
      platform: { os: 'linux', architecture: 'arm', variant: 'v7', 'os.version': 'ignored' },
      urls: ['https://example.com/never-fetched'],
      unknown: [1, null],
    };
    expect(parseDescriptor(json(value), 'Layer')).toEqual({
      ...layerValue,
      annotations: new Map([['__proto__x', 'y'], ['a', 'b']]), // prettier-ignore
      platform: { os: 'linux', architecture: 'arm', variant: 'v7' },
    });
  });

  test.each<readonly [string, unknown, string]>([
    ...[-1, 1.5, 2 ** 53, '5', null, true, [5]].map((size) => [`the size ${JSON.stringify(size)}`, { ...layerValue, size }, 'Layer has a field "size" that is not a size'] as const),
    ['no size', { mediaType: 'a', digest: digestA }, 'Layer has no "size"'],
    ['no digest', { mediaType: 'a', size: 1 }, 'Layer has no "digest"'],
    ['no media type', { digest: digestA, size: 1 }, 'Layer has no "mediaType"'],
    ['a digest that is a path', { ...layerValue, digest: 'sha256:../x' }, 'Layer: digest "sha256:../x" is not a digest'],
    ['annotations that are no strings', { ...layerValue, annotations: { a: 1 } }, 'Layer has a field "annotations.a" that is not a string'],
    ['a platform without os', { ...layerValue, platform: { architecture: 'amd64' } }, 'Layer: platform has no "os"'],
    ['no object', 'text', 'Layer is not a descriptor'],
  ])('with %s are refused', (_title, value, message) => {
    expect(refusal(() => parseDescriptor(json(value), 'Layer'))).toBe(`image-invalid: ${message}`);
  }); // prettier-ignore

  test.each([
    ['is used when it fits', 'hello', 'aGVsbG8=', 'hello'],
    [
      'is refused when it has another digest',
      'hello',
      'aGVsbE8=',
      /^digest-mismatch: Config embedded in its descriptor has the digest/,
    ],
    ['is refused when it has another size', 'hello', 'aGVsbG9v', /^size-mismatch: .* has 6 bytes instead of 5/],
    ['is refused when it is no base64', 'hello', 'aGVsbG8', /^image-invalid: Config is embedded .* not as base64/],
  ])('embedded data %s', (_title, content, data, expected) => {
    const descriptor = parseDescriptor(
      json({ mediaType: 'a', digest: sha256(Buffer.from(content)), size: content.length, data }),
      'Config',
    );
    if (typeof expected === 'string')
      expect(Buffer.from(embeddedContent(descriptor, 'Config')!).toString()).toBe(expected);
    else expect(refusal(() => embeddedContent(descriptor, 'Config'))).toMatch(expected);
  });
});

describe('manifests', () => {
  const manifest: Json = {
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: configValue,
    layers: [layerValue, layerValue],
  };
  const parse = (value: unknown, mediaType: string = mediaTypes.ociManifest) => parseManifest(bytes(value), mediaType);

  test('are read in the order of their layers', () => {
    const layer = { ...layerValue, annotations: new Map(), compression: 'gzip' };
    expect(parse({ ...manifest, annotations: { a: 'b' } })).toEqual({
      config: { ...configValue, annotations: new Map() },
      layers: [layer, layer],
      annotations: new Map([['a', 'b']]),
    });
  });

  test.each<readonly [string, unknown, string]>([
    ['schema version 1', { ...manifest, schemaVersion: 1 }, 'image-unsupported: Manifest is of Docker schema 1'],
    ['no schema version', { ...manifest, schemaVersion: '2' }, 'image-invalid: Manifest does not state "schemaVersion" 2'],
    ['another media type than its descriptor', { ...manifest, mediaType: mediaTypes.ociIndex }, `image-invalid: Manifest says it is "${mediaTypes.ociIndex}", its descriptor "${mediaTypes.ociManifest}"`],
    ['manifests too', { ...manifest, manifests: [] }, 'image-invalid: Manifest has "manifests" too, so it could be read as an index'],
    ['no layers', { ...manifest, layers: [] }, 'image-unsupported: Manifest has no layers'],
    ['513 layers', { ...manifest, layers: Array<unknown>(513).fill(layerValue) }, 'image-unsupported: Manifest has 513 layers, at most 512 are read'],
    ['layers that are no array', { ...manifest, layers: {} }, 'image-invalid: Manifest has a field "layers" that is not an array'],
    ['an encrypted layer', { ...manifest, layers: [{ ...layerValue, mediaType: `${mediaTypes.ociLayerGzip}+encrypted` }] }, `image-unsupported: Layer 1 of 1 has the media type "${mediaTypes.ociLayerGzip}+encrypted"`],
    ['a layer over 64 GiB', { ...manifest, layers: [{ ...layerValue, size: 2 ** 36 + 1 }] }, 'image-unsupported: Layer 1 of 1 has 68719476737 bytes, at most 68719476736 are read'],
    ['a config of another kind', { ...manifest, config: { ...configValue, mediaType: 'application/vnd.oci.empty.v1+json' }, artifactType: 'text/x\u001b[31m' }, 'image-unsupported: Manifest is not an image but "text/x\\x1b[31m"'],
    ['no config', { schemaVersion: 2, layers: [layerValue] }, 'image-invalid: Config of the manifest is not a descriptor'],
  ])('with %s are refused', (_title, value, message) => {
    expect(refusal(() => parse(value))).toBe(message);
  }); // prettier-ignore
});

describe('configs', () => {
  const config: Json = { os: 'linux', architecture: 'arm64', variant: 'v8', created: '2026-01-01T00:00:00Z', rootfs: { type: 'layers', diff_ids: [digestA] }, config: { Labels: { v: '1' } } }; // prettier-ignore

  test('are read for platform, diff ids and labels', () => {
    expect(parseImageConfig(bytes(config), 1)).toEqual({
      platform: { os: 'linux', architecture: 'arm64', variant: 'v8' },
      diffIds: [digestA],
      labels: new Map([['v', '1']]),
      created: '2026-01-01T00:00:00Z',
    });
  });

  test.each([{ config: null }, { config: { Labels: null } }, { config: undefined }])(
    'without labels (%j) have none',
    (change) => {
      expect(parseImageConfig(bytes({ ...config, ...change }), 1).labels).toEqual(new Map());
    },
  );

  test.each<readonly [string, Json, string]>([
    [
      'another count of diff ids',
      { rootfs: { type: 'layers', diff_ids: [digestA, digestB] } },
      'Config has 2 diff ids for 1 layers',
    ],
    [
      'another rootfs type',
      { rootfs: { type: 'erofs', diff_ids: [digestA] } },
      'Config has a "rootfs" that is not of type "layers"',
    ],
    ['no rootfs', { rootfs: undefined }, 'Config has no "rootfs"'],
    [
      'diff ids that are no array',
      { rootfs: { type: 'layers', diff_ids: 'x' } },
      'Config: rootfs has a field "diff_ids" that is not an array',
    ],
    [
      'a diff id that is no digest',
      { rootfs: { type: 'layers', diff_ids: ['x'] } },
      'Config: diff id 1 "x" is not a digest',
    ],
    [
      'a diff id that is no string',
      { rootfs: { type: 'layers', diff_ids: [1] } },
      'Config has a diff id 1 that is not a string',
    ],
    ['no architecture', { architecture: undefined }, 'Config has no "architecture"'],
  ])('with %s are refused', (_title, change, message) => {
    expect(refusal(() => parseImageConfig(bytes({ ...config, ...change }), 1))).toBe(`image-invalid: ${message}`);
  });
});

describe('indexes', () => {
  const manifestType = mediaTypes.ociManifest;
  type Entry = Json & { platform?: Json };
  const entries = (list: readonly Entry[]): readonly Descriptor[] =>
    parseIndex(bytes({ schemaVersion: 2, manifests: list.map((entry, i) => ({ mediaType: manifestType, digest: `sha256:${hex((i + 1).toString(16))}`, size: 1, ...entry })) }), mediaTypes.ociIndex); // prettier-ignore
  const chosen = (list: readonly Entry[], host: Platform): number[] =>
    entriesForPlatform(entries(list), host).map(({ digest }) => Number(digest.at(-1)));
  const platform = (text: string): Entry => {
    const [os, architecture, variant] = text.split('/');
    return { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } };
  };
  const amd64 = { os: 'linux', architecture: 'amd64' };

  test.each<readonly [string, readonly Entry[], Platform, number[]]>([
    ['the first of several that fit', [platform('linux/arm64'), platform('linux/amd64'), platform('linux/amd64')], amd64, [2, 3]],
    ['none of another system', [platform('windows/amd64'), platform('linux/riscv64')], amd64, []],
    ['no attestations', [{ ...platform('linux/amd64'), annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } }, platform('unknown/unknown')], amd64, []],
    ['no types it does not know', [{ ...platform('linux/amd64'), mediaType: 'text/plain' }], amd64, []],
    ['an entry without platform, if no other fits', [{}, platform('linux/arm64')], amd64, [1]],
    ['no entry without platform, if another fits', [{}, platform('linux/amd64')], amd64, [2]],
    ['the exact variant before lower ones', [platform('linux/arm/v5'), platform('linux/arm/v6'), platform('linux/arm/v7')], { os: 'linux', architecture: 'arm', variant: 'v6' }, [2, 1]],
    ['arm64 without variant as v8', [platform('linux/arm64/v9'), platform('linux/arm64/v8')], { os: 'linux', architecture: 'arm64' }, [2]],
    ['the lower levels of amd64', [platform('linux/amd64'), platform('linux/amd64/v4'), platform('linux/amd64/v2')], { ...amd64, variant: 'v3' }, [3, 1]],
  ])('yield %s', (_title, list, host, expected) => {
    expect(chosen(list, host)).toEqual(expected);
  }); // prettier-ignore

  test.each([
    ['linux/arm/v7', 'linux/arm/v6', undefined],
    ['linux/arm/v6', 'linux/arm', 1],
    ['linux/arm64/v8', 'linux/arm64', 0],
    ['linux/ppc64le/power9', 'linux/ppc64le/power9', 0],
    ['linux/ppc64le/power9', 'linux/ppc64le', undefined],
    ['linux/amd64/constructor', 'linux/amd64', undefined],
  ])('an image for %s on %s is %s levels below', (image, host, distance) => {
    expect(platformDistance(platform(image).platform as never, platform(host).platform as never)).toBe(distance);
  });

  test.each<readonly [string, unknown, string]>([
    ['layers too', { schemaVersion: 2, manifests: [], layers: [] }, 'image-invalid: Index has "layers" or "config" too, so it could be read as a manifest'],
    ['1001 entries', { schemaVersion: 2, manifests: Array<unknown>(1001).fill(layerValue) }, 'image-unsupported: Index has 1001 entries, at most 1000 are read'],
    ['no manifests', { schemaVersion: 2 }, 'image-invalid: Index has no "manifests"'],
    ['a name twice', '{"schemaVersion":2,"manifests":[],"manifests":[]}', 'image-invalid: Index gives "manifests" twice (at character 45)'],
    ['a manifest\'s media type', { schemaVersion: 2, mediaType: manifestType, manifests: [] }, `image-invalid: Index says it is "${manifestType}", its descriptor "${mediaTypes.ociIndex}"`],
  ])('with %s are refused', (_title, value, message) => {
    expect(refusal(() => parseIndex(bytes(value), mediaTypes.ociIndex))).toBe(message);
  }); // prettier-ignore

  const tagged = (tag: string, extra: Entry = {}): Entry => ({
    annotations: { 'org.opencontainers.image.ref.name': tag },
    ...extra,
  });
  const one = { digest: digestA };

  test.each<readonly [string, readonly Entry[], string | undefined, number | string]>([
    ['the only entry, whatever its name', [tagged('x')], undefined, 1],
    ['the entry of that tag', [tagged('x'), tagged('y')], 'y', 2],
    ['a tag given twice to one image', [tagged('x', one), tagged('x', one)], 'x', 10],
    ['the image beside an attestation', [{ platform: { os: 'unknown', architecture: 'unknown' } }, {}], undefined, 2],
    ['no tag that is not there', [tagged('x')], 'y', 'image-not-found: Layout holds no image tagged "y", but "x"'],
    ['no tag given to two images', [tagged('x'), tagged('x')], 'x', 'image-invalid: Layout holds different images tagged "x"'],
    ['none of several without a tag', [tagged('x\n'), {}], undefined, `usage: Layout holds 2 images, but "x\\x0a", "sha256:${hex('2')}"`],
    ['nothing from an empty layout', [], undefined, 'image-not-found: Layout holds no image'],
  ])('of a layout yield %s', (_title, list, tag, expected) => {
    const choose = (): Descriptor => chooseByTag(entries(list), tag);
    if (typeof expected === 'string') expect(refusal(choose)).toBe(expected);
    else expect(Number.parseInt(choose().digest.at(-1)!, 16)).toBe(expected);
  }); // prettier-ignore
});

test.each([
  ['{"imageLayoutVersion":"1.0.0"}', 'accepted'],
  ['{"imageLayoutVersion":"1.0.0","x":1}', 'accepted'],
  ['{"imageLayoutVersion":"2.0.0"}', 'image-unsupported: Layout has the version "2.0.0" instead of "1.0.0"'],
  ['{}', 'image-unsupported: Layout has the version "" instead of "1.0.0"'],
  ['1.0.0', 'image-invalid: File "oci-layout" has something behind its end (at character 3)'],
])('the layout file %j is %s', (text, result) => {
  expect(refusal(() => checkOciLayout(bytes(text)))).toBe(result);
});
