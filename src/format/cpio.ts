/**
 * The names in a cpio archive of the "newc" format, as initramfs are made of them (kernel documentation, "initramfs
 * buffer format"): 110 bytes of ASCII header, name, data, both padded to four bytes; an archive ends with TRAILER!!!,
 * and after zeros another one may follow, or something compressed. Contents are skipped.
 */

import { HostctlError } from '../errors.ts';

const HEADER_BYTES = 110;
const MAGIC = /^07070[12]$/;
const FILE_SIZE = 6;
const NAME_SIZE = 11;
const MAX_NAME_BYTES = 4096;
const TRAILER = 'TRAILER!!!';

/** Takes an archive in pieces and keeps the names that pass `isWanted`. */
export class CpioNames {
  readonly found = new Set<string>();
  /** Whether anything of an archive was seen. */
  hasEntries = false;
  readonly #isWanted: (name: string) => boolean;
  #pending: Uint8Array = new Uint8Array();
  #offset = 0;
  #skip = 0;
  #isBetween = true;

  constructor(isWanted: (name: string) => boolean) {
    this.#isWanted = isWanted;
  }

  /** Whether an archive has been begun and not ended. */
  get isOpen(): boolean {
    return !this.#isBetween;
  }

  /**
   * Returns what is left of the chunk when it goes on with something else than cpio after a trailer; undefined when all
   * was taken. Throws 'format-invalid' inside an archive.
   */
  push(chunk: Uint8Array): Uint8Array | undefined {
    let rest = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    this.#pending = new Uint8Array();
    for (;;) {
      const skipped = Math.min(this.#skip, rest.length);
      rest = this.#take(rest, skipped);
      this.#skip -= skipped;
      if (this.#isBetween) {
        const zeros = leadingZeros(rest);
        rest = this.#take(rest, zeros);
        if (rest.length > 0 && rest[0] !== 0x30) return rest;
      }
      if (rest.length < HEADER_BYTES) break;
      const header = Buffer.from(rest.buffer, rest.byteOffset, HEADER_BYTES).toString('latin1');
      if (!MAGIC.test(header.slice(0, 6))) {
        if (this.#isBetween) return rest;
        throw new HostctlError('format-invalid', `No cpio header at offset ${this.#offset}`);
      }
      const size = field(header, FILE_SIZE);
      const nameSize = field(header, NAME_SIZE);
      if (nameSize === 0 || nameSize > MAX_NAME_BYTES) {
        throw new HostctlError('format-invalid', `A cpio name of ${nameSize} bytes at offset ${this.#offset}`);
      }
      const nameEnd = aligned(HEADER_BYTES + nameSize);
      if (rest.length < nameEnd) break;
      const name = Buffer.from(rest.buffer, rest.byteOffset + HEADER_BYTES, nameSize - 1).toString('latin1');
      const path = name.replace(/^\.?\/+/, '');
      if (this.#isWanted(path)) this.found.add(path);
      rest = this.#take(rest, nameEnd);
      this.#skip = aligned(size);
      this.#isBetween = name === TRAILER;
      this.hasEntries = true;
    }
    this.#pending = Uint8Array.from(rest);
    return undefined;
  }

  #take(bytes: Uint8Array, count: number): Uint8Array {
    this.#offset += count;
    return bytes.subarray(count);
  }
}

/** The header's number at this place, counted behind the magic. */
function field(header: string, index: number): number {
  const text = header.slice(6 + index * 8, 14 + index * 8);
  if (/^[0-9a-fA-F]{8}$/.test(text)) return Number.parseInt(text, 16);
  throw new HostctlError('format-invalid', `A cpio header has the number "${text.replaceAll(/[^ -~]/g, '?')}"`);
}

function aligned(size: number): number {
  return (size + 3) & ~3;
}

function leadingZeros(bytes: Uint8Array): number {
  let count = 0;
  while (count < bytes.length && bytes[count] === 0) count += 1;
  return count;
}
