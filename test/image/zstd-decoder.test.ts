/** The two zstd decoders take the same streams. */

import { describe, expect, test } from 'vitest';
import { ZstdDecoder, type Decoder, type DecoderOutput } from '../../src/image/decoder.ts';
import { ZstdProgramDecoder } from '../../src/image/zstd-decoder.ts';
import { openZstdStream } from '../../src/sys/zstd.ts';
import { zstd } from '../helpers/oci-builder.ts';
import { smallBuffers } from '../helpers/small-buffers.ts';
import { startFilter } from '../helpers/start-filter.ts';

const decoders: Readonly<Record<string, (output: DecoderOutput) => Decoder>> = {
  'the zstd program': (output) => new ZstdProgramDecoder(output, startFilter),
  'the library': (output) => new ZstdDecoder(openZstdStream()!, output, smallBuffers()),
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
