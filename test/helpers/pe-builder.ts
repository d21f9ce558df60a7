/** PE files with some sections, as little of the format as a reader of sections looks at. */

export interface PeSection {
  readonly name: string;
  readonly content: string | Uint8Array;
  /** What counts of the content; all of it if not given. */
  readonly virtualSize?: number;
}

export function peFile(sections: readonly PeSection[]): Buffer {
  const optionalBytes = 112;
  const pe = 128;
  const table = pe + 24 + optionalBytes;
  const head = Buffer.alloc(Math.ceil((table + 40 * sections.length) / 512) * 512);
  head.write('MZ', 0);
  head.writeUInt32LE(pe, 60);
  head.write('PE\0\0', pe, 'latin1');
  head.writeUInt16LE(0x8664, pe + 4);
  head.writeUInt16LE(sections.length, pe + 6);
  head.writeUInt16LE(optionalBytes, pe + 20);
  const parts: Buffer[] = [head];
  let offset = head.length;
  for (const [i, { name, content, virtualSize }] of sections.entries()) {
    const bytes = Buffer.from(content as string);
    const padded = Buffer.alloc(Math.ceil(bytes.length / 512) * 512);
    bytes.copy(padded);
    const at = table + 40 * i;
    head.write(name, at, 8, 'latin1');
    head.writeUInt32LE(virtualSize ?? bytes.length, at + 8);
    head.writeUInt32LE(padded.length, at + 16);
    head.writeUInt32LE(offset, at + 20);
    parts.push(padded);
    offset += padded.length;
  }
  return Buffer.concat(parts);
}
