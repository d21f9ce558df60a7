/**
 * Sections of a PE file (Microsoft "PE Format"), as systemd-stub finds the parts of a unified kernel image. The file is
 * read once from front to back, and only the sections that are asked for are kept.
 */

import { HostctlError } from '../errors.ts';

/** DOS header, PE header and section table lie in what comes first of a file. */
const HEAD_BYTES = 64 << 10;
const MAX_SECTION_BYTES = 64 << 10;
const MAX_SECTIONS = 96;
const SECTION_BYTES = 40;

/**
 * The content of every section of that name, in the order of the table. Throws 'image-invalid' for what is no PE file or
 * ends early, 'image-unsupported' for a section too large.
 */
export function readPeSections(pieces: Iterable<Uint8Array>, name: string): Uint8Array[] {
  let wanted: readonly { readonly offset: number; readonly bytes: Buffer }[] | undefined;
  let position = 0;
  for (const piece of withHead(pieces)) {
    wanted ??= roomFor(piece, name);
    for (const { offset, bytes } of wanted) {
      const from = Math.max(offset, position);
      const to = Math.min(offset + bytes.length, position + piece.length);
      if (from < to) bytes.set(piece.subarray(from - position, to - position), from - offset);
    }
    position += piece.length;
  }
  if ((wanted ?? []).some(({ offset, bytes }) => offset + bytes.length > position)) throw endsInside(name);
  return (wanted ?? []).map(({ bytes }) => bytes);
}

/** The command lines of a unified kernel image or add-on, as systemd-stub reads them: each to its first NUL. */
export function readPeCmdlines(pieces: Iterable<Uint8Array>): string[] {
  return readPeSections(pieces, '.cmdline').map((section) =>
    Buffer.from(section).toString('utf8').replace(/\0.*$/s, ''),
  );
}

/**
 * The content of the first section of that name, of any size, in pieces that are lent for one step. Throws
 * 'image-invalid' for what is no PE file, has no such section or ends inside it.
 */
export function* peSectionPieces(pieces: Iterable<Uint8Array>, name: string): Generator<Uint8Array> {
  let section: Section | undefined;
  let position = 0;
  for (const piece of withHead(pieces)) {
    section ??= sectionsOf(piece, name)[0];
    if (section === undefined) throw new HostctlError('image-invalid', `PE file has no section "${name}"`);
    const { offset, size } = section;
    const from = Math.max(offset, position);
    const to = Math.min(offset + size, position + piece.length);
    if (from < to) yield piece.subarray(from - position, to - position);
    position += piece.length;
    if (position >= offset + size) return;
  }
  throw endsInside(name);
}

function endsInside(name: string): HostctlError {
  return new HostctlError('image-invalid', `PE file ends inside its section "${name}"`);
}

/** The same pieces, of which the first holds all that tables are read from, if there is as much; at least one. */
function* withHead(pieces: Iterable<Uint8Array>): Generator<Buffer> {
  let head = Buffer.alloc(0);
  let isWhole = false;
  for (const piece of pieces) {
    if (isWhole) yield Buffer.from(piece.buffer, piece.byteOffset, piece.length);
    else {
      head = Buffer.concat([head, piece]);
      isWhole = head.length >= HEAD_BYTES;
      if (isWhole) yield head;
    }
  }
  if (!isWhole) yield head;
}

/** Where the sections lie, each with room for its content. */
function roomFor(head: Buffer, name: string): { readonly offset: number; readonly bytes: Buffer }[] {
  return sectionsOf(head, name).map(({ offset, size }) => {
    if (size > MAX_SECTION_BYTES) {
      throw new HostctlError('image-unsupported', `PE section "${name}" has ${size} bytes`);
    }
    return { offset, bytes: Buffer.alloc(size) };
  });
}

interface Section {
  readonly offset: number;
  readonly size: number;
}

function sectionsOf(head: Buffer, name: string): Section[] {
  const pe = head.length >= 64 && head.toString('latin1', 0, 2) === 'MZ' ? head.readUInt32LE(60) : head.length;
  if (pe + 24 > head.length || head.toString('latin1', pe, pe + 4) !== 'PE\0\0') {
    throw new HostctlError('image-invalid', 'File is no PE file');
  }
  const count = head.readUInt16LE(pe + 6);
  const table = pe + 24 + head.readUInt16LE(pe + 20);
  if (count > MAX_SECTIONS || table + count * SECTION_BYTES > head.length) {
    throw new HostctlError('image-invalid', `PE file has a section table of ${count} entries that cannot be read`);
  }
  const found: Section[] = [];
  for (let at = table; at < table + count * SECTION_BYTES; at += SECTION_BYTES) {
    if (head.toString('latin1', at, at + 8).replace(/\0+$/, '') !== name) continue;
    // What is stored may be padded beyond what counts.
    const size = Math.min(head.readUInt32LE(at + 8), head.readUInt32LE(at + 16));
    found.push({ offset: head.readUInt32LE(at + 20), size });
  }
  return found;
}
