/**
 * Push parser for tar archives (V7, ustar, GNU, PAX) as layers are made of. It holds at most one header and its
 * extension headers, passes file data on without copying, and refuses every archive that two readers could take for
 * different trees. Sparse files come out expanded.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, type RawName } from '../../tree/name.ts';
import { withContext } from '../error-context.ts';
import { isAllZero } from '../zeros.ts';
import { assembleEntry, MAX_FILE_BYTES, type TarEntry, type TarExtensions, type TarHead } from './entry.ts';
import { BLOCK_SIZE, checkChecksum, numberField } from './header.ts';
import { isHarmlessGlobal, MAX_PAX_BYTES, parsePaxHeader } from './pax.ts';
import { checkSparseMap, OldGnuSparseMap, paxSparseForm, SparseDataMap, type SparseSegment } from './sparse.ts';

export interface TarHandler {
  /** A new entry; for a file, its data follows. */
  entry(entry: TarEntry): void;
  /** The next bytes of the current file. The buffer is only lent for the call, and must not be written to. */
  data(chunk: Uint8Array): void;
  /** All of the current entry has been seen. */
  entryEnd(): void;
}

const MAX_EXTENSIONS = 16;
const MAX_LONG_NAME_BYTES = 4096;
const ZERO_BLOCK = Buffer.alloc(BLOCK_SIZE);
const ZEROS = Buffer.alloc(64 << 10);

/** What the next bytes are. */
type State = 'header' | 'payload' | 'sparse-extension' | 'sparse-map' | 'data' | 'padding' | 'ended';

export class TarReader {
  readonly #handler: TarHandler;
  #state: State = 'header';
  /** Bytes of the archive before the chunk being read, and before the header being read. */
  #consumed = 0;
  #headerAt = 0;
  readonly #partial = Buffer.alloc(BLOCK_SIZE);
  #partialBytes = 0;
  #zeroBlocks = 0;
  #entries = 0;
  #trailingData = false;

  #payload = Buffer.alloc(0);
  #payloadBytes = 0;
  #payloadType = '';
  #extensions: TarExtensions = {};
  #extensionCount = 0;

  #head: TarHead | undefined;
  #oldMap: OldGnuSparseMap | undefined;
  #dataMap: SparseDataMap | undefined;
  /** Stored bytes of the current file still to come, and padding behind them. */
  #remaining = 0;
  #padding = 0;
  #segments: readonly SparseSegment[] | undefined;
  #segment = 0;
  #position = 0;

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  /** Whether something other than zeros stands behind the end of the archive. It is never read as entries. */
  get trailingData(): boolean {
    return this.#trailingData;
  }

  /** Takes the next bytes of the archive, in pieces of any size. Errors name the entry. */
  push(chunk: Uint8Array): void {
    const data = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = 0;
    try {
      while (at < data.length) at = this.#step(data, at);
    } catch (error) {
      throw this.#contextual(error);
    }
    this.#consumed += data.length;
  }

  /** Ends the archive. Throws if it was cut off. */
  end(): void {
    const cut =
      this.#state === 'payload' || this.#state === 'data' || this.#state.startsWith('sparse')
        ? 'the content'
        : this.#partialBytes > 0
          ? 'a header'
          : undefined;
    if (cut !== undefined) throw this.#contextual(new HostctlError('image-invalid', `Archive ends inside ${cut}`));
    if (this.#extensionPending()) throw this.#contextual(danglingExtension());
  }

  #step(data: Buffer, at: number): number {
    switch (this.#state) {
      case 'header':
      case 'sparse-extension':
      case 'sparse-map': {
        const first = this.#partialBytes === 0;
        if (this.#state === 'header' && first) this.#headerAt = this.#consumed + at;
        if (first && data.length - at >= BLOCK_SIZE) {
          this.#block(data.subarray(at, at + BLOCK_SIZE));
          return at + BLOCK_SIZE;
        }
        const taken = data.copy(this.#partial, this.#partialBytes, at, at + BLOCK_SIZE - this.#partialBytes);
        this.#partialBytes += taken;
        if (this.#partialBytes === BLOCK_SIZE) {
          this.#partialBytes = 0;
          this.#block(this.#partial);
        }
        return at + taken;
      }
      case 'payload': {
        const taken = data.copy(this.#payload, this.#payloadBytes, at);
        this.#payloadBytes += taken;
        if (this.#payloadBytes === this.#payload.length) this.#endPayload();
        return at + taken;
      }
      case 'data': {
        const end = Math.min(data.length, at + this.#remaining);
        this.#remaining -= end - at;
        this.#emit(data.subarray(at, end));
        if (this.#remaining === 0) this.#endData();
        return end;
      }
      case 'padding': {
        const end = Math.min(data.length, at + this.#padding);
        this.#padding -= end - at;
        if (this.#padding === 0) this.#state = 'header';
        return end;
      }
      case 'ended':
        this.#trailingData ||= !isAllZero(data.subarray(at));
        return data.length;
    }
  }

  #block(block: Buffer): void {
    if (this.#state === 'header') this.#header(block);
    else if (this.#state === 'sparse-extension') this.#sparseExtension(block);
    else this.#sparseMap(block);
  }

  #header(block: Buffer): void {
    if (block[0] === 0 && block.equals(ZERO_BLOCK)) {
      if (this.#extensionPending()) throw danglingExtension();
      this.#zeroBlocks++;
      if (this.#zeroBlocks === 2) this.#state = 'ended';
      return;
    }
    if (this.#zeroBlocks > 0) {
      throw new HostctlError('image-invalid', 'Archive goes on behind a zero block, where some readers stop');
    }
    checkChecksum(block);
    const flag = String.fromCharCode(block[156]!);
    if (flag === 'x' || flag === 'g' || flag === 'L' || flag === 'K') {
      this.#startPayload(flag, numberField(block, 'size'));
      return;
    }
    const head = assembleEntry(block, this.#extensions, this.#entries + 1);
    this.#entries++;
    this.#head = head;
    this.#remaining = head.packedBytes;
    this.#padding = paddingOf(head.packedBytes);
    const paxSparse = this.#extensions.pax?.sparse;
    this.#extensions = {};
    this.#extensionCount = 0;
    if (head.oldGnuSparse) {
      this.#oldMap = new OldGnuSparseMap(block);
      this.#startOldSparse();
    } else if (paxSparse !== undefined) {
      const form = paxSparseForm(paxSparse);
      if (form.kind === 'in-header') {
        this.#startSparse(form.segments, form.realSize);
      } else {
        this.#head = { ...head, entry: { ...head.entry, size: form.realSize } };
        this.#dataMap = new SparseDataMap();
        this.#state = 'sparse-map';
        if (this.#remaining === 0) throw new HostctlError('image-invalid', 'Sparse file has no room for its map');
      }
    } else {
      this.#segments = undefined;
      this.#startData(head.entry);
    }
  }

  #startPayload(flag: string, size: number): void {
    if (++this.#extensionCount > MAX_EXTENSIONS) {
      throw new HostctlError('image-invalid', `More than ${MAX_EXTENSIONS} extension headers stand before one entry`);
    }
    const { pax, longName, longLink } = this.#extensions;
    const pending = { x: pax, L: longName, K: longLink, g: pax ?? longName ?? longLink }[flag];
    if (pending !== undefined) {
      throw new HostctlError(
        'image-invalid',
        `Extension header of type "${flag}" stands where readers disagree on what it changes`,
      );
    }
    const most = flag === 'x' || flag === 'g' ? MAX_PAX_BYTES : MAX_LONG_NAME_BYTES;
    if (size > most) {
      throw new HostctlError(
        'image-invalid',
        `Extension header of type "${flag}" has ${size} bytes, at most ${most} are read`,
      );
    }
    this.#payloadType = flag;
    this.#payload = Buffer.alloc(size);
    this.#payloadBytes = 0;
    this.#padding = paddingOf(size);
    this.#state = 'payload';
    if (size === 0) this.#endPayload();
  }

  #endPayload(): void {
    const data = this.#payload;
    switch (this.#payloadType) {
      case 'x':
        this.#extensions.pax = parsePaxHeader(data);
        break;
      case 'L':
        this.#extensions.longName = longText(data);
        break;
      case 'K':
        this.#extensions.longLink = longText(data);
        break;
      default:
        if (!isHarmlessGlobal(data)) {
          throw new HostctlError(
            'image-unsupported',
            'Global PAX header changes entries, which readers handle differently',
          );
        }
    }
    this.#state = this.#padding === 0 ? 'header' : 'padding';
  }

  #extensionPending(): boolean {
    const { pax, longName, longLink } = this.#extensions;
    return (pax ?? longName ?? longLink) !== undefined;
  }

  #sparseExtension(block: Buffer): void {
    this.#oldMap!.extend(block);
    this.#startOldSparse();
  }

  #startOldSparse(): void {
    const map = this.#oldMap!;
    if (map.extended) this.#state = 'sparse-extension';
    else this.#startSparse(map.segments, map.realSize);
  }

  #sparseMap(block: Buffer): void {
    this.#remaining -= BLOCK_SIZE;
    const map = this.#dataMap!;
    const complete = map.take(block);
    if (complete) {
      if (this.#remaining < 0) throw new HostctlError('image-invalid', 'Sparse map is longer than the data it opens');
      this.#startSparse(map.segments, this.#head!.entry.size);
    } else if (this.#remaining <= 0) {
      throw new HostctlError('image-invalid', 'Sparse map is longer than the data it opens');
    }
  }

  #startSparse(segments: SparseSegment[], realSize: number): void {
    if (realSize > MAX_FILE_BYTES) {
      throw new HostctlError('image-unsupported', `File has ${realSize} bytes, at most ${MAX_FILE_BYTES} are read`);
    }
    this.#segments = checkSparseMap(segments, this.#remaining, realSize);
    this.#segment = 0;
    this.#position = 0;
    this.#startData({ ...this.#head!.entry, size: realSize, holeBytes: realSize - this.#remaining });
  }

  #startData(entry: TarEntry): void {
    this.#handler.entry(entry);
    this.#head = { ...this.#head!, entry };
    this.#state = 'data';
    if (this.#remaining === 0) this.#endData();
  }

  #emit(data: Buffer): void {
    if (this.#segments === undefined) {
      this.#handler.data(data);
      return;
    }
    for (let at = 0; at < data.length;) {
      const segment = this.#segments[this.#segment]!;
      this.#emitHole(segment.offset);
      const end = Math.min(data.length, at + segment.offset + segment.length - this.#position);
      if (end > at) this.#handler.data(data.subarray(at, end));
      this.#position += end - at;
      at = end;
      if (this.#position === segment.offset + segment.length) this.#segment++;
    }
  }

  #emitHole(end: number): void {
    while (this.#position < end) {
      const length = Math.min(ZEROS.length, end - this.#position);
      this.#handler.data(length === ZEROS.length ? ZEROS : ZEROS.subarray(0, length));
      this.#position += length;
    }
  }

  #endData(): void {
    if (this.#segments !== undefined) this.#emitHole(this.#head!.entry.size);
    this.#handler.entryEnd();
    this.#head = undefined;
    this.#state = this.#padding === 0 ? 'header' : 'padding';
  }

  /** Names the entry that was being read, also for what the handler refused about it. */
  #contextual(error: unknown): unknown {
    const name = this.#head === undefined ? '' : ` "${displayRaw(this.#head.entry.name)}"`;
    const number = this.#head === undefined ? this.#entries + 1 : this.#entries;
    return withContext(`Entry ${number}${name} at offset ${this.#headerAt}`, error);
  }
}

function paddingOf(size: number): number {
  return (BLOCK_SIZE - (size % BLOCK_SIZE)) % BLOCK_SIZE;
}

/** A GNU long name: ends with a NUL, and holds none before, since some readers cut there and others do not. */
function longText(data: Buffer): RawName {
  const nul = data.indexOf(0);
  if (nul !== -1 && nul !== data.length - 1) throw new HostctlError('image-invalid', 'GNU long name holds a NUL');
  return data.toString('latin1', 0, nul === -1 ? data.length : nul) as RawName;
}

function danglingExtension(): HostctlError {
  return new HostctlError('image-invalid', 'Archive ends behind an extension header');
}
