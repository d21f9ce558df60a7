/** Blobs that are not what their descriptors say: damaged, disguised, or far larger inside than outside. */

import { writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import { parseDiffId, parseOciDigest } from '../../src/format/oci/digest.ts';
import type { LayerCompression } from '../../src/format/oci/media-types.ts';
import { decodeHere } from '../../src/image/decode-layer.ts';
import { readLayer, type ReadLayerOptions } from '../../src/image/layers.ts';
import { compress, sha256, zstd } from '../helpers/oci-builder.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { startFilter } from '../helpers/start-filter.ts';
import { tar, tarFile } from '../helpers/tar-builder.ts';

const archive = tar([tarFile('a', 'x'.repeat(1000)), tarFile('b', 'y'.repeat(300_000))]);
const gzip = gzipSync(archive);
const zst = zstd(archive);
const half = archive.length >> 1;

interface Blob {
  readonly blob: Uint8Array;
  readonly compression: LayerCompression;
  /** What the diff id is made of; default the archive. */
  readonly content?: Uint8Array;
  readonly size?: number;
  readonly digest?: string;
}

/** The names of entries, or the code and message of the error without the layer's digest. */
async function read(
  spec: Blob,
  options: Partial<ReadLayerOptions> = {},
  signal = new AbortController().signal,
): Promise<string> {
  const blobFile = `${scratchDir()}/blob`;
  writeFileSync(blobFile, spec.blob);
  const names: string[] = [];
  const handler = { entry: ({ name }: { name: string }) => void names.push(name), data: () => undefined, entryEnd: () => undefined }; // prettier-ignore
  const layer = {
    number: 2,
    count: 3,
    descriptor: {
      mediaType: 'not looked at',
      digest: parseOciDigest(spec.digest ?? sha256(spec.blob), 'Digest'),
      size: spec.size ?? spec.blob.length,
      annotations: new Map<string, string>(),
      compression: spec.compression,
    },
    diffId: parseDiffId(sha256(spec.content ?? archive), 'Diff id'),
    blobFile,
  };
  try {
    const { trailingData } = await readLayer(layer, handler, {
      decode: decodeHere(signal, startFilter),
      outputBytesBefore: 0,
      ...options,
    });
    return `${names.join(' ')}${trailingData ? ' (trailing data)' : ''}`;
  } catch (error) {
    if (!(error instanceof HostctlError)) throw error;
    const place = `Layer 2 of 3 (${layer.descriptor.digest}): `;
    expect(error.message.startsWith(place), error.message).toBe(true);
    return `${error.code}: ${error.message.slice(place.length)}`;
  }
}

const join = (...parts: readonly (Uint8Array | string)[]): Buffer =>
  Buffer.concat(parts.map((part) => Buffer.from(part)));
const flip = (bytes: Uint8Array, at: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy[at < 0 ? copy.length + at : at]! ^= 0x55;
  return copy;
};
const skippable = Buffer.from('522a4d1804000000746f6321', 'hex');

describe('layers that are accepted', () => {
  test.each<readonly [string, Blob]>([
    ['plain tar', { blob: archive, compression: 'none' }],
    ['gzip', { blob: gzip, compression: 'gzip' }],
    ['gzip of several members', { blob: join(gzipSync(archive.subarray(0, half)), gzipSync(''), gzipSync(archive.subarray(half))), compression: 'gzip' }],
    ['gzip with zero padding', { blob: join(gzip, Buffer.alloc(300_000)), compression: 'gzip' }],
    ['gzip with a name in its header', { blob: join(Buffer.from('1f8b0808000000000003', 'hex'), 'layer.tar\0', gzip.subarray(10)), compression: 'gzip' }],
    ['zstd', { blob: zst, compression: 'zstd' }],
    ['zstd of several and skippable frames', { blob: join(skippable, zstd(archive.subarray(0, half)), skippable, zstd(archive.subarray(half)), skippable), compression: 'zstd' }],
    ['zstd with a window of 128 MiB', { blob: zstd(archive, ['--long=27']), compression: 'zstd' }],
    ['zstd without checksum', { blob: zstd(archive, ['--no-check']), compression: 'zstd' }],
  ])('%s', async (_title, blob) => {
    expect(await read(blob)).toBe('a b');
  }); // prettier-ignore

  test('what follows the end of the tar counts for the diff id and nothing else', async () => {
    const content = join(archive, tar([tarFile('hidden')]));
    expect(await read({ blob: gzipSync(content), compression: 'gzip', content })).toBe('a b (trailing data)');
  });
});

describe('layers that are refused', () => {
  test.each<readonly [string, Blob, RegExp]>([
    ['a blob that is too short', { blob: gzip, size: gzip.length + 1, compression: 'gzip' }, /^size-mismatch: blob ".*" has \d+ bytes instead of \d+$/],
    ['a blob that is too long', { blob: gzip, size: gzip.length - 1, compression: 'gzip' }, /^size-mismatch: /],
    ['another blob', { blob: gzip, digest: sha256(zst), compression: 'gzip' }, /^digest-mismatch: blob has the digest "sha256:\w+" instead of "sha256:\w+"$/],
    ['a blob damaged where it also breaks the compression', { blob: flip(gzip, 40), digest: sha256(gzip), compression: 'gzip' }, /^digest-mismatch: blob has/],
    ['a blob damaged where it also breaks the magic', { blob: flip(gzip, 0), digest: sha256(gzip), compression: 'gzip' }, /^digest-mismatch: blob has/],
    ['a blob damaged where it also breaks the tar', { blob: flip(archive, 0), digest: sha256(archive), compression: 'none' }, /^digest-mismatch: blob has/],
    ['a blob damaged in file data', { blob: flip(archive, 600), digest: sha256(archive), compression: 'none' }, /^digest-mismatch: blob has/],
    ['other content than the diff id says', { blob: gzip, content: gzip, compression: 'gzip' }, /^digest-mismatch: content has the diff id "sha256:\w+" instead of "sha256:\w+"$/],
    ['content that only adds to what the diff id says', { blob: gzipSync(join(archive, Buffer.alloc(512))), compression: 'gzip' }, /^digest-mismatch: content has the diff id/],
    ['gzip that says zstd', { blob: gzip, compression: 'zstd' }, /^image-invalid: media type says zstd, the content is gzip$/],
    ['zstd that says gzip', { blob: zst, compression: 'gzip' }, /^image-invalid: media type says gzip, the content is zstd$/],
    ['zstd that says plain', { blob: zst, compression: 'none' }, /^image-invalid: media type says plain tar, the content is zstd$/],
    ['gzip that says plain', { blob: gzip, compression: 'none' }, /^image-invalid: media type says plain tar, the content is gzip$/],
    ['xz', { blob: Buffer.from('fd377a585a0000', 'hex'), compression: 'none' }, /^image-invalid: media type says plain tar, the content is xz$/],
    ['bzip2', { blob: Buffer.from('BZh91AY'), compression: 'gzip' }, /^image-invalid: media type says gzip, the content is bzip2$/],
    ['plain tar that says gzip', { blob: archive, compression: 'gzip' }, /^image-invalid: gzip data is damaged: incorrect header check$/],
    ['plain tar that says zstd', { blob: archive, compression: 'zstd' }, /^image-invalid: zstd data is followed by something else$/],
    ['nothing that says gzip', { blob: Buffer.alloc(0), compression: 'gzip' }, /^image-invalid: gzip data is damaged: unexpected end of file$/],
    ['nothing that says zstd', { blob: Buffer.alloc(0), compression: 'zstd' }, /^image-invalid: zstd data has no frame$/],
    ['a cut gzip stream', { blob: gzip.subarray(0, -1), compression: 'gzip' }, /^image-invalid: gzip data is damaged: unexpected end of file$/],
    ['a gzip stream cut in its second header', { blob: join(gzip, '\x1f'), compression: 'gzip' }, /^image-invalid: gzip data is damaged: unexpected end of file$/],
    ['a gzip stream with a wrong CRC', { blob: flip(gzip, -8), compression: 'gzip' }, /^image-invalid: gzip data is damaged: incorrect data check$/],
    ['a gzip stream with a wrong length', { blob: flip(gzip, -1), compression: 'gzip' }, /^image-invalid: gzip data is damaged: incorrect length check$/],
    ['garbage behind gzip', { blob: join(gzip, 'junk'), compression: 'gzip' }, /^image-invalid: gzip data is damaged: incorrect header check$/],
    ['garbage behind zeros behind gzip', { blob: join(gzip, Buffer.alloc(10), 'junk'), compression: 'gzip' }, /^image-invalid: gzip data is followed by something else$/],
    ['a member behind zeros, which some readers see', { blob: join(gzip, Buffer.alloc(10), gzip), compression: 'gzip' }, /^image-invalid: gzip data is followed by something else$/],
    ['garbage far behind gzip', { blob: join(gzip, Buffer.alloc(1 << 20), 'junk'), compression: 'gzip' }, /^image-invalid: gzip data is followed by something else$/],
    ['a cut zstd stream', { blob: zst.subarray(0, -1), compression: 'zstd' }, /^image-invalid: zstd data is cut off$/],
    ['a zstd stream with a wrong checksum', { blob: flip(zst, -1), compression: 'zstd' }, /^image-invalid: zstd data is damaged: .*checksum/i],
    ['damage inside a zstd block', { blob: flip(zst, -8), compression: 'zstd' }, /^image-invalid: zstd data is damaged: /],
    ['garbage behind zstd', { blob: join(zst, 'junk'), compression: 'zstd' }, /^image-invalid: zstd data is followed by something else$/],
    ['gzip behind zstd, which the zstd program would read', { blob: join(zst, gzip), compression: 'zstd' }, /^image-invalid: zstd data is followed by something else$/],
    ['a zstd window over 128 MiB', { blob: zstd(archive, ['--ultra', '-1', '--long=28']), compression: 'zstd' }, /^image-unsupported: zstd frame has a window of 268435456 bytes/],
    ['a tar that is cut', { blob: gzipSync(archive.subarray(0, 2500)), compression: 'gzip', content: archive.subarray(0, 2500) }, /^image-invalid: entry 2 "b" at offset 1536: archive ends inside the content$/],
  ])('%s', async (_title, blob, message) => {
    expect(await read(blob)).toMatch(message);
  }); // prettier-ignore
});

describe('bombs', () => {
  /** Zstd blocks that repeat one zero 128 Ki times: 30 000 bytes of content for each of the blob. */
  function zstdZeros(blocks: number): Buffer {
    const repeat = (last: number): number[] => {
      const header = (131_072 << 3) | 2 | last;
      return [header & 255, (header >> 8) & 255, header >> 16, 0];
    };
    const body = Array.from({ length: blocks }, (_, i) => repeat(i === blocks - 1 ? 1 : 0));
    return Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38, ...body.flat()]);
  }

  const member = gzipSync(Buffer.alloc(16 << 20), { level: 9 });

  test('of 1.1 GiB in a few kilobytes of zstd are stopped', async () => {
    expect(await read({ blob: zstdZeros(9000), compression: 'zstd' })).toBe('image-unsupported: content is more than 1000 times as large as the blob'); // prettier-ignore
  });

  test('of 1.1 GiB in gzip are stopped', async () => {
    const blob = Buffer.concat(Array<Buffer>(70).fill(member));
    expect(await read({ blob, compression: 'gzip' })).toBe('image-unsupported: content is more than 1000 times as large as the blob'); // prettier-ignore
  });

  test('below 1 GiB pass: small layers of zeros are common', async () => {
    const content = Buffer.alloc(48 << 20);
    const blob = Buffer.concat([member, member, member]);
    expect(await read({ blob, compression: 'gzip', content })).toBe('');
  });

  test('in a sparse file are stopped before any of it is written out', async () => {
    const sparse = tarFile('s', '', { type: 'S', format: 'gnu', at: [[483, '200000000000']] }); // 16 GiB in octal
    const blob = tar([sparse]);
    expect(await read({ blob, compression: 'none', content: blob })).toBe('image-unsupported: entry 1 "s" at offset 0: content is more than 1000 times as large as the blob'); // prettier-ignore
  });

  test('spread over many layers are stopped at 64 GiB', async () => {
    const options = { outputBytesBefore: 64 * 2 ** 30 - archive.length + 1 };
    expect(await read({ blob: gzip, compression: 'gzip' }, options)).toBe('image-unsupported: image unpacks to more than 68719476736 bytes'); // prettier-ignore
    expect(await read({ blob: gzip, compression: 'gzip' }, { outputBytesBefore: options.outputBytesBefore - 1 })).toBe('a b'); // prettier-ignore
  });
});

test.each<LayerCompression>(['none', 'gzip', 'zstd'])('an interrupt stops a %s layer', async (compression) => {
  const controller = new AbortController();
  const blob = compress(Buffer.concat([archive, Buffer.alloc(4 << 20, 'junk behind the end')]), 'none');
  const spec: Blob = { blob: compression === 'none' ? blob : compress(blob, compression), compression, content: blob };
  const options = { onBytes: () => controller.abort() };
  const { signal } = controller;
  if (spec.blob.length > 300_000) expect(await read(spec, options, signal)).toBe('interrupted: stopped reading the layer'); // prettier-ignore
  controller.abort();
  expect(await read(spec, options, signal)).toBe('interrupted: stopped reading the layer');
});

test('what the handler throws comes out with the entry', async () => {
  const blob = gzip;
  const blobFile = `${scratchDir()}/blob`;
  writeFileSync(blobFile, blob);
  const layer = {
    number: 1,
    count: 1,
    descriptor: { mediaType: '', digest: parseOciDigest(sha256(blob), ''), size: blob.length, annotations: new Map<string, string>(), compression: 'gzip' as const }, // prettier-ignore
    diffId: parseDiffId(sha256(archive), ''),
    blobFile,
  };
  const full = new HostctlError('no-space', 'Disk is full', { hint: 'Delete something.' });
  const handler = {
    entry: () => undefined,
    data: () => {
      throw full;
    },
    entryEnd: () => undefined,
  };
  const options = { decode: decodeHere(new AbortController().signal, startFilter), outputBytesBefore: 0 };
  await expect(readLayer(layer, handler, options)).rejects.toMatchObject({
    code: 'no-space',
    message: `Layer 1 of 1 (${sha256(blob)}): entry 1 "a" at offset 0: disk is full`,
    hint: 'Delete something.',
  });
});
