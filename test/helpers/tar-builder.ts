/**
 * Tar archives byte by byte, right or wrong in any way: `tar([tarFile('a', 'hi'), paxHeader({ path: 'x' }), …])`.
 * Shares no code with the reader it tests.
 */

type Bytes = string | Uint8Array;

const fields = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  linkname: [157, 100],
  magic: [257, 8],
  uname: [265, 32],
  gname: [297, 32],
  devmajor: [329, 8],
  devminor: [337, 8],
  prefix: [345, 155],
} as const;

export type HeaderField = keyof typeof fields;

export interface TarSpec {
  readonly type?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly linkname?: Bytes;
  readonly devmajor?: number;
  readonly devminor?: number;
  readonly prefix?: Bytes;
  readonly format?: 'ustar' | 'gnu' | 'v7';
  /** Bytes behind the header. */
  readonly content?: Bytes;
  /** Size field, if it shall not be the content's length. */
  readonly size?: number;
  /** Fields written as these bytes, whatever else is given. */
  readonly raw?: Partial<Record<HeaderField, Bytes>>;
  /** Bytes written at an offset of the header. */
  readonly at?: readonly (readonly [offset: number, bytes: Bytes])[];
  readonly signedChecksum?: boolean;
  readonly badChecksum?: boolean;
  /** Leave out the padding behind the content. */
  readonly unpadded?: boolean;
}

const magics = { ustar: 'ustar\u000000', gnu: 'ustar  \0', v7: '' } as const;

/** One header with its content and padding. */
export function tarEntry(name: Bytes, spec: TarSpec = {}): Buffer {
  const header = Buffer.alloc(512);
  const put = (field: HeaderField, bytes: Bytes): void => {
    const [offset, length] = fields[field];
    header.fill(0, offset, offset + length);
    bytesOf(bytes).copy(header, offset, 0, length);
  };
  const content = bytesOf(spec.content ?? '');
  put('name', name);
  put('mode', octal(spec.mode ?? 0o644, 8));
  put('uid', octal(spec.uid ?? 0, 8));
  put('gid', octal(spec.gid ?? 0, 8));
  put('size', octal(spec.size ?? content.length, 12));
  put('mtime', octal(spec.mtime ?? 0, 12));
  put('type', spec.type ?? '0');
  put('linkname', spec.linkname ?? '');
  put('magic', magics[spec.format ?? 'ustar']);
  if (spec.devmajor !== undefined) put('devmajor', octal(spec.devmajor, 8));
  if (spec.devminor !== undefined) put('devminor', octal(spec.devminor, 8));
  if (spec.prefix !== undefined) put('prefix', spec.prefix);
  for (const [offset, bytes] of spec.at ?? []) bytesOf(bytes).copy(header, offset);
  for (const [field, bytes] of Object.entries(spec.raw ?? {})) put(field as HeaderField, bytes);
  if (spec.raw?.checksum === undefined) {
    header.fill(' ', 148, 156);
    let sum = 0;
    for (const byte of header) sum += spec.signedChecksum === true && byte > 127 ? byte - 256 : byte;
    put('checksum', `${(sum + (spec.badChecksum === true ? 1 : 0)).toString(8).padStart(6, '0')}\0 `);
  }
  return Buffer.concat([header, content, Buffer.alloc(spec.unpadded === true ? 0 : pad(content.length))]);
}

export function tarFile(name: Bytes, content: Bytes = '', spec: TarSpec = {}): Buffer {
  return tarEntry(name, { content, ...spec });
}

export function tarDir(name: Bytes, spec: TarSpec = {}): Buffer {
  return tarEntry(name, { type: '5', mode: 0o755, ...spec });
}

export function tarSymlink(name: Bytes, target: Bytes, spec: TarSpec = {}): Buffer {
  return tarEntry(name, { type: '2', mode: 0o777, linkname: target, ...spec });
}

export function tarHardlink(name: Bytes, target: Bytes, spec: TarSpec = {}): Buffer {
  return tarEntry(name, { type: '1', linkname: target, ...spec });
}

export type PaxRecords = Readonly<Record<string, Bytes>> | readonly (readonly [key: string, value: Bytes])[];

/** A PAX header for the next entry; a list keeps order and repeats. */
export function paxHeader(records: PaxRecords, type = 'x'): Buffer {
  const list = isList(records) ? records : Object.entries(records);
  return paxBlock(Buffer.concat(list.map(([key, value]) => paxRecord(key, value))), type);
}

function isList(records: PaxRecords): records is readonly (readonly [string, Bytes])[] {
  return Array.isArray(records);
}

/** A PAX header with these bytes in it. */
export function paxBlock(content: Bytes, type = 'x'): Buffer {
  return tarEntry('PaxHeaders/next', { type, content });
}

export function paxRecord(key: string, value: Bytes): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), bytesOf(value), Buffer.from('\n')]);
  let length = body.length + 1;
  while (`${length}`.length + body.length !== length) length = `${length}`.length + body.length;
  return Buffer.concat([Buffer.from(`${length}`), body]);
}

/** A GNU long name ('L') or long link ('K') for the next entry. */
export function gnuLong(type: 'L' | 'K', text: Bytes, end = '\0'): Buffer {
  return tarEntry('././@LongLink', { type, format: 'gnu', content: Buffer.concat([bytesOf(text), bytesOf(end)]) });
}

/** Entries and the end of the archive: two zero blocks unless told otherwise. */
export function tar(entries: readonly Uint8Array[], endBlocks = 2): Buffer {
  return Buffer.concat([...entries, Buffer.alloc(512 * endBlocks)]);
}

/** A number in base-256, as GNU tar writes what octal cannot hold. */
export function base256(value: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let rest = BigInt.asUintN(8 * (length - 1), value);
  for (let i = length - 1; i > 0; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn);
  bytes[0] = value < 0n ? 0xff : 0x80;
  return bytes;
}

function octal(value: number, length: number): string {
  return `${value.toString(8).padStart(length - 1, '0')}\0`;
}

function pad(length: number): number {
  return (512 - (length % 512)) % 512;
}

/** Text stands for its latin1 bytes, as raw names do. */
function bytesOf(bytes: Bytes): Buffer {
  return typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : Buffer.from(bytes);
}
