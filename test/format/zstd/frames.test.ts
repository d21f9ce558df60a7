/** Zstd streams as the frame scanner sees them. */

import { describe, expect, test } from 'vitest';
import { ZstdFrameScanner } from '../../../src/format/zstd/frames.ts';
import { zstd } from '../../helpers/oci-builder.ts';

const text = Buffer.from('hello '.repeat(100_000));
const frame = zstd(text, ['-1', `--stream-size=${text.length}`]);
/** As a pipe is compressed: no content size. */
const streamed = zstd(text, ['-1']);
const unchecked = zstd(text, ['-1', '--no-check']);
const random = zstd(Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919 * ((i >> 3) + 13)) % 251)), ['-1']);
const skippable = (content: string, low = 0): Buffer => {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a50 + low);
  header.writeUInt32LE(content.length, 4);
  return Buffer.concat([header, Buffer.from(content)]);
};
/** Magic, descriptor and what follows it, then an empty last block. */
const tiny = (...header: number[]): Buffer => Buffer.from([0x28, 0xb5, 0x2f, 0xfd, ...header, 1, 0, 0]);

function scan(stream: Uint8Array, pieceBytes = stream.length) {
  const frames: { bytes: Buffer; windowBytes: number; contentBytes: number | undefined; ended: boolean }[] = [];
  const scanner = new ZstdFrameScanner({
    frameStart: (header) => frames.push({ ...header, bytes: Buffer.alloc(0), ended: false }),
    frameData: (bytes) => (frames.at(-1)!.bytes = Buffer.concat([frames.at(-1)!.bytes, bytes])),
    frameEnd: () => (frames.at(-1)!.ended = true),
  });
  for (let at = 0; at < stream.length; at += pieceBytes) scanner.push(stream.subarray(at, at + pieceBytes));
  scanner.end();
  return frames;
}

describe('zstd streams', () => {
  test.each<readonly [string, Buffer, Buffer[]]>([
    ['one frame', frame, [frame]],
    ['a frame without content size', streamed, [streamed]],
    ['a frame without checksum', unchecked, [unchecked]],
    ['a frame of many blocks', random, [random]],
    ['several frames', Buffer.concat([frame, unchecked, streamed]), [frame, unchecked, streamed]],
    [
      'skippable frames anywhere',
      Buffer.concat([skippable('', 15), frame, skippable('toc'), unchecked, skippable('footer', 7)]),
      [frame, unchecked],
    ],
    ['a frame of nothing', zstd(Buffer.alloc(0)), [zstd(Buffer.alloc(0))]],
    ['a dictionary id of 0', tiny(0x21, 0, 0), [tiny(0x21, 0, 0)]],
  ])('of %s are walked frame by frame', (_title, stream, frames) => {
    const hex = frames.map((bytes) => ({ bytes: bytes.toString('hex'), ended: true }));
    for (const pieceBytes of [stream.length, 1000, 1]) {
      const found = scan(stream, pieceBytes);
      expect(found.map(({ bytes, ended }) => ({ bytes: bytes.toString('hex'), ended }))).toEqual(hex);
    }
  });

  test('state their window and their content size', () => {
    const sizes = (stream: Uint8Array) =>
      scan(stream).map(({ windowBytes, contentBytes }) => [windowBytes, contentBytes]);
    expect(sizes(frame)).toEqual([[524_288, text.length]]);
    expect(sizes(tiny(0x00, 0x00))).toEqual([[1024, undefined]]);
    expect(sizes(tiny(0x00, 0x0f))).toEqual([[2048 + (2048 / 8) * 7, undefined]]);
    expect(sizes(tiny(0x20, 0x07))).toEqual([[7, 7]]);
    expect(sizes(tiny(0x60, 0x01, 0x00))).toEqual([[257, 257]]);
    expect(sizes(tiny(0xa0, 0x00, 0x00, 0x00, 0x01))).toEqual([[1 << 24, 1 << 24]]);
    expect(sizes(tiny(0x00, 0x88))).toEqual([[128 << 20, undefined]]);
  });

  test.each<readonly [string, Buffer, RegExp]>([
    ['nothing', Buffer.alloc(0), /has no frame/],
    ['only skippable frames', skippable('x'), /has no frame/],
    ['a cut frame', frame.subarray(0, -1), /cut off/],
    ['a cut header', frame.subarray(0, 5), /cut off/],
    ['a cut magic', Buffer.concat([frame, frame.subarray(0, 2)]), /cut off/],
    ['a cut skippable frame', skippable('xyz').subarray(0, -1), /cut off/],
    ['gzip behind zstd, which the zstd program would read', Buffer.concat([frame, Buffer.from('1f8b080000000000', 'hex')]), /followed by something else/],
    ['zeros behind zstd', Buffer.concat([frame, Buffer.alloc(4)]), /followed by something else/],
    ['a dictionary', tiny(0x21, 0x05, 0), /needs the dictionary 5/],
    ['a window over 128 MiB', tiny(0x00, 0x89), /window of 150994944 bytes/],
    ['a single segment over 128 MiB', tiny(0xa0, 0x01, 0x00, 0x00, 0x08), /window of 134217729 bytes/],
    ['a content size beyond 2^53', tiny(0xe0, ...Array<number>(8).fill(255)), /window of/],
    ['a reserved bit', tiny(0x08, 0x00), /reserved bit/],
    ['a block of the reserved type', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 0x07, 0, 0]), /no valid type or size/],
    ['a block over 128 KiB', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x50, 0x0d, 0x00, 0x10]), /no valid type or size/],
  ])('with %s are refused', (_title, stream, message) => {
    expect(() => scan(stream)).toThrow(message);
    expect(() => scan(stream, 1)).toThrow(message);
  }); // prettier-ignore
});
