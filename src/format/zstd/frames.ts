/**
 * Walks the frames and blocks of a zstd stream (RFC 8878) without decompressing. Decoders differ in what they take:
 * some stop at the first frame, the `zstd` program also reads gzip and xz. A stream that passes here is nothing but
 * whole zstd and skippable frames that need no dictionary and at most a 128 MiB window.
 */

import { HostctlError } from '../../errors.ts';

export interface ZstdFrameHeader {
  /** Bytes the decoder has to look back over, at least. */
  readonly windowBytes: number;
  /** Bytes the frame decompresses to, when it says so. */
  readonly contentBytes: number | undefined;
}

/** Gets the data frames, without skippable ones. */
export interface ZstdFrameVisitor {
  frameStart(header: ZstdFrameHeader): void;
  /** The next compressed bytes of the frame, lent for the call. */
  frameData(bytes: Uint8Array): void;
  frameEnd(): void;
}

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const MAX_WINDOW_BYTES = 128 << 20;
const MAX_BLOCK_BYTES = 128 << 10;

type Part = 'magic' | 'descriptor' | 'header' | 'block-header' | 'block' | 'checksum' | 'skippable-size' | 'skippable';

export class ZstdFrameScanner {
  readonly #visitor: ZstdFrameVisitor | undefined;
  #part: Part = 'magic';
  /** Bytes of a fixed-size part, collected as they come. */
  readonly #collected = Buffer.alloc(18);
  #collectedBytes = 0;
  #wanted = 4;
  /** Bytes left of a block or a skippable frame. */
  #left = 0;
  #lastBlock = false;
  #hasChecksum = false;
  #frames = 0;

  constructor(visitor?: ZstdFrameVisitor) {
    this.#visitor = visitor;
  }

  /** Takes the next bytes. Throws 'image-invalid' or 'image-unsupported'; the visitor has then seen a part. */
  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      const isBody = this.#part === 'block' || this.#part === 'skippable';
      const length = Math.min(chunk.length - at, isBody ? this.#left : this.#wanted - this.#collectedBytes);
      const piece = chunk.subarray(at, at + length);
      at += length;
      if (isBody) {
        this.#left -= length;
        if (this.#part === 'block') this.#visitor?.frameData(piece);
        if (this.#left === 0) this.#bodyEnd();
      } else {
        this.#collected.set(piece, this.#collectedBytes);
        this.#collectedBytes += length;
        if (this.#collectedBytes === this.#wanted) this.#fixedPartEnd();
      }
    }
  }

  /** Ends the stream. Throws if it was cut off or held no frame. */
  end(): void {
    if (this.#part !== 'magic' || this.#collectedBytes > 0) {
      throw new HostctlError('image-invalid', 'Zstd data is cut off');
    }
    if (this.#frames === 0) throw new HostctlError('image-invalid', 'Zstd data has no frame');
  }

  #want(part: Part, bytes: number): void {
    this.#part = part;
    this.#wanted = bytes;
    this.#collectedBytes = 0;
  }

  #fixedPartEnd(): void {
    const bytes = this.#collected;
    switch (this.#part) {
      case 'magic':
        this.#magic(bytes.readUInt32LE(0));
        break;
      case 'skippable-size':
        this.#left = bytes.readUInt32LE(0);
        this.#part = 'skippable';
        if (this.#left === 0) this.#bodyEnd();
        break;
      case 'descriptor':
        this.#descriptor(bytes[0]!);
        break;
      case 'header':
        this.#startFrame();
        break;
      case 'block-header':
        this.#visitor?.frameData(bytes.subarray(0, 3));
        this.#block(bytes.readUIntLE(0, 3));
        break;
      case 'checksum':
        this.#visitor?.frameData(bytes.subarray(0, 4));
        this.#frameEnd();
        break;
      default:
        throw new HostctlError('internal', 'Zstd scanner is in no fixed part');
    }
  }

  #magic(magic: number): void {
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
      this.#want('skippable-size', 4);
    } else if (magic === FRAME_MAGIC) {
      this.#want('descriptor', 1);
    } else {
      throw new HostctlError('image-invalid', 'Zstd data is followed by something else');
    }
  }

  #descriptor(descriptor: number): void {
    if ((descriptor & 8) !== 0) throw new HostctlError('image-unsupported', 'Zstd frame uses a reserved bit');
    this.#hasChecksum = (descriptor & 4) !== 0;
    const { windowBytes, dictionaryBytes, contentBytes } = headerLayout(descriptor);
    // The descriptor stays in front, so that the header is read as a whole. Something always follows it: a frame
    // without window states its size.
    this.#part = 'header';
    this.#wanted = 1 + windowBytes + dictionaryBytes + contentBytes;
  }

  #startFrame(): void {
    const header = this.#collected.subarray(0, this.#wanted);
    const { windowBytes, dictionaryBytes } = headerLayout(header[0]!);
    const dictionary = dictionaryBytes === 0 ? 0 : header.readUIntLE(1 + windowBytes, dictionaryBytes);
    if (dictionary !== 0) {
      throw new HostctlError('image-unsupported', `Zstd frame needs the dictionary ${dictionary}`);
    }
    const content = contentSize(header.subarray(1 + windowBytes + dictionaryBytes));
    const window = windowBytes === 0 ? content! : windowSize(header[1]!);
    if (window > MAX_WINDOW_BYTES) {
      throw new HostctlError(
        'image-unsupported',
        `Zstd frame has a window of ${window} bytes, at most ${MAX_WINDOW_BYTES} are held`,
      );
    }
    this.#frames++;
    this.#visitor?.frameStart({ windowBytes: window, contentBytes: content });
    this.#visitor?.frameData(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, ...header));
    this.#want('block-header', 3);
  }

  #block(header: number): void {
    this.#lastBlock = (header & 1) !== 0;
    const type = (header >> 1) & 3;
    const size = header >> 3;
    if (type === 3 || size > MAX_BLOCK_BYTES)
      throw new HostctlError('image-invalid', 'Zstd block is of no valid type or size');
    // A block of type 1 is one byte, to be repeated.
    this.#left = type === 1 ? 1 : size;
    this.#part = 'block';
    if (this.#left === 0) this.#bodyEnd();
  }

  #bodyEnd(): void {
    if (this.#part === 'skippable') this.#want('magic', 4);
    else if (!this.#lastBlock) this.#want('block-header', 3);
    else if (this.#hasChecksum) this.#want('checksum', 4);
    else this.#frameEnd();
  }

  #frameEnd(): void {
    this.#visitor?.frameEnd();
    this.#want('magic', 4);
  }
}

/** How many bytes each part of the frame header takes, from its descriptor. */
function headerLayout(descriptor: number): { windowBytes: number; dictionaryBytes: number; contentBytes: number } {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  return {
    windowBytes: isSingleSegment ? 0 : 1,
    dictionaryBytes: [0, 1, 2, 4][descriptor & 3]!,
    contentBytes: [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!,
  };
}

function contentSize(field: Buffer): number | undefined {
  switch (field.length) {
    case 0:
      return undefined;
    case 1:
      return field[0]!;
    case 2:
      return field.readUInt16LE(0) + 256;
    case 4:
      return field.readUInt32LE(0);
    default:
      // Only compared with limits far below 2^53, so the rounding of larger values does not matter.
      return Number(field.readBigUInt64LE(0));
  }
}

function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}
