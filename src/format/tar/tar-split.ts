/**
 * Push parser for tar-split: a tar archive without the contents of its files, as lines of JSON, each with raw bytes of
 * the archive (headers, padding) or with the size of a content that stands there.
 */

import { HostctlError } from '../../errors.ts';
import { fieldsOf, parseJson } from '../zstd/chunked.ts';

export interface TarSplitHandler {
  /** The next bytes of the archive. */
  raw(bytes: Uint8Array): void;
  /** The content of a file comes next; never empty. */
  content(size: number): void;
}

/** Headers with all that PAX may hold, in base64, are smaller. */
const MAX_LINE_BYTES = 4 << 20;
const NEWLINE = 10;
const CONTENT = 1;
const RAW = 2;

export class TarSplitReader {
  readonly #handler: TarSplitHandler;
  /** The beginning of a line that goes on in the next bytes. */
  #pieces: Uint8Array[] = [];
  #pieceBytes = 0;

  constructor(handler: TarSplitHandler) {
    this.#handler = handler;
  }

  /** Takes the next bytes. Throws 'image-invalid'. */
  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      const newline = chunk.indexOf(NEWLINE, at);
      const end = newline === -1 ? chunk.length : newline;
      this.#add(chunk.subarray(at, end));
      if (newline !== -1) this.#line();
      at = end + 1;
    }
  }

  end(): void {
    if (this.#pieceBytes > 0) this.#line();
  }

  #add(piece: Uint8Array): void {
    this.#pieceBytes += piece.length;
    if (this.#pieceBytes > MAX_LINE_BYTES) throw unfit(`has a line of more than ${MAX_LINE_BYTES} bytes`);
    if (piece.length > 0) this.#pieces.push(Uint8Array.from(piece));
  }

  #line(): void {
    const { type, size = 0, payload } = fieldsOf(parseJson(Buffer.concat(this.#pieces), 'Line of the tar-split'));
    this.#pieces = [];
    this.#pieceBytes = 0;
    if (type === RAW && typeof payload === 'string') {
      this.#handler.raw(Buffer.from(payload, 'base64'));
    } else if (type === CONTENT && Number.isSafeInteger(size) && (size as number) >= 0) {
      if (size !== 0) this.#handler.content(size as number);
    } else {
      throw unfit('has a line that is neither bytes nor a content');
    }
  }
}

function unfit(how: string): HostctlError {
  return new HostctlError('image-invalid', `Tar-split ${how}`);
}
