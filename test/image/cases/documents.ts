/** Documents, platforms and compression: rules D and C. */

import { appendFileSync, rmSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import {
  f,
  refused,
  withField,
  type CaseLayer,
  type CaseOptions,
  type ImageCase,
  type Refusal,
} from '../../helpers/image-cases.ts';
import {
  layerTypes,
  refName,
  sha256,
  writeJson,
  zstd,
  type Descriptor,
  type Json,
  type LayerSpec,
} from '../../helpers/oci-builder.ts';
import { tar, tarDir, tarFile } from '../../helpers/tar-builder.ts';

const archive = tar([tarDir('usr'), tarFile('a', '1'), tarFile('b', 'y'.repeat(64))]);
const tree = { a: 'f644 1', b: `f644 ${'y'.repeat(64)}` };
const gzip = gzipSync(archive);
const zst = zstd(archive);
const half = archive.length >> 1;
const join = (...parts: readonly (Uint8Array | string)[]): Buffer =>
  Buffer.concat(parts.map((part) => Buffer.from(part as string, 'latin1')));
const skippable = Buffer.from('522a4d1804000000746f6321', 'hex');

const oci = 'application/vnd.oci.image';
const docker = 'application/vnd.docker';
const indexType = `${oci}.index.v1+json`;
const plain: CaseLayer = { tar: archive, compression: 'none' };

/** An image of one layer that needs nothing added. */
const one = (options: CaseOptions): CaseOptions => ({ bare: true, ...options });
const manifest = (edit: (document: Json) => unknown): CaseOptions => one({ layout: { editManifest: edit } });
const config = (edit: (document: Json) => unknown): CaseOptions => one({ layout: { editConfig: edit } });
const index = (edit: (document: Json) => unknown): CaseOptions => one({ layout: { editIndex: edit } });

/** Changes the descriptor of the only layer. */
const layerField = (field: string, value: unknown): CaseOptions =>
  manifest((document) => ({ ...document, layers: [{ ...(document['layers'] as Json[])[0], [field]: value }] }));
/** Changes the only entry of the index. */
const entryField = (change: Json): CaseOptions =>
  index((document) => ({ ...document, manifests: [{ ...(document['manifests'] as Json[])[0], ...change }] }));
/** Replaces the entries of the index, given the only one. */
const entries = (make: (entry: Json) => readonly Json[], tag?: string): CaseOptions => ({
  ...index((document) => ({ ...document, manifests: make((document['manifests'] as Json[])[0]!) })),
  ...(tag === undefined ? {} : { tag }),
});
const other: Json = { mediaType: `${oci}.manifest.v1+json`, digest: sha256(Buffer.from('other')), size: 5 };
const platform = (os: string, architecture: string, variant?: string): Json => ({
  platform: { os, architecture, ...(variant === undefined ? {} : { variant }) },
});

/** Puts the image behind indexes, made from its descriptor once the layout is written. */
function behind(
  make: (directory: string, entry: Descriptor) => readonly Json[],
  layout: CaseOptions['layout'] = {},
): CaseOptions {
  let only: Descriptor | undefined;
  return one({
    layout: { ...layout, editIndex: (document) => ((only = (document['manifests'] as Descriptor[])[0]), document) },
    after: (directory) => writeFileSync(`${directory}/index.json`, JSON.stringify({ schemaVersion: 2, manifests: make(directory, only!) })), // prettier-ignore
  });
}
const nested = (directory: string, manifests: readonly Json[]): Json => ({ ...writeJson(directory, { mediaType: indexType, value: { schemaVersion: 2, manifests } }) }); // prettier-ignore
function nest(directory: string, entry: Json, levels: number): Json {
  return levels === 0 ? entry : nested(directory, [nest(directory, entry, levels - 1)]);
}

const accepted = (rule: string, title: string, options: CaseOptions, layer: CaseLayer = plain): ImageCase => [rule, title, [layer], tree, one(options)]; // prettier-ignore
const bad = (rule: string, title: string, message: RegExp, options: CaseOptions, code?: Refusal['code']): ImageCase => [rule, title, [plain], refused(message, code), one(options)]; // prettier-ignore

export const documentCases: readonly ImageCase[] = [
  accepted('D1', 'an image of one layer', {}),
  accepted('D1', 'more in oci-layout than the version', { layout: { layoutFile: '{"imageLayoutVersion":"1.0.0","x":[1]}' } }),
  bad('D1', 'another version', /layout has the version "2.0.0" instead of "1.0.0"/, { layout: { layoutFile: '{"imageLayoutVersion":"2.0.0"}' } }, 'image-unsupported'),
  bad('D1', 'a version that is a number', /"imageLayoutVersion" that is not a string/, { layout: { layoutFile: '{"imageLayoutVersion":1}' } }),
  bad('D1', 'an oci-layout that is no JSON', /file "oci-layout" is not JSON/, { layout: { layoutFile: 'x' } }),
  bad('D1', 'no oci-layout', /has no file ".*\/oci-layout"/, { after: (at) => rmSync(`${at}/oci-layout`) }, 'image-not-found'),
  bad('D1', 'no index.json', /has no file ".*\/index.json"/, { after: (at) => rmSync(`${at}/index.json`) }, 'image-not-found'),
  bad('D1', 'an empty index.json', /file "index.json" is not JSON/, { after: (at) => writeFileSync(`${at}/index.json`, '') }),
  bad('D1', 'no blobs', /has no file ".*\/blobs\/sha256\/\w+"/, { after: (at) => rmSync(`${at}/blobs`, { recursive: true }) }, 'image-not-found'),
  accepted('D2', 'a single image of any tag', { layout: { tag: 'v1' } }),
  accepted('D2', 'the image of the tag', entries((entry) => [{ ...other, annotations: refName('old') }, { ...entry, annotations: refName('new') }], 'new')),
  accepted('D2', 'a tag that two entries give to one image', entries((entry) => [{ ...entry, annotations: refName('x') }, { ...entry, annotations: refName('x') }], 'x')),
  bad('D2', 'a tag that is not there', /holds no image tagged "v2", but "v1"/, { layout: { tag: 'v1' }, tag: 'v2' }, 'image-not-found'),
  bad('D2', 'a tag of two images', /different images tagged "x"/, entries((entry) => [{ ...other, annotations: refName('x') }, { ...entry, annotations: refName('x') }], 'x')),
  bad('D2', 'two images and no tag', /holds 2 images/, entries((entry) => [{ ...other, annotations: refName('a') }, { ...entry, annotations: refName('b\n') }]), 'usage'),
  bad('D2', 'no image', /holds no image/, entries(() => []), 'image-not-found'),
  accepted('D3', 'Docker schema 2', { layout: { docker: true } }),
  accepted('D3', 'parameters and capitals', layerField('mediaType', 'Application/vnd.OCI.image.layer.v1.tar; charset=utf-8')),
  ...[`${docker}.image.rootfs.diff.tar`, `${oci}.layer.nondistributable.v1.tar`].map((type) => accepted('D3', type, layerField('mediaType', type))),
  ...[`${docker}.image.rootfs.diff.tar.gzip`, `${docker}.image.rootfs.foreign.diff.tar.gzip`, `${oci}.layer.nondistributable.v1.tar+gzip`].map((type) => accepted('D3', type, {}, { tar: archive, compression: 'gzip', mediaType: type })),
  ...[`${docker}.image.rootfs.diff.tar.zstd`, `${oci}.layer.nondistributable.v1.tar+zstd`].map((type) => accepted('D3', type, {}, { tar: archive, blob: zst, mediaType: type })),
  bad('D3', 'Docker schema 1', /is of Docker schema 1/, entryField({ mediaType: `${docker}.distribution.manifest.v1+prettyjws` }), 'image-unsupported'),
  ...[`${layerTypes.gzip}+encrypted`, 'application/vnd.in-toto+json', 'text/plain', `${layerTypes.none}+xz`].map((type) => bad('D3', `a layer of ${type}`, /layer 1 of 1 has the media type/, layerField('mediaType', type), 'image-unsupported')),
  bad('D3', 'a config of another kind', /manifest is not an image but/, manifest((m) => ({ ...m, config: { ...(m['config'] as Json), mediaType: 'application/vnd.oci.empty.v1+json' } })), 'image-unsupported'),
  bad('D3', 'an artifact', /manifest is not an image but "application\/x"/, manifest((m) => ({ ...m, artifactType: 'application/x', config: { ...(m['config'] as Json), mediaType: 'application/vnd.oci.empty.v1+json' } })), 'image-unsupported'),
  accepted('D4', 'the first that fits', behind((at, entry) => [nested(at, [{ ...other, ...platform('linux', 'arm64') }, { ...entry, ...platform('linux', 'amd64') }, { ...other, ...platform('linux', 'amd64') }])])),
  accepted('D4', 'an entry without platform, if no other fits', behind((at, entry) => [nested(at, [{ ...other, ...platform('linux', 'arm64') }, { ...entry }])])),
  accepted('D4', 'an entry that fits before one without platform', behind((at, entry) => [nested(at, [{ ...other }, { ...entry, ...platform('linux', 'amd64') }])])),
  accepted('D4', 'without attestations and unknown types', behind((at, entry) => [nested(at, [{ ...other, ...platform('linux', 'amd64'), annotations: { 'vnd.docker.reference.type': 'attestation-manifest' } }, { ...other, ...platform('unknown', 'unknown') }, { ...other, ...platform('linux', 'amd64'), mediaType: 'text/plain' }, { ...entry, ...platform('linux', 'amd64') }])])),
  accepted('D4', 'an index in an index in an index', behind((at, entry) => [nest(at, { ...entry }, 3)])),
  accepted('D4', 'eight levels', behind((at, entry) => [nest(at, { ...entry }, 8)])),
  bad('D4', 'nine levels', /nested deeper than 8/, behind((at, entry) => [nest(at, { ...entry }, 9)]), 'image-unsupported'),
  bad('D4', 'nothing that fits', /not made for linux\/amd64, only for "linux\/arm64", "windows\/amd64"/, behind((at) => [nested(at, [{ ...other, ...platform('linux', 'arm64') }, { ...other, ...platform('windows', 'amd64') }])]), 'image-unsupported'),
  bad('D4', 'a higher variant only', /not made for linux\/amd64/, behind((at) => [nested(at, [{ ...other, ...platform('linux', 'amd64', 'v3') }])]), 'image-unsupported'),
  bad('D4', '1,001 entries', /1001 entries, at most 1000/, entries((entry) => Array<Json>(1001).fill(entry)), 'image-unsupported'),
  bad('D5', 'another architecture', /not made for linux\/amd64, only for "linux\/arm64"/, { layout: { architecture: 'arm64' } }, 'image-unsupported'),
  bad('D5', 'another system', /only for "windows\/amd64"/, { layout: { os: 'windows' } }, 'image-unsupported'),
  bad('D5', 'an index that says otherwise', /state different platforms/, behind((at, entry) => [nested(at, [{ ...entry, ...platform('linux', 'amd64') }])], { architecture: 'arm64' })),
  ...[-1, 1.5, '5', null, true, 2 ** 53].map((size) => bad('D6', `the size ${JSON.stringify(size)}`, /"size"/, layerField('size', size))),
  bad('D6', 'a size too large', /has \d+ bytes instead of \d+/, layerField('size', archive.length + 1), 'size-mismatch'),
  bad('D6', 'a size too small', /has \d+ bytes instead of \d+/, layerField('size', archive.length - 1), 'size-mismatch'),
  ...[`sha256:${'A'.repeat(64)}`, `sha256:${'a'.repeat(63)}`, 'sha256:../../etc/passwd', `sha512:${'a'.repeat(64)}`, '', `sha256:${'a'.repeat(64)}\n`, `sha256:${'a'.repeat(63)}\0`].map((digest) => bad('D6', `the digest ${JSON.stringify(digest)}`, /is not a digest/, layerField('digest', digest))),
  bad('D6', 'an algorithm that is not known', /algorithm that hostctl does not know/, layerField('digest', `sha384:${'a'.repeat(96)}`), 'image-unsupported'),
  bad('D6', 'a blob that is another', /blob has the digest/, { after: (at) => writeFileSync(`${at}/blobs/${sha256(archive).replace(':', '/')}`, Buffer.alloc(archive.length)) }, 'digest-mismatch'),
  bad('D6', 'embedded data of another size', /embedded in its descriptor has 2 bytes instead of/, entryField({ data: 'e30=' }), 'size-mismatch'),
  bad('D6', 'embedded data that is no base64', /embedded in its descriptor, but not as base64/, entryField({ data: '*' })),
  accepted('D7', 'unknown fields, and names of JavaScript', manifest((m) => JSON.stringify({ ...m, x: null, toString: 1 }).replace('{', '{"__proto__":{"layers":[]},'))),
  bad('D7', 'a byte order mark', /is not JSON|byte order mark/, manifest((m) => `\ufeff${JSON.stringify(m)}`)),
  bad('D7', 'a name twice', /manifest gives "schemaVersion" twice/, manifest((m) => JSON.stringify(m).replace('{', '{"schemaVersion":2,'))),
  bad('D7', 'a name twice, once escaped', /twice/, manifest((m) => JSON.stringify(m).replace('{', '{"schema\\u0056ersion":2,'))),
  bad('D7', 'a name twice, deep in what nobody reads', /twice/, config((c) => JSON.stringify({ ...c, x: 1 }).replace('"x":1', '"x":[{"a":1,"a":2}]'))),
  bad('D7', 'a list', /manifest is not an object|is not a JSON object/i, manifest((m) => JSON.stringify([m]))),
  bad('D7', '33 levels', /nested|deep/, config((c) => JSON.stringify({ ...c, x: 1 }).replace('"x":1', `"x":${'['.repeat(33)}${']'.repeat(33)}`))),
  bad('D7', 'something behind the end', /something behind its end/, manifest((m) => `${JSON.stringify(m)}{}`)),
  bad('D7', 'an index over 4 MiB', /more than 4194304 bytes/, index(() => ' '.repeat((4 << 20) + 1)), 'image-unsupported'),
  bad('D7', 'a manifest over 4 MiB', /has \d+ bytes, at most 4194304/, manifest((m) => JSON.stringify(m) + ' '.repeat(4 << 20)), 'image-unsupported'),
  bad('D7', 'a config over 8 MiB', /has \d+ bytes, at most 8388608/, config((c) => JSON.stringify(c) + ' '.repeat(8 << 20)), 'image-unsupported'),
  bad('D7', 'bytes that are no UTF-8', /UTF-8/, { after: (at) => appendFileSync(`${at}/index.json`, Buffer.from([0xff])) }),
  bad('D8', 'another type in the document', /manifest says it is/, manifest(withField('mediaType', indexType))),
  bad('D8', 'a manifest with manifests', /has "manifests" too/, manifest(withField('manifests', []))),
  bad('D8', 'an index with layers', /"layers" or "config" too/, index(withField('layers', []))),
  bad('D8', 'an index with a config', /"layers" or "config" too/, index(withField('config', {}))),
  bad('D8', 'a manifest that is called an index', /index says it is/, entryField({ mediaType: indexType })),
  bad('D8', 'schema version 1', /is of Docker schema 1/, manifest(withField('schemaVersion', 1)), 'image-unsupported'),
  bad('D8', 'a schema version that is text', /does not state "schemaVersion" 2/, manifest(withField('schemaVersion', '2'))),
  accepted('D9', 'steps without a layer', config(withField('history', [{ empty_layer: true }, { created_by: 'x' }, { empty_layer: true }]))),
  accepted('D9', 'no history', config(withField('history', undefined))),
  ['D9', 'a layer twice', [[f('a', '1'), f('b', '2')], [f('a', '3')], [f('a', '1'), f('b', '2')]], { a: 'f644 1', b: 'f644 2' }],
  ['D9', '512 layers', [...Array.from({ length: 510 }, (_, i) => [f('a', `${i}`)]), [f('b', '1')]], { a: 'f644 509', b: 'f644 1' }, { umoci: 'takes long' }],
  ['D9', '513 layers', Array.from({ length: 512 }, () => [f('a', '1')]), refused(/manifest has 513 layers, at most 512/, 'image-unsupported')],
  ['D9', 'no layers', [], refused(/manifest has no layers/, 'image-unsupported'), { bare: true }],
  bad('D9', 'another kind of root', /"rootfs" that is not of type "layers"/, config(withField('rootfs', { type: 'erofs', diff_ids: [] }))),
  bad('D9', 'a diff id too many', /2 diff ids for 1 layers/, config(withField('rootfs', { type: 'layers', diff_ids: [sha256(archive), sha256(archive)] }))),
  bad('D9', 'no diff id', /0 diff ids for 1 layers/, config(withField('rootfs', { type: 'layers', diff_ids: [] }))),
  bad('D9', 'a diff id that is a number', /diff id 1 that is not a string/, config(withField('rootfs', { type: 'layers', diff_ids: [1] }))),
  bad('D9', 'no rootfs', /has no "rootfs"/, config(withField('rootfs', undefined))),
  accepted('D10', 'junk behind the tar counts', { warnings: ['goes on behind the end'] }, { tar: join(archive, 'junk'), compression: 'gzip' }),
  ['D10', 'another diff id', [{ tar: archive, diffId: sha256(gzip) }], refused(/content has the diff id/, 'digest-mismatch'), one({})],
  ['D10', 'that of the compressed blob', [{ tar: archive, blob: gzip, diffId: sha256(gzip) }], refused(/diff id that is the digest of its compressed blob/), one({})],
  ['D10', 'that of the tar without what follows', [{ tar: archive, blob: gzipSync(join(archive, Buffer.alloc(512))) }], refused(/content has the diff id/, 'digest-mismatch'), one({})],
]; // prettier-ignore

const layer = (blob: Uint8Array, compression: 'none' | 'gzip' | 'zstd', content: Buffer = archive): LayerSpec => ({ tar: content, blob, mediaType: layerTypes[compression] }); // prettier-ignore
const good = (rule: string, title: string, spec: LayerSpec, options: CaseOptions = {}): ImageCase => [rule, title, [spec], tree, one(options)]; // prettier-ignore
const damaged = (rule: string, title: string, spec: LayerSpec, message: RegExp, code?: Refusal['code']): ImageCase => [rule, title, [spec], refused(message, code), one({})]; // prettier-ignore
const flip = (bytes: Uint8Array, at: number): Buffer => Buffer.from(bytes.map((byte, i) => (i === (at < 0 ? bytes.length + at : at) ? byte ^ 0x55 : byte))); // prettier-ignore
/** A gzip header with these flags and fields in front of the deflated data. */
const gzipWith = (flags: number, fields: string): Buffer => join(Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3]), fields, gzip.subarray(10)); // prettier-ignore
/** One member for each 512 bytes, as eStargz and bgzip do. */
const members = Buffer.concat(
  Array.from({ length: archive.length / 512 }, (_, i) => gzipSync(archive.subarray(512 * i, 512 * (i + 1)))),
);
const byUmoci: CaseOptions = { umoci: 'umoci 0.4.7 knows no zstd' };
const stargz = tar([
  tarDir('usr'),
  tarFile('a', '1'),
  tarFile('.no.prefetch.landmark', '\x0f'),
  tarFile('stargz.index.json', '{}'),
]);

export const compressionCases: readonly ImageCase[] = [
  good('C1', 'one member', layer(gzip, 'gzip')),
  good('C1', 'several members, one of them empty', layer(join(gzipSync(archive.subarray(0, half)), gzipSync(''), gzipSync(archive.subarray(half))), 'gzip')),
  good('C1', 'a member for each block', layer(members, 'gzip')),
  good('C1', 'zeros behind', layer(join(gzip, Buffer.alloc(1000)), 'gzip'), { umoci: 'Go refuses zeros behind gzip' }),
  good('C1', 'a file name', layer(gzipWith(8, 'layer.tar\0'), 'gzip')),
  good('C1', 'a comment', layer(gzipWith(16, 'comment\0'), 'gzip')),
  good('C1', 'an extra field', layer(gzipWith(4, '\x04\0abcd'), 'gzip')),
  good('C1', 'a file name, an extra field and a comment', layer(gzipWith(28, '\x02\0ab' + 'n\0' + 'c\0'), 'gzip')),
  good('C1', 'stored without compression', layer(gzipSync(archive, { level: 0 }), 'gzip')),
  damaged('C1', 'a wrong checksum', layer(flip(gzip, -8), 'gzip'), /gzip data is damaged: incorrect data check/),
  damaged('C1', 'a wrong length', layer(flip(gzip, -1), 'gzip'), /gzip data is damaged: incorrect length check/),
  damaged('C1', 'a wrong checksum of the first of two members', layer(join(flip(gzipSync(archive.subarray(0, half)), -8), gzipSync(archive.subarray(half))), 'gzip'), /gzip data is damaged/),
  damaged('C1', 'a stream cut in its trailer', layer(gzip.subarray(0, -3), 'gzip'), /gzip data is damaged: unexpected end of file/),
  damaged('C1', 'a stream cut in its data', layer(gzip.subarray(0, 60), 'gzip'), /gzip data is damaged|ends inside/),
  damaged('C1', 'text behind', layer(join(gzip, 'junk'), 'gzip'), /gzip data is (damaged|followed by something else)/),
  damaged('C1', 'text behind zeros', layer(join(gzip, Buffer.alloc(10), 'junk'), 'gzip'), /gzip data is followed by something else/),
  damaged('C1', 'a member behind zeros', layer(join(gzip, Buffer.alloc(10), gzip), 'gzip'), /gzip data is followed by something else/),
  damaged('C1', 'no byte at all', layer(Buffer.alloc(0), 'gzip'), /gzip data is damaged: unexpected end of file/),
  damaged('C1', 'reserved flags', layer(gzipWith(0xe0, ''), 'gzip'), /gzip data is damaged/),
  damaged('C1', 'another method', layer(flip(gzip, 2), 'gzip'), /gzip data is damaged|content is/),
  good('C2', 'one frame', layer(zst, 'zstd'), byUmoci),
  good('C2', 'several frames, and skippable ones all over', layer(join(skippable, zstd(archive.subarray(0, half)), skippable, skippable, zstd(archive.subarray(half)), skippable), 'zstd'), byUmoci),
  good('C2', 'no checksum', layer(zstd(archive, ['--no-check']), 'zstd'), byUmoci),
  good('C2', 'a window of 128 MiB', layer(zstd(archive, ['--long=27']), 'zstd'), byUmoci),
  good('C2', 'an empty frame', layer(join(zstd(Buffer.alloc(0)), zst), 'zstd'), byUmoci),
  damaged('C2', 'a window of 256 MiB', layer(zstd(archive, ['--ultra', '-1', '--long=28', '--no-content-size']), 'zstd'), /zstd frame has a window of 268435456 bytes/, 'image-unsupported'),
  damaged('C2', 'a wrong checksum', layer(flip(zst, -1), 'zstd'), /zstd data is damaged/),
  damaged('C2', 'a cut frame', layer(zst.subarray(0, -1), 'zstd'), /zstd data is cut off/),
  damaged('C2', 'a cut skippable frame', layer(join(zst, skippable.subarray(0, 9)), 'zstd'), /zstd data is cut off/),
  damaged('C2', 'skippable frames only', layer(skippable, 'zstd', Buffer.alloc(0)), /zstd data has no frame/),
  damaged('C2', 'text behind', layer(join(zst, 'junk'), 'zstd'), /zstd data is followed by something else/),
  damaged('C2', 'gzip behind', layer(join(zst, gzip), 'zstd'), /zstd data is followed by something else/),
  damaged('C2', 'a dictionary', layer(join(Buffer.from('28b52ffd0100' + '05' + '010000', 'hex')), 'zstd'), /dictionary/, 'image-unsupported'),
  good('C3', 'zstd:chunked', layer(join(...Array.from({ length: archive.length / 512 }, (_, i) => zstd(archive.subarray(512 * i, 512 * (i + 1)))), ...[0, 1].map(() => skippable), Buffer.from('502a4d1840000000', 'hex'), Buffer.alloc(56), 'GNUlInUx'), 'zstd'), byUmoci),
  ['C3', 'eStargz, whose own files stay', [layer(join(gzipSync(stargz), gzipSync('')), 'gzip', stargz)], { a: 'f644 1', '.no.prefetch.landmark': 'f644 \\x0f', 'stargz.index.json': 'f644 {}' }, one({})],
  damaged('C4', 'gzip that is called zstd', layer(gzip, 'zstd'), /says zstd, the content is gzip/),
  damaged('C4', 'zstd that is called gzip', layer(zst, 'gzip'), /says gzip, the content is zstd/),
  damaged('C4', 'zstd that is called plain', layer(zst, 'none'), /says plain tar, the content is zstd/),
  damaged('C4', 'gzip that is called plain', layer(gzip, 'none'), /says plain tar, the content is gzip/),
  damaged('C4', 'plain tar that is called gzip', layer(archive, 'gzip', stargz), /gzip data is damaged: incorrect header check/),
  damaged('C4', 'plain tar that is called zstd', layer(archive, 'zstd', stargz), /zstd data is followed by something else/),
  damaged('C4', 'xz', layer(Buffer.from('fd377a585a0000', 'hex'), 'none'), /says plain tar, the content is xz/),
  damaged('C4', 'bzip2', layer(Buffer.from('BZh91AY'), 'gzip'), /says gzip, the content is bzip2/),
  ['C4', 'layers of three kinds in one image', [{ tar: tar([f('a', '1')]), compression: 'gzip' }, { tar: tar([f('b', '2')]), compression: 'zstd' }, { tar: tar([f('c', '3')]), compression: 'none' }], { a: 'f644 1', b: 'f644 2', c: 'f644 3' }, byUmoci],
  ['C5', 'a sparse file far larger than its layer', [[tarFile('s', '', { type: 'S', format: 'gnu', at: [[483, '200000000000']] })]], refused(/more than 1000 times as large as the blob/, 'image-unsupported')],
]; // prettier-ignore
