/** Layers decoded by threads come out as they do without them: the same bytes, the same errors, and nothing left. */

import { createCipheriv } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parseDiffId, parseOciDigest } from '../../src/format/oci/digest.ts';
import type { LayerCompression } from '../../src/format/oci/media-types.ts';
import { decodeHere, type Decode, type LayerSource } from '../../src/image/decode-layer.ts';
import type * as Errors from '../../src/errors.ts';
import type * as Pool from '../../src/image/decode-pool.ts';
import { compress, sha256 } from '../helpers/oci-builder.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { startFilter } from '../helpers/start-filter.ts';

// Threads run the built program, so the pool is the built one too.
const built = new URL('../../dist/image/decode-pool.js', import.meta.url).href;
const builtErrors = new URL('../../dist/errors.js', import.meta.url).href;
const { DecodePool } = (await import(built)) as typeof Pool;

/** More than the buffers between two threads hold, half of it incompressible. */
function content(seed: number, size: number): Buffer {
  const key = Buffer.alloc(32, seed);
  const noise = createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size >> 1));
  return Buffer.concat([noise, Buffer.alloc(size - noise.length, `text of layer ${seed} `)]);
}

interface Spec {
  readonly content: Buffer;
  readonly compression: LayerCompression;
  readonly damage?: (blob: Buffer) => void;
  readonly diffId?: string;
}

function layers(...specs: readonly Spec[]): LayerSource[] {
  const directory = scratchDir();
  return specs.map((spec, i) => {
    const blob = Buffer.from(compress(spec.content, spec.compression));
    const digest = parseOciDigest(sha256(blob), 'Digest');
    spec.damage?.(blob);
    writeFileSync(`${directory}/${i}`, blob);
    return {
      number: i + 1,
      count: specs.length,
      descriptor: { mediaType: '', digest, size: blob.length, annotations: new Map(), compression: spec.compression },
      diffId: parseDiffId(spec.diffId ?? sha256(spec.content), 'Diff id'),
      blobFile: `${directory}/${i}`,
    };
  });
}

async function digests(sources: readonly LayerSource[], decode: Decode): Promise<string[]> {
  const found: string[] = [];
  for (const layer of sources) {
    const pieces: Buffer[] = [];
    let taken = 0;
    await decode(layer, (chunk, takenBytes) => {
      pieces.push(Buffer.from(chunk));
      expect(takenBytes).toBeGreaterThanOrEqual(taken);
      taken = takenBytes;
    });
    expect(taken).toBeLessThanOrEqual(layer.descriptor.size);
    found.push(sha256(Buffer.concat(pieces)));
  }
  return found;
}

async function withPool<T>(
  sources: readonly LayerSource[],
  threads: number,
  body: (decode: Decode, log: readonly string[]) => Promise<T>,
  signal = new AbortController().signal,
): Promise<T> {
  const log: string[] = [];
  const pool = new DecodePool(sources, threads, signal, (line) => log.push(line));
  try {
    return await body((layer, output) => pool.decode(layer, output), log);
  } finally {
    await pool.close();
    expect(childrenOf(process.pid)).toEqual([]);
  }
}

/** Names of programs that this process has started and that are still there. */
function childrenOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`)
    .flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean))
    .map((child) => readFileSync(`/proc/${child}/comm`, 'utf8').trim())
    .filter((name) => name === 'zstd');
}

const LARGE = 12 << 20;
const signal = new AbortController().signal;

describe('layers that are right', () => {
  const contents = [content(1, LARGE), content(2, 100), Buffer.alloc(0), content(3, LARGE), content(4, 5 << 20)];

  test.each([
    ['gzip', 1],
    ['gzip', 2],
    ['gzip', 8],
    ['zstd', 2],
    ['none', 3],
  ] as const)('%s by %i threads', async (compression, threads) => {
    const sources = layers(...contents.map((bytes) => ({ content: bytes, compression })));
    const found = await withPool(sources, threads, async (decode, log) => {
      const all = await digests(sources, decode);
      // With koffi here no compression needs one.
      expect(log, 'programs that were started').toEqual([]);
      return all;
    });
    expect(found).toEqual(contents.map((bytes) => sha256(bytes)));
  });
});

describe('layers that are not', () => {
  const right = { content: content(5, LARGE), compression: 'gzip' } as const;
  const flip = (at: number) => (blob: Buffer) => void (blob[at]! ^= 0x55);

  test.each<readonly [string, Spec]>([
    ['damaged at the start', { ...right, damage: flip(0) }],
    ['damaged in the middle', { ...right, damage: flip(1 << 20) }],
    ['damaged at the end', { ...right, compression: 'zstd', damage: (blob) => flip(blob.length - 1)(blob) }],
    ['with another diff id', { ...right, diffId: sha256(Buffer.alloc(1)) }],
    [
      'said to be what they are not',
      { ...right, content: compress(right.content, 'gzip') as Buffer, compression: 'none' },
    ],
  ])('%s', async (_title, spec) => {
    const sources = layers(right, spec, right);
    const shown = (error: unknown): unknown =>
      error instanceof Error ? { ...error, message: error.message, cause: undefined } : error;
    const expected = await digests(sources, decodeHere(signal, startFilter)).catch(shown);
    expect(expected).toHaveProperty('code');
    expect(await withPool(sources, 2, (decode) => digests(sources, decode).catch(shown))).toEqual(expected);
  });

  test('without their file', async () => {
    const sources = layers(right, right);
    rmSync(sources[1]!.blobFile);
    await expect(withPool(sources, 2, (decode) => digests(sources, decode))).rejects.toMatchObject({
      code: 'image-not-found',
      message: `Image has no file "${sources[1]!.blobFile}"`,
      cause: { code: 'ENOENT', syscall: 'open', errno: -2 },
    });
  });
});

describe('use that ends early', () => {
  const right = { content: content(6, LARGE), compression: 'zstd' } as const;
  const refuse = (error: Error) => (decode: Decode) =>
    decode(sources[0]!, () => {
      throw error;
    });
  let sources: LayerSource[];

  test('what the output throws comes out as it was', async () => {
    sources = layers(right, right);
    const full = Object.assign(new Error('No space'), { code: 'ENOSPC' });
    await expect(withPool(sources, 2, refuse(full))).rejects.toBe(full);
  });

  test('content that is refused because the blob is damaged is called damaged', async () => {
    const { HostctlError } = (await import(builtErrors)) as typeof Errors;
    const invalid = new HostctlError('image-invalid', 'Entry 1 is wrong');
    sources = layers({ ...right, compression: 'none', damage: (blob) => (blob[LARGE - 1]! ^= 1) });
    await expect(withPool(sources, 1, refuse(invalid))).rejects.toMatchObject({
      code: 'digest-mismatch',
      cause: invalid,
    });
    sources = layers({ ...right, compression: 'none' });
    await expect(withPool(sources, 1, refuse(invalid))).rejects.toBe(invalid);
  });

  test('an interrupt ends what is being read and what waits', async () => {
    sources = layers(right, right, right);
    const controller = new AbortController();
    const interrupted = withPool(
      sources,
      2,
      (decode) => decode(sources[0]!, () => controller.abort()),
      controller.signal,
    );
    await expect(interrupted).rejects.toMatchObject({ code: 'interrupted' });
  });

  test('layers that nobody asks for any more are not decoded to their end', async () => {
    sources = layers(...Array.from({ length: 6 }, () => right));
    await withPool(sources, 3, () => Promise.resolve());
  });
});
