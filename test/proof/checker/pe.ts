/** Reads the command lines of a PE file: the sections `.cmdline` of a unified kernel image, or of an add-on. */

import { Damage } from './files.ts';

const SECTION_BYTES = 40;

export function peCommandLines(file: Buffer): string[] {
  if (file.length < 64 || file.toString('latin1', 0, 2) !== 'MZ') throw new Damage('a program is no PE file');
  const header = file.readUInt32LE(60);
  const count = file.readUInt16LE(header + 6);
  const table = header + 24 + file.readUInt16LE(header + 20);
  const lines: string[] = [];
  for (let at = table; at < table + count * SECTION_BYTES; at += SECTION_BYTES) {
    if (file.toString('latin1', at, at + 8) !== '.cmdline') continue;
    const start = file.readUInt32LE(at + 20);
    const text = file.toString('utf8', start, start + file.readUInt32LE(at + 8));
    lines.push(text.replace(/\0.*$/s, '').trim());
  }
  return lines;
}
