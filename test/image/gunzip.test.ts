/** The decoder that uses the inside of Node's gunzip takes the same streams as the public one, and to the same end. */

import fc from 'fast-check';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import { GzipDecoder, GzipStreamDecoder, type Decoder, type DecoderOutput } from '../../src/image/decoder.ts';
import { openGunzip } from '../../src/image/gunzip.ts';
import { smallBuffers } from '../helpers/small-buffers.ts';

const decoders: Readonly<Record<'inside' | 'public', (output: DecoderOutput) => Decoder>> = {
  inside: (output) => new GzipDecoder(openGunzip()!, output, smallBuffers()),
  public: (output) => new GzipStreamDecoder(output),
};

async function decode(open: (output: DecoderOutput) => Decoder, stream: Uint8Array, pieceBytes: number) {
  const pieces: Buffer[] = [];
  const decoder = open((chunk) => pieces.push(Buffer.from(chunk)));
  try {
    for (let at = 0; at < stream.length; at += pieceBytes) {
      await decoder.write(Uint8Array.from(stream.subarray(at, at + pieceBytes)));
    }
    await decoder.end();
    return Buffer.concat(pieces).toString('hex');
  } catch (error) {
    if (!(error instanceof HostctlError)) throw error;
    return error.message;
  } finally {
    await decoder.close();
  }
}

/** Some members, and what may follow them. */
const streams = fc
  .tuple(
    fc.array(fc.uint8Array({ maxLength: 2000 }), { minLength: 1, maxLength: 3 }),
    fc.constantFrom(Buffer.alloc(0), Buffer.alloc(700), Buffer.from('junk'), Buffer.from('\0\0junk')),
  )
  .map(([members, tail]) => Buffer.concat([...members.map((member) => gzipSync(member)), tail]));

test('streams whole, damaged and cut', async () => {
  const damage = fc.option(fc.record({ at: fc.nat(), bit: fc.integer({ min: 0, max: 7 }) }), {
    nil: undefined,
    freq: 1,
  });
  const cut = fc.option(fc.nat(), { nil: undefined, freq: 1 });
  const piece = fc.integer({ min: 1, max: 3000 });
  let readable = 0;
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(streams, damage, cut, piece, async (whole, damaged, cutAt, pieceBytes) => {
      const stream = Buffer.from(whole.subarray(0, cutAt === undefined ? undefined : cutAt % (whole.length + 1)));
      if (damaged !== undefined && stream.length > 0) stream[damaged.at % stream.length]! ^= 1 << damaged.bit;
      const expected = await decode(decoders.public, stream, pieceBytes);
      expect(await decode(decoders.inside, stream, pieceBytes)).toBe(expected);
      if (expected.startsWith('Gzip')) refused++;
      else readable++;
    }),
    { numRuns: 300 },
  );
  expect(Math.min(readable, refused)).toBeGreaterThan(20);
});

test('output reaches the other side before the damage behind it', async () => {
  const stream = gzipSync(Buffer.alloc(50, 'x'));
  stream[stream.length - 8]! ^= 1;
  const seen: number[] = [];
  const decoder = new GzipDecoder(openGunzip()!, (chunk) => seen.push(chunk.length), smallBuffers());
  await decoder.write(stream.subarray(0, -8));
  await expect(decoder.write(stream.subarray(-8))).rejects.toThrow('incorrect data check');
  expect(seen).toEqual([50]);
  await decoder.close();
});
