/**
 * Every parser of what comes from outside. A target takes any bytes and either throws one of hostctl's own errors or
 * ends; where a value can be printed, the print is read again and printed the same.
 */

import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { formatOrigin, parseOrigin } from '../../src/deploy/origin.ts';
import { formatEntry, parseEntry } from '../../src/format/bls/entry.ts';
import { formatHostctlEntryName, parseEntryName, parseHostctlEntryName } from '../../src/format/bls/name.ts';
import { parseBootConfig } from '../../src/format/boot-config.ts';
import { findDigestArguments, formatDigestArgument, joinCmdline, splitCmdline } from '../../src/format/cmdline.ts';
import { parseConfig } from '../../src/format/config.ts';
import { parseDpkgStatus } from '../../src/format/dpkg-status.ts';
import { formatDump } from '../../src/format/dump/format.ts';
import { parseDump } from '../../src/format/dump/parse.ts';
import { inspectImage } from '../../src/format/erofs/inspect.ts';
import { readComposefsImage } from '../../src/format/erofs/reader.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import { findCredentials } from '../../src/format/containers/auth-json.ts';
import { registryEndpoints } from '../../src/format/containers/registries-conf.ts';
import { changeEnvironment, emptyEnvironment, parseEnvironment } from '../../src/format/grub/environment-block.ts';
import { kargsFromFiles } from '../../src/format/kargs-d.ts';
import { formatKeyfile, parseKeyfile } from '../../src/format/keyfile.ts';
import { formatArtifact, parseArtifact } from '../../src/format/oci/artifact.ts';
import { parseImageConfig } from '../../src/format/oci/config.ts';
import { encodeLayerRecord, parseLayerRecord, type LayerKey } from '../../src/format/layer-record.ts';
import type { DiffId, OciDigest } from '../../src/format/oci/digest.ts';
import { parseIndex } from '../../src/format/oci/index.ts';
import { parseManifest } from '../../src/format/oci/manifest.ts';
import { mediaTypes } from '../../src/format/oci/media-types.ts';
import { formatImageReference, parseImageReference } from '../../src/format/oci/reference.ts';
import { parseOsRelease } from '../../src/format/os-release.ts';
import { peSectionPieces, readPeSections } from '../../src/format/pe.ts';
import { parsePolicy } from '../../src/format/policy.ts';
import { quadletImage } from '../../src/format/quadlet.ts';
import { formatRepoMeta, parseRepoMeta } from '../../src/format/repo-meta.ts';
import { parsePublicKey, signBytes } from '../../src/format/seal/key.ts';
import { formatRevoked, parseRevoked } from '../../src/format/seal/revoked.ts';
import { formatSeal, parseSeal } from '../../src/format/seal/seal.ts';
import { formatSignatures, parseSignatures } from '../../src/format/seal/signatures.ts';
import { readBundle, readPayload } from '../../src/format/sigstore.ts';
import { addSubstitutions, FileContexts, parseSelinuxType } from '../../src/format/selinux/file-contexts.ts';
import { parsePaxHeader } from '../../src/format/tar/pax.ts';
import { TarReader } from '../../src/format/tar/reader.ts';
import { TarSplitReader } from '../../src/format/tar/tar-split.ts';
import { parseToc } from '../../src/format/zstd/chunked.ts';
import { ZstdFrameScanner } from '../../src/format/zstd/frames.ts';
import { GzipDecoder } from '../../src/image/decoder.ts';
import { openGunzip } from '../../src/image/gunzip.ts';
import { Flattener } from '../../src/image/flatten.ts';
import { LayerIngest, measuringSink } from '../../src/image/ingest.ts';
import { NO_TOTALS } from '../../src/tree/layer-entry.ts';
import { parseChallenge } from '../../src/image/registry/token.ts';
import { peFile } from '../helpers/pe-builder.ts';
import { knownKey } from '../helpers/seal-keys.ts';
import { sparseEntries } from '../helpers/sparse-builder.ts';
import {
  gnuLong,
  paxHeader,
  paxRecord,
  tar,
  tarDir,
  tarFile,
  tarHardlink,
  tarSymlink,
} from '../helpers/tar-builder.ts';
import { dir, file, link, symlink, tree } from '../helpers/tree-builder.ts';

export interface FuzzTarget {
  readonly name: string;
  /** How many of a thousand executions are its. */
  readonly weight: number;
  readonly maxBytes: number;
  readonly seeds: () => readonly (string | Uint8Array)[];
  /** Ends, or throws. What it returns tells kinds of inputs apart, so that new kinds are kept. */
  readonly run: (bytes: Buffer) => unknown;
  /** Makes an input one that gets past checksums. */
  readonly repair?: (bytes: Buffer) => Buffer;
}

/** A print that is read again must be printed the same. */
function printsBack<T>(print: (value: T) => string, parse: (text: string) => T, value: T): string {
  const printed = print(value);
  const again = print(parse(printed));
  if (again !== printed) throw new Error(`Prints ${JSON.stringify(printed)}, and of that ${JSON.stringify(again)}`);
  return printed;
}

/** The same for what is printed as bytes. */
function bytesBack<T>(print: (value: T) => Uint8Array, parse: (bytes: Uint8Array) => T, value: T): number {
  return printsBack((each: T) => latin1(print(each)), (text) => parse(Buffer.from(text, 'latin1')), value).length % 8;
} // prettier-ignore

const utf8 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const hex = (digit: string, length = 64): string => digit.repeat(length);
const digest = `sha256:${hex('a')}`;
const json = (value: unknown): string => JSON.stringify(value);

const sample = (): ReturnType<typeof tree> => {
  const shared = file('twice', { uid: 0, gid: 0 });
  return tree({
    '/': dir({ uid: 0, gid: 0 }),
    '/a': file('small', { uid: 0, gid: 0, xattrs: { 'user.x': 'y', 'security.selinux': 'label' } }),
    '/b': file('x'.repeat(5000), { uid: 1, gid: 2 }),
    '/c/d': shared,
    '/c/e': link(shared),
    '/l': symlink('c/d', { uid: 0, gid: 0 }),
  });
};
const layers = [
  tar([tarDir('d'), tarFile('d/a', '1'), tarSymlink('l', 'd'), tarHardlink('h', 'd/a'), tarFile('d/.wh.x'), tarFile('e/.wh..wh..opq')]),
  tar([paxHeader({ path: 'p', mtime: '1.5', uid: '7', 'SCHILY.xattr.security.capability': 'c' }), tarFile('x', 'y'), gnuLong('L', 'n'.repeat(120)), tarFile('s'), gnuLong('K', 't'.repeat(120)), tarSymlink('k', 'v')]),
  ...(['old GNU', '0.0', '0.1', '1.0'] as const).map((form) => tar(sparseEntries(form, 'f', [[0, 5], [995, 5]], 1000))),
]; // prettier-ignore

const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: { mediaType: mediaTypes.ociConfig, digest, size: 7 }, layers: [{ mediaType: mediaTypes.ociLayerGzip, digest, size: 5, annotations: { a: 'b' } }] }; // prettier-ignore
const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [{ mediaType: mediaTypes.ociManifest, digest, size: 5, platform: { os: 'linux', architecture: 'arm', variant: 'v7' }, data: 'e30=' }] }; // prettier-ignore
const imageConfig = { os: 'linux', architecture: 'amd64', created: '2026-01-01T00:00:00Z', rootfs: { type: 'layers', diff_ids: [digest] }, config: { Labels: { a: 'b' } } }; // prettier-ignore
const origin = `[origin]\ncontainer-image-reference=oci:/x\n\n[boot]\nboot_type=bls\ndigest=abc\n\n[image]\nmanifest_digest=${digest}\n\n[hostctl]\nid=7\ncomposefs-digest=v1-sha512-12:${hex('0', 128)}\nverity=required\ntitle=A B\nversion=1\nkargs-user=a "b c"\n`;

const seal = `hostctl-seal 1\ndigest v1-sha512-12:${hex('0', 128)}\ndigest v9-new-3:x\nxattrs allowlist-only\nmanifest ${digest}\nname h.example/a\nsecurity-version 3\nexpires 2027-03-01T00:00:00Z\n`;
const policy = json({ default: [{ type: 'reject' }], transports: { docker: { 'h.example/a': [{ type: 'hostctlSealed' }, { type: 'sigstoreSigned', keyPaths: ['/etc/k'], signedIdentity: { type: 'exactRepository', dockerRepository: 'h.example/a' } }] }, oci: { '': [{ type: 'insecureAcceptAnything' }] } } }); // prettier-ignore
const signer = once(() => {
  const { key, publicPem } = knownKey('fuzz');
  return { key, publicPem, publicKey: parsePublicKey(publicPem) };
});

const artifact = (): Uint8Array => {
  const subject = { mediaType: mediaTypes.ociManifest, digest: digest as OciDigest, size: 5 };
  const parts = [{ mediaType: 'text/plain', bytes: Buffer.from('x'), annotations: { a: 'b' } }];
  return formatArtifact({ artifactType: 'application/x', subject, parts }).manifest.bytes;
};

/** Of a statement that is signed, so that what is in it is read. */
const bundle = (): string => {
  const payloadType = 'application/vnd.in-toto+json';
  const predicateType = 'https://sigstore.dev/cosign/sign/v1';
  const payload = Buffer.from(json({ predicateType, subject: [{ digest: { sha256: hex('a') } }] }));
  const signed = Buffer.concat([
    Buffer.from(`DSSEv1 ${payloadType.length} ${payloadType} ${payload.length} `),
    payload,
  ]);
  const sig = Buffer.from(signBytes(signed, signer().key)).toString('base64');
  const dsseEnvelope = { payloadType, payload: payload.toString('base64'), signatures: [{ sig }] };
  return json({ mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json', dsseEnvelope });
};

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}

const layerKey: LayerKey = { diffId: digest as DiffId, algorithm: 'sha256' };

/** Of what the archives hold that become layers. */
function layerRecords(): Buffer[] {
  return layers.map((archive) => {
    const ingest = new LayerIngest(measuringSink('sha256'), 'allowlist-only', NO_TOTALS);
    const reader = new TarReader(ingest);
    reader.push(archive);
    reader.end();
    const used = { ...ingest.used, outputBytes: archive.length };
    return Buffer.concat([...encodeLayerRecord(layerKey, { entries: ingest.entries, used, trailingData: false })].map((piece) => Buffer.from(piece))); // prettier-ignore
  });
}

function checkSummed(record: Buffer): Buffer {
  const content = record.subarray(0, Math.max(0, record.length - 32));
  return Buffer.concat([content, createHash('sha256').update(content).digest()]);
}

/** There is one way to write a record: what is read comes out as it was. */
function readLayerRecord(bytes: Buffer): number {
  const content = parseLayerRecord(bytes, layerKey);
  const again = Buffer.concat([...encodeLayerRecord(layerKey, content)].map((piece) => Buffer.from(piece)));
  if (!again.equals(bytes)) throw new Error(`${bytes.toString('hex')} is written as ${again.toString('hex')}`);
  return content.entries.length;
}

/** Makes the checksum of every block that looks like a header fit. */
export function fixChecksums(archive: Buffer): Buffer {
  for (let at = 0; at + 512 <= archive.length; at += 512) {
    if (archive.toString('latin1', at + 257, at + 262) !== 'ustar') continue;
    archive.fill(' ', at + 148, at + 156);
    let sum = 0;
    for (let i = at; i < at + 512; i++) sum += archive[i]!;
    archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148);
  }
  return archive;
}

function flatten(bytes: Buffer): Flattener {
  const flattener = new Flattener(() => undefined);
  const ingest = new LayerIngest(measuringSink('sha256'), 'keep-user-xattrs', NO_TOTALS);
  let expanded = 0;
  const reader = new TarReader({
    entry(entry) {
      // Holes are cheap to state and dear to expand; their limit is a test of its own.
      expanded += entry.holeBytes;
      if (expanded < 1 << 20) ingest.entry(entry);
      else throw new LargeHole();
    },
    data: (chunk) => ingest.data(chunk),
    entryEnd: () => ingest.entryEnd(),
  });
  reader.push(bytes);
  reader.end();
  flattener.applyLayer(ingest.entries, 'Layer');
  flattener.applyLayer(ingest.entries.filter(({ kind }) => kind !== 'node'), 'Layer again'); // prettier-ignore
  return flattener;
}

class LargeHole extends Error {}

function image(version: 0 | 1 | 2): Uint8Array {
  return writeComposefsImage(sample(), { algorithm: 'sha256', minVersion: version, maxVersion: version }).bytes;
}

export const targets: readonly FuzzTarget[] = [
  {
    name: 'tar and flattening',
    weight: 60,
    maxBytes: 8192,
    seeds: () => layers,
    repair: fixChecksums,
    run(bytes) {
      try {
        return flatten(bytes).finish().entries.size;
      } catch (error) {
        if (error instanceof LargeHole) return 'hole';
        throw error;
      }
    },
  },
  { name: 'PAX', weight: 100, maxBytes: 2048, seeds: () => [Buffer.concat([paxRecord('path', 'a/b'), paxRecord('mtime', '-1.25'), paxRecord('size', '5'), paxRecord('SCHILY.xattr.user.a', 'b')]), Buffer.concat([paxRecord('GNU.sparse.size', '9'), paxRecord('GNU.sparse.map', '0,1,5,2'), paxRecord('GNU.sparse.offset', '0'), paxRecord('GNU.sparse.numbytes', '4')])], run: (bytes) => Object.keys(parsePaxHeader(bytes)).join() },
  { name: 'layer record', weight: 60, maxBytes: 8192, seeds: layerRecords, repair: checkSummed, run: readLayerRecord },
  { name: 'zstd frames', weight: 60, maxBytes: 1024, seeds: () => ['28b52ffd2005290000616263640a', '28b52ffd04582900006162630a00112233', '502a4d180400000061626364', '28b52ffd00582a00006128b52ffd2001090000610a'].map((text) => Buffer.from(text, 'hex')), run: scanZstd },
  { name: 'zstd:chunked table', weight: 30, maxBytes: 2048, seeds: () => [json({ version: 1, tarSplitDigest: digest, entries: [{ type: 'dir', name: 'a' }, { type: 'reg', name: 'b', size: 5, digest, offset: 9, endOffset: 20 }, { type: 'chunk', name: 'b', offset: 15 }] })], run: (bytes) => parseToc(bytes, 1000).files.length },
  { name: 'tar-split', weight: 30, maxBytes: 2048, seeds: () => ['{"type":2,"payload":"AAAA","position":0}\n{"type":1,"name":"a","size":5,"payload":"AAA=","position":1}\n'], run: splitTar },
  { name: 'gzip', weight: 5, maxBytes: 1024, seeds: () => [gzipSync('hello hello hello'), Buffer.concat([gzipSync('a'), gzipSync('b'), Buffer.alloc(20)])], run: unzip },
  { name: 'OCI manifest', weight: 60, maxBytes: 4096, seeds: () => [json(manifest), json({ ...manifest, annotations: { x: 'y' }, artifactType: 'a' })], run: (bytes) => parseManifest(bytes, mediaTypes.ociManifest).layers.length },
  { name: 'OCI index', weight: 60, maxBytes: 4096, seeds: () => [json(index)], run: (bytes) => parseIndex(bytes, mediaTypes.ociIndex).length },
  { name: 'OCI config', weight: 60, maxBytes: 4096, seeds: () => [json(imageConfig)], run: (bytes) => parseImageConfig(bytes, 1).labels.size },
  { name: 'image reference', weight: 100, maxBytes: 300, seeds: () => ['docker://h.example:5000/a/b:tag', `quay.io/a@${digest}`, `docker://h.example/a:t@${digest}`, 'oci:/dir:tag', 'oci-archive:f', 'containers-storage:x', 'dir:/x', 'docker-archive:f:t'], run: (bytes) => printsBack(formatImageReference, parseImageReference, parseImageReference(utf8(bytes))).slice(0, 4) },
  { name: 'dump', weight: 30, maxBytes: 4096, seeds: () => [[...formatDump(sample())].join('')], run: (bytes) => printsBack((root) => [...formatDump(root)].join(''), (text) => parseDump(Buffer.from(text)), parseDump(bytes)).length },
  { name: 'EROFS', weight: 12, maxBytes: 65_536, seeds: () => [image(1), image(2)], run: (bytes) => readComposefsImage(bytes).entries.size },
  { name: 'EROFS inspection', weight: 3, maxBytes: 65_536, seeds: () => [image(1), image(2)], run: (bytes) => [...inspectImage(bytes)].length },
  { name: 'boot entry', weight: 70, maxBytes: 2048, seeds: () => ['title A\nversion 1\nlinux /a/vmlinuz\ninitrd /a/initrd\noptions root=x quiet\n# c\n\nmachine-id 0\n', 'efi /x.efi\r\nsort-key\ta'], run: (bytes) => printsBack(formatEntry, (text) => parseEntry(Buffer.from(text)), parseEntry(bytes)).length % 8 },
  { name: 'boot entry name', weight: 70, maxBytes: 100, seeds: () => ['hostctl-00000007+3-0.conf', 'hostctl-1.conf', 'a+3.conf', 'x.efi'], run: entryNames },
  { name: 'key file', weight: 70, maxBytes: 2048, seeds: () => ['[a]\nk=v\nl=w;x\n\n[b]\n# c\nk = v\n', '[x]\nkey=\\s\\n\\t'], run: (bytes) => printsBack(formatKeyfile, parseKeyfile, parseKeyfile(utf8(bytes))).length % 8 },
  { name: 'origin', weight: 30, maxBytes: 2048, seeds: () => [origin], run: (bytes) => printsBack(formatOrigin, parseOrigin, parseOrigin(utf8(bytes))).length % 8 },
  { name: 'command line', weight: 70, maxBytes: 1024, seeds: () => [`root=x "a b"=c quiet -- init composefs=?${hex('0')}`, `composefs.digest=v1-sha512-12:${hex('f', 128)} a="b c"`], run: commandLine },
  { name: 'kargs.d', weight: 20, maxBytes: 1024, seeds: () => ['kargs = ["a=b", "c d"]\nmatch-architectures = ["x86_64"]\n', 'kargs=[]\n[x]\n'], run: (bytes) => kargsFromFiles(new Map([['10-x.toml', utf8(bytes)]]), 'amd64').length },
  { name: 'os-release', weight: 60, maxBytes: 1024, seeds: () => ['ID=x\nPRETTY_NAME="A \\"B\\" $C"\nVERSION_ID=\'1\'\n# c\n'], run: (bytes) => Object.keys(parseOsRelease(utf8(bytes))).length },
  { name: 'configuration', weight: 20, maxBytes: 1024, seeds: () => ['[deploy]\ntries = 3\n[retention]\nkeep=2\n[etc]\nconflicts=ask\n[etc.paths]\n/x=local\n', '[root]\netc = transient\n'], run: (bytes) => parseConfig([{ name: 'a', text: utf8(bytes), isOfImage: true }]).deployTries },
  { name: 'boot configuration', weight: 10, maxBytes: 1024, seeds: () => ['[boot]\netc=transient\nroot = transient\nvar=UUID=x\n'], run: (bytes) => parseBootConfig([{ name: 'a', text: utf8(bytes), isOfImage: true }]).etc },
  { name: 'repository meta', weight: 30, maxBytes: 2048, seeds: () => ['{"version":1,"algorithm":"fsverity-sha512-12","erofs_formats":{"default":1,"extra":[2]},"features":{"compatible":[],"read-only-compatible":["v1_erofs"],"incompatible":[]}}'], run: (bytes) => printsBack(formatRepoMeta, parseRepoMeta, parseRepoMeta(utf8(bytes))).length % 8 },
  { name: 'file contexts', weight: 15, maxBytes: 1024, seeds: () => ['/usr(/.*)?\tsystem_u:object_r:usr_t:s0\n/etc/[a-z]+\\.conf -- system_u:object_r:etc_t:s0\n/x <<none>>\n', '/[[:alpha:]](?:a|b)?\\s -d l\n'], run: fileContexts },
  { name: 'package list', weight: 20, maxBytes: 2048, seeds: () => ['Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nVersion: 2\n'], run: (bytes) => parseDpkgStatus(utf8(bytes)).size },
  { name: 'seal', weight: 40, maxBytes: 1024, seeds: () => [seal], run: (bytes) => bytesBack(formatSeal, parseSeal, parseSeal(bytes)) },
  { name: 'signatures of a seal', weight: 30, maxBytes: 1024, seeds: () => [`${hex('a')} QUJD\n${hex('b')} QUI=\n`], run: (bytes) => bytesBack(formatSignatures, parseSignatures, parseSignatures(bytes)) },
  { name: 'revoked images', weight: 30, maxBytes: 1024, seeds: () => [`hostctl-revoked 1\nnumber 7\ndigest v1-sha256-12:${hex('a')}\n`], run: (bytes) => bytesBack(formatRevoked, parseRevoked, parseRevoked(bytes)) },
  { name: 'signed payload', weight: 3, maxBytes: 1024, seeds: () => [json({ critical: { type: 'cosign container image signature', image: { 'docker-manifest-digest': digest }, identity: { 'docker-reference': 'h/a' } } })], run: (bytes) => readPayload(bytes, Buffer.from(signBytes(bytes, signer().key)).toString('base64'), [signer().publicKey])?.manifestDigests.length },
  { name: 'signature bundle', weight: 10, maxBytes: 2048, seeds: () => [bundle()], run: (bytes) => readBundle(bytes, [signer().publicKey])?.manifestDigests.length },
  { name: 'artifact', weight: 40, maxBytes: 2048, seeds: () => [artifact()], run: (bytes) => parseArtifact(bytes).layers.length },
  { name: 'policy', weight: 40, maxBytes: 2048, seeds: () => [policy], run: (bytes) => parsePolicy(bytes).transports.size },
  { name: 'public key', weight: 5, maxBytes: 512, seeds: () => [signer().publicPem], run: (bytes) => parsePublicKey(utf8(bytes)).id.length },
  { name: 'auth.json', weight: 40, maxBytes: 512, seeds: () => ['{"auths":{"h.example/a":{"auth":"dTpw"},"https://h.example":{"auth":"dTpxcQ=="}},"credHelpers":{"x":"y"}}'], run: credentials },
  { name: 'registries.conf', weight: 20, maxBytes: 1024, seeds: () => ['unqualified-search-registries = ["x"]\n[[registry]]\nprefix = "h.example/a"\nlocation = "m.example/b"\ninsecure = true\n[[registry.mirror]]\nlocation = "n.example"\n'], run: (bytes) => registryEndpoints([utf8(bytes)], 'h.example/a')?.length },
  { name: 'challenge of a registry', weight: 20, maxBytes: 300, seeds: () => ['Bearer realm="https://h.example/token",service="s",scope="repository:a:pull"', 'Basic realm=x'], run: (bytes) => parseChallenge(latin1(bytes))?.parameters.size },
  { name: 'environment block', weight: 20, maxBytes: 1024, seeds: () => [changeEnvironment(emptyEnvironment(), { hostctl_try: '3', a: '\\ #' })], repair: (bytes) => Buffer.concat([bytes, Buffer.alloc(1024, '#')]).subarray(0, 1024), run: (bytes) => parseEnvironment(changeEnvironment(bytes, { hostctl_left: '1' })).size },
  { name: 'quadlet', weight: 20, maxBytes: 512, seeds: () => ['[Container]\nImage=quay.io/a/b:1\n', '[Image]\n# c\nImage = oci:/x\n'], run: (bytes) => quadletImage('a.container', utf8(bytes)).length % 8 },
  { name: 'PE', weight: 5, maxBytes: 4096, seeds: () => [peFile([{ name: '.cmdline', content: 'a b' }, { name: '.linux', content: 'x' }])], run: (bytes) => readPeSections([bytes.subarray(0, 100), bytes.subarray(100)], '.cmdline').length + [...peSectionPieces([bytes.subarray(0, 100), bytes.subarray(100)], '.linux')].length },
]; // prettier-ignore

function scanZstd(bytes: Buffer): number {
  let out = 0;
  const scanner = new ZstdFrameScanner({ frameStart: () => out++, frameData: () => undefined, frameEnd: () => out++ });
  scanner.push(bytes.subarray(0, bytes.length >> 1));
  scanner.push(bytes.subarray(bytes.length >> 1));
  scanner.end();
  return out;
}

async function unzip(bytes: Buffer): Promise<number> {
  let length = 0;
  const gunzip = openGunzip();
  if (gunzip === undefined) throw new Error('This Node has another gunzip inside');
  const count = (chunk: Uint8Array): void => void (length += chunk.length);
  const decoder = new GzipDecoder(gunzip, count, () => new Uint8Array(4096));
  try {
    await decoder.write(bytes);
    await decoder.end();
  } finally {
    await decoder.close();
  }
  return length;
}

function entryNames(bytes: Buffer): string {
  const text = utf8(bytes);
  const ours = parseHostctlEntryName(text);
  // A loader does not mind the case of the suffix, nor zeros before a counter: there the name is read, but not written.
  if (ours !== undefined) printsBack(formatHostctlEntryName, (name) => parseHostctlEntryName(name)!, ours);
  return `${ours === undefined} ${parseEntryName(text) === undefined}`;
}

function splitTar(bytes: Buffer): string {
  let [raw, contents] = [0, 0];
  const reader = new TarSplitReader({ raw: () => (raw += 1), content: () => (contents += 1) });
  // In two pieces, wherever the first ends.
  const cut = (bytes[0] ?? 0) % (bytes.length + 1);
  for (const piece of [bytes.subarray(0, cut), bytes.subarray(cut)]) reader.push(piece);
  reader.end();
  return `${Math.min(raw, 4)} ${Math.min(contents, 4)}`;
}

/** What is found goes into the header of a request as it is. */
function credentials(bytes: Buffer): string {
  const found = findCredentials(utf8(bytes), 'h.example', 'a');
  if (!/^[A-Za-z0-9+/=]*$/.test(found)) throw new Error(`${JSON.stringify(found)} is no value of a header`);
  return found.slice(0, 6);
}

function commandLine(bytes: Buffer): string {
  const args = splitCmdline(utf8(bytes));
  const again = splitCmdline(joinCmdline(args));
  if (JSON.stringify(again) !== JSON.stringify(args)) throw new Error(`${JSON.stringify(args)} becomes ${JSON.stringify(again)}`); // prettier-ignore
  const found = findDigestArguments(args);
  for (const argument of found) {
    const [same] = findDigestArguments([formatDigestArgument(argument)]);
    if (JSON.stringify(same) !== JSON.stringify(argument)) throw new Error(`${JSON.stringify(argument)} is printed as another`); // prettier-ignore
  }
  return `${Math.min(args.length, 5)} ${found.length}`;
}

function fileContexts(bytes: Buffer): string {
  const text = latin1(bytes);
  parseSelinuxType(text);
  new FileContexts().add(text, 'Policy');
  addSubstitutions(new Map(), text, 'Substitutions');
  return 'read';
}
