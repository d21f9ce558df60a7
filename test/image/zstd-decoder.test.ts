/**
 * The two zstd decoders take the same streams. Where Node has no zstd of its own, its place is taken by a stand-in
 * that, like Node's, reads one frame and no more.
 */

import { execFileSync } from 'node:child_process';
import { Transform } from 'node:stream';
import { describe, expect, test } from 'vitest';
import type { Decoder, DecoderOutput } from '../../src/image/decoder.ts';
import {
  builtinZstd,
  ZstdBuiltinDecoder,
  ZstdProgramDecoder,
  type CreateZstdDecompress,
} from '../../src/image/zstd-decoder.ts';
import { zstd } from '../helpers/oci-builder.ts';
import { startFilter } from '../helpers/start-filter.ts';

const standIn: CreateZstdDecompress = () => {
  const chunks: Buffer[] = [];
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      chunks.push(chunk);
      done();
    },
    flush(done) {
      const frame = Buffer.concat(chunks);
      try {
        if (frame.indexOf(Buffer.from('28b52ffd', 'hex'), 1) !== -1) throw new Error('More than one frame');
        done(null, execFileSync('zstd', ['-dcq'], { input: frame, stdio: ['pipe', 'pipe', 'ignore'] }));
      } catch (error) {
        done(error as Error);
      }
    },
  });
};

const decoders: Readonly<Record<string, (output: DecoderOutput) => Decoder>> = {
  'the zstd program': (output) => new ZstdProgramDecoder(output, startFilter),
  'frame by frame': (output) => new ZstdBuiltinDecoder(output, builtinZstd ?? standIn),
};

async function decode(
  open: (output: DecoderOutput) => Decoder,
  stream: Uint8Array,
  pieceBytes: number,
): Promise<string> {
  const pieces: Buffer[] = [];
  const decoder = open((chunk) => pieces.push(Buffer.from(chunk)));
  // The caller's buffer is overwritten after each write, as a reader's is.
  const buffer = Buffer.alloc(pieceBytes);
  try {
    for (let at = 0; at < stream.length; at += pieceBytes) {
      buffer.fill(0xee);
      const length = Buffer.from(stream.subarray(at, at + pieceBytes)).copy(buffer);
      await decoder.write(buffer.subarray(0, length));
    }
    await decoder.end();
  } finally {
    await decoder.close();
  }
  return Buffer.concat(pieces).toString();
}

const text = 'hello world '.repeat(50_000);
const half = text.length >> 1;
const skippable = Buffer.from('522a4d1804000000746f6321', 'hex');
const parts = (...list: readonly (string | Buffer)[]): Buffer =>
  Buffer.concat(list.map((part) => (typeof part === 'string' ? zstd(Buffer.from(part)) : part)));
const damaged = Buffer.from(zstd(Buffer.from(text)));
damaged[damaged.length - 1]! ^= 1;

describe.each(Object.entries(decoders))('zstd by %s', (_title, open) => {
  test.each<readonly [string, Buffer]>([
    ['one frame', parts(text)],
    ['frames of all sizes between skippable ones', parts(skippable, text.slice(0, half), skippable, '', text.slice(half, half + 1), text.slice(half + 1), skippable)],
    ['a hundred frames', parts(...Array.from({ length: 100 }, (_, i) => text.slice((i * text.length) / 100, ((i + 1) * text.length) / 100)))],
  ])('reads %s', async (_name, stream) => {
    expect(await decode(open, stream, stream.length)).toBe(text);
    expect(await decode(open, stream, 100)).toBe(text);
  }); // prettier-ignore

  test('refuses a wrong checksum', async () => {
    await expect(decode(open, damaged, 1000)).rejects.toMatchObject({ code: 'image-invalid', message: expect.stringMatching(/^Zstd data is damaged/) as string }); // prettier-ignore
  });

  test('rejects with what the output throws, and ends', async () => {
    const failing = (): Decoder =>
      open(() => {
        throw new RangeError('enough');
      });
    await expect(decode(failing, parts(text, text), 100)).rejects.toThrow(new RangeError('enough'));
  });
});

test('a missing zstd program is said to be missing', async () => {
  const decoder = new ZstdProgramDecoder(() => undefined, (_program, args) => startFilter('no-such-program', args)); // prettier-ignore
  await decoder.write(parts(text)).catch(() => undefined);
  await expect(decoder.end()).rejects.toMatchObject({ code: 'ENOENT' });
  await decoder.close();
});
