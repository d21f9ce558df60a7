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
  let head = Buffer.alloc(0);
  let position = 0;
  let wanted: { readonly offset: number; readonly bytes: Buffer }[] | undefined;
  const take = (piece: Uint8Array, at: number): void => {
    for (const { offset, bytes } of wanted ?? []) {
      const from = Math.max(offset, at);
      const to = Math.min(offset + bytes.length, at + piece.length);
      if (from < to) bytes.set(piece.subarray(from - at, to - at), from - offset);
    }
  };
  for (const piece of pieces) {
    if (wanted === undefined) {
      head = Buffer.concat([head, piece]);
      if (head.length < HEAD_BYTES) continue;
      wanted = sectionsOf(head, name);
      take(head, 0);
      position = head.length;
    } else {
      take(piece, position);
      position += piece.length;
    }
  }
  if (wanted === undefined) {
    wanted = sectionsOf(head, name);
    take(head, 0);
    position = head.length;
  }
  if (wanted.some(({ offset, bytes }) => offset + bytes.length > position)) {
    throw new HostctlError('image-invalid', `PE file ends inside its section "${name}"`);
  }
  return wanted.map(({ bytes }) => bytes);
}

/** Where the sections lie, each with room for its content. */
function sectionsOf(head: Buffer, name: string): { readonly offset: number; readonly bytes: Buffer }[] {
  const pe = head.length >= 64 && head.toString('latin1', 0, 2) === 'MZ' ? head.readUInt32LE(60) : head.length;
  if (pe + 24 > head.length || head.toString('latin1', pe, pe + 4) !== 'PE\0\0') {
    throw new HostctlError('image-invalid', 'File is no PE file');
  }
  const count = head.readUInt16LE(pe + 6);
  const table = pe + 24 + head.readUInt16LE(pe + 20);
  if (count > MAX_SECTIONS || table + count * SECTION_BYTES > head.length) {
    throw new HostctlError('image-invalid', `PE file has a section table of ${count} entries that cannot be read`);
  }
  const found: { offset: number; bytes: Buffer }[] = [];
  for (let at = table; at < table + count * SECTION_BYTES; at += SECTION_BYTES) {
    if (head.toString('latin1', at, at + 8).replace(/\0+$/, '') !== name) continue;
    // What is stored may be padded beyond what counts.
    const size = Math.min(head.readUInt32LE(at + 8), head.readUInt32LE(at + 16));
    if (size > MAX_SECTION_BYTES) {
      throw new HostctlError('image-unsupported', `PE section "${name}" has ${size} bytes`);
    }
    found.push({ offset: head.readUInt32LE(at + 20), bytes: Buffer.alloc(size) });
  }
  return found;
}
