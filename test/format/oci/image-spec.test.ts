/**
 * The cases by which image-spec tests its JSON schemas, each made here anew: what the specification calls valid is read,
 * what it calls invalid is refused, and where hostctl judges otherwise the reason stands beside the case.
 */

import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../../src/errors.ts';
import { parseImageConfig } from '../../../src/format/oci/config.ts';
import { embeddedContent, parseDescriptor } from '../../../src/format/oci/descriptor.ts';
import { parseIndex } from '../../../src/format/oci/index.ts';
import { parseJsonObject } from '../../../src/format/oci/json.ts';
import { checkOciLayout } from '../../../src/format/oci/layout.ts';
import { parseManifest } from '../../../src/format/oci/manifest.ts';
import { mediaTypes } from '../../../src/format/oci/media-types.ts';
import { sha256, type Json } from '../../helpers/oci-builder.ts';

/** Why hostctl reads what the schema refuses, or the other way round. */
const UNUSED = 'hostctl does not use the field, and nothing of it reaches the host';
const ALGORITHM = 'the schema knows only the form of digests; content can be checked by sha256 and sha512 alone';
const ARTIFACT = 'it is valid, but no image';
const TYPE = 'a type that is not known is passed over, whatever its form; where one is needed, it is refused';

type Verdict = 'valid' | 'invalid';
type Case = readonly [title: string, document: unknown, specification: Verdict, deviation?: string];

const digest = sha256(Buffer.from('layer'));
const hex = digest.slice('sha256:'.length);
const layer: Json = { mediaType: mediaTypes.ociLayerGzip, digest, size: 5 };
const config: Json = { mediaType: mediaTypes.ociConfig, digest, size: 5 };
const manifest: Json = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer] };
const entry: Json = { mediaType: mediaTypes.ociManifest, digest, size: 5 };
const withPlatform: Json = { ...entry, platform: { os: 'linux', architecture: 'amd64' } };
const index: Json = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [withPlatform] };
const image: Json = { os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digest] } };

const without = (document: Json, field: string): Json =>
  Object.fromEntries(Object.entries(document).filter(([name]) => name !== field));
const bytesOf = (document: unknown): Uint8Array =>
  Buffer.from(typeof document === 'string' ? document : JSON.stringify(document));

/** What hostctl says. An error of another kind fails the test. */
function verdict(read: () => unknown): Verdict {
  try {
    read();
    return 'valid';
  } catch (error) {
    if (error instanceof HostctlError && /^image-(?:invalid|unsupported)$/.test(error.code)) return 'invalid';
    throw error;
  }
}

function judge(cases: readonly Case[], read: (document: unknown) => unknown): void {
  test.each(cases)('%s', (_title, document, specification, deviation) => {
    const other: Verdict = specification === 'valid' ? 'invalid' : 'valid';
    expect(verdict(() => read(document))).toBe(deviation === undefined ? specification : other);
  });
}

describe('a descriptor', () => {
  const long = (length: number): string => '1234567890'.repeat(13).slice(0, length);
  const typed = (mediaType: string): Json => ({ ...entry, mediaType });
  const digested = (text: string): Json => ({ ...entry, digest: text });
  const data = { ...entry, mediaType: 'text/plain', data: Buffer.from('layer').toString('base64') };
  const cases: readonly Case[] = [
    ['is whole', entry, 'valid'],
    ['of nothing', { ...entry, digest: sha256(Buffer.alloc(0)), size: 0 }, 'valid'],
    ['without media type', without(entry, 'mediaType'), 'invalid'],
    ['whose type has no subtype', typed('application'), 'invalid', TYPE],
    ['whose type begins with a dot', typed('.foo/bar'), 'invalid', TYPE],
    ['whose subtype begins with a dot', typed('foo/.bar'), 'invalid', TYPE],
    ['whose type is as long as may be', typed(`${long(127)}/${long(127)}`), 'valid'],
    ['whose type is longer', typed(`${long(128)}/bar`), 'invalid', TYPE],
    ['whose subtype is longer', typed(`foo/${long(128)}`), 'invalid', TYPE],
    ['without size', without(entry, 'size'), 'invalid'],
    ['whose size is text', { ...entry, size: '5' }, 'invalid'],
    ['whose size is negative', { ...entry, size: -5 }, 'invalid'],
    ['without digest', without(entry, 'digest'), 'invalid'],
    ['whose digest has no algorithm', digested(`:${hex}`), 'invalid'],
    ['whose digest is an algorithm', digested('sha256'), 'invalid'],
    ['whose algorithm is in capitals', digested(`SHA256:${hex}`), 'invalid'],
    ['whose digest is in capitals', digested(`sha256:${hex.toUpperCase()}`), 'invalid'],
    ['whose algorithm has two separators in a row', digested(`sha256+foo+-b:${hex}`), 'invalid'],
    ...['sha256+b64:', 'sha256+foo-bar:', 'sha256.foo-bar:', 'multihash+base58:', 'sha256+b64u:'].map(
      (algorithm): Case => [`of the algorithm ${algorithm}`, digested(`${algorithm}${hex}`), 'valid', ALGORITHM],
    ),
    ['whose digest is padded', digested('sha256+b64u.unknownlength:YWJjZGVmZ2hp='), 'valid', ALGORITHM],
    ['with a URL', { ...entry, urls: ['https://example.com/a'] }, 'valid'],
    ['with a URL that is none', { ...entry, urls: ['value'] }, 'invalid', UNUSED],
    ['with an artifact type', { ...entry, artifactType: 'application/x.y' }, 'valid'],
    ['with an artifact type that is none', { ...entry, artifactType: 'foo/.bar' }, 'invalid', TYPE],
    ['with data', data, 'valid'],
    ['with data that lacks its padding', { ...data, data: data.data.replace('=', '') }, 'invalid'],
  ];
  judge(cases, (document) => {
    const descriptor = parseJsonObject(bytesOf({ descriptor: document }), 'Test', 1 << 20).get('descriptor')!;
    return embeddedContent(parseDescriptor(descriptor, 'Descriptor'), 'Content');
  });
});

describe('a manifest', () => {
  const withLayers = (...layers: readonly Json[]): Json => ({ ...manifest, layers });
  const odd = { ...layer, digest: `sha256+foo-bar:${hex}` };
  const cases: readonly Case[] = [
    ['of what must be there', withLayers(layer, layer, layer), 'valid'],
    ['with annotations', { ...withLayers(layer, layer), annotations: { a: 'b', c: 'd' } }, 'valid'],
    ['whose config has no media type', { ...manifest, config: { ...config, mediaType: 'invalid' } }, 'invalid'],
    ['whose config has a size in text', { ...manifest, config: { ...config, size: '5' } }, 'invalid'],
    ['whose layer has a size in text', withLayers({ ...layer, size: '5' }), 'invalid'],
    ['without layers', withLayers(), 'invalid'],
    ['with digests of other algorithms', withLayers(odd), 'valid', ALGORITHM],
    ['with a digest of no algorithm', withLayers({ ...layer, digest: `sha256+foo+-b:${hex}` }), 'invalid'],
    ['with a subject', { ...manifest, subject: entry }, 'valid'],
    ['with a subject that is none', { ...manifest, subject: '.nope' }, 'invalid', UNUSED],
    ['of an artifact', { ...manifest, config: { ...config, mediaType: 'application/vnd.a+json' } }, 'valid', ARTIFACT],
    [
      'of an artifact by its type',
      { ...manifest, artifactType: 'application/vnd.a', config: { ...config, mediaType: mediaTypes.ociEmpty } },
      'valid',
      ARTIFACT,
    ],
  ];
  judge(cases, (document) => parseManifest(bytesOf(document), mediaTypes.ociManifest));
});

describe('an index', () => {
  const withEntry = (change: Json): Json => ({ ...index, manifests: [{ ...withPlatform, ...change }] });
  const cases: readonly Case[] = [
    ['of what must be there', { ...index, manifests: [entry] }, 'valid'],
    ['with platforms and annotations', { ...index, annotations: { a: 'b' } }, 'valid'],
    ['whose entry has a type that is none', withEntry({ mediaType: 'invalid' }), 'invalid', TYPE],
    ['whose entry has an empty type', withEntry({ mediaType: '' }), 'invalid', TYPE],
    ['whose entry has a type of somebody', withEntry({ mediaType: 'application/customized.manifest+json' }), 'valid'],
    ['whose entry has a size in text', withEntry({ size: '5' }), 'invalid'],
    ['whose entry has no digest', { ...index, manifests: [without(withPlatform, 'digest')] }, 'invalid'],
    ['whose entry has half a platform', withEntry({ platform: { os: 'linux' } }), 'invalid'],
    ['of artifacts', { ...index, artifactType: 'application/vnd.a+b', manifests: [entry, withPlatform] }, 'valid'],
    ['with a subject', { ...index, subject: entry }, 'valid'],
    ['with a subject that is none', { ...index, subject: 'nope' }, 'invalid', UNUSED],
  ];
  judge(cases, (document) => parseIndex(bytesOf(document), mediaTypes.ociIndex));
});

describe('a config', () => {
  const full: Json = {
    ...image,
    architecture: 'arm64',
    variant: 'v8',
    created: '2026-01-01T00:00:00.123456789Z',
    author: 'A <a@example.com>',
    config: { User: '1:1', ExposedPorts: { '80/tcp': {} }, Env: ['A=b'], Volumes: { '/v': {} }, Labels: { a: 'b' } },
    history: [{ created: '2026-01-01T00:00:00Z', created_by: 'x' }, { empty_layer: true }],
  };
  const cases: readonly Case[] = [
    ['of what must be there', image, 'valid'],
    ['with all there is', full, 'valid'],
    ['whose system is a number', { ...image, os: 123 }, 'invalid'],
    ['whose variant is a number', { ...image, variant: 123 }, 'invalid'],
    ['whose user is a number', { ...image, config: { User: 1234 } }, 'invalid', UNUSED],
    ['whose history is text', { ...image, history: 'text' }, 'invalid', UNUSED],
    ['whose environment holds a number', { ...image, config: { Env: [7353] } }, 'invalid', UNUSED],
    ['whose environment assigns nothing', { ...image, config: { Env: ['foo'] } }, 'invalid', UNUSED],
    ['whose volumes are a list', { ...image, config: { Volumes: ['/var/a'] } }, 'invalid', UNUSED],
    ['that is no JSON', 'no JSON', 'invalid'],
  ];
  judge(cases, (document) => parseImageConfig(bytesOf(document), 1));
});

describe('the mark of a layout', () => {
  const cases: readonly Case[] = [
    ['of version 1.0.0', { imageLayoutVersion: '1.0.0' }, 'valid'],
    ['whose version is no text', '{"imageLayoutVersion": 1.0.0}', 'invalid'],
  ];
  judge(cases, (document) => checkOciLayout(bytesOf(document)));
});
