/**
 * One tar entry as its header and the extension headers before it state it together. Names stay as written: which
 * path they mean is for the layer to say. Nothing here holds file data.
 */

import { HostctlError } from '../../errors.ts';
import type { RawName } from '../../tree/name.ts';
import type { Timestamp } from '../../tree/node.ts';
import { numberField, signedField, tarFormat, textField } from './header.ts';
import type { PaxHeader } from './pax.ts';

export type TarEntryType = 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

export interface TarEntry {
  /** 1 for the first entry of the archive; extension headers do not count. */
  readonly number: number;
  readonly type: TarEntryType;
  /** As in the archive: may begin with "/", end with "/", hold "." and "..". */
  readonly name: RawName;
  /** Target of a symlink or hard link, else empty. */
  readonly linkname: RawName;
  /** 07777 at most. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Timestamp;
  /** Bytes of a file once sparse parts are expanded; 0 for everything else. */
  readonly size: number;
  /** How many of those bytes are not stored in the archive. */
  readonly holeBytes: number;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly xattrs: ReadonlyMap<RawName, Uint8Array>;
}

/** The extension headers that stand before an entry. */
export interface TarExtensions {
  pax?: PaxHeader;
  longName?: RawName;
  longLink?: RawName;
}

/** What an entry's header block says, with the bytes that follow it. */
export interface TarHead {
  readonly entry: TarEntry;
  /** An old GNU sparse file, whose map stands in the header. */
  readonly oldGnuSparse: boolean;
  /** Bytes after the header, before padding; a sparse file's `entry.size` is not known yet. */
  readonly packedBytes: number;
}

/** (uid_t)-1 means "leave alone" to chown, so it is no owner. */
const MAX_ID = 2 ** 32 - 2;
export const MAX_FILE_BYTES = 64 * 2 ** 30;
const noXattrs: ReadonlyMap<RawName, Uint8Array> = new Map();

const types = new Map<string, TarEntryType>([
  ['0', 'file'],
  ['\0', 'file'],
  ['7', 'file'],
  ['S', 'file'],
  ['1', 'hardlink'],
  ['2', 'symlink'],
  ['3', 'char'],
  ['4', 'block'],
  ['5', 'directory'],
  ['6', 'fifo'],
]);

/** Puts a header block and its extensions together. Errors name the field. */
export function assembleEntry(block: Buffer, extensions: TarExtensions, number: number): TarHead {
  const pax = extensions.pax ?? {};
  const flag = String.fromCharCode(block[156]!);
  const format = tarFormat(block);
  const name = entryName(block, format === 'ustar', extensions);
  const type = entryType(flag, name);
  const linkname = entryLinkname(block, extensions);
  const packedBytes = pax.size ?? numberField(block, 'size');
  checkSize(type, packedBytes);
  checkSparse(flag, type, format === 'gnu', pax);
  const isDevice = format !== 'v7' && (type === 'char' || type === 'block');
  return {
    oldGnuSparse: flag === 'S',
    packedBytes,
    entry: {
      number,
      type,
      name,
      linkname: type === 'symlink' || type === 'hardlink' ? linkname : ('' as RawName),
      mode: numberField(block, 'mode') & 0o7777,
      uid: checkId('uid', pax.uid ?? numberField(block, 'uid')),
      gid: checkId('gid', pax.gid ?? numberField(block, 'gid')),
      mtime: pax.mtime ?? { sec: signedField(block, 'mtime'), nsec: 0 },
      size: packedBytes,
      holeBytes: 0,
      devMajor: isDevice ? checkDevice('devmajor', numberField(block, 'devmajor'), 0xfff) : 0,
      devMinor: isDevice ? checkDevice('devminor', numberField(block, 'devminor'), 0xfffff) : 0,
      xattrs: pax.xattrs ?? noXattrs,
    },
  };
}

function entryName(block: Buffer, hasPrefix: boolean, { pax, longName }: TarExtensions): RawName {
  const byPax = pax?.sparse?.name ?? pax?.path;
  if (byPax !== undefined && longName !== undefined) {
    throw new HostctlError('image-invalid', 'Name is given twice, by a PAX header and by a GNU long name');
  }
  const stated = byPax ?? longName;
  if (stated !== undefined) return stated;
  const name = textField(block, 'name');
  const prefix = hasPrefix ? textField(block, 'prefix') : '';
  return prefix === '' ? name : (`${prefix}/${name}` as RawName);
}

function entryLinkname(block: Buffer, { pax, longLink }: TarExtensions): RawName {
  if (pax?.linkpath !== undefined && longLink !== undefined) {
    throw new HostctlError('image-invalid', 'Link target is given twice, by a PAX header and by a GNU long link');
  }
  return pax?.linkpath ?? longLink ?? textField(block, 'linkname');
}

function entryType(flag: string, name: RawName): TarEntryType {
  // V7 had no directory type: a file whose name ends with a slash was one.
  if (flag === '\0' && name.endsWith('/')) return 'directory';
  const type = types.get(flag);
  if (type === undefined) {
    throw new HostctlError('image-unsupported', `Entry type ${JSON.stringify(flag)} is not one an image may hold`);
  }
  return type;
}

function checkSize(type: TarEntryType, size: number): void {
  if (type !== 'file' && size !== 0) {
    // Some readers skip this many bytes, others read headers there.
    throw new HostctlError('image-invalid', `Field "size" of a ${type} is ${size} instead of 0`);
  }
  if (size > MAX_FILE_BYTES) {
    throw new HostctlError('image-unsupported', `File has ${size} bytes, at most ${MAX_FILE_BYTES} are read`);
  }
}

function checkSparse(flag: string, type: TarEntryType, isGnu: boolean, pax: PaxHeader): void {
  if (flag === 'S' && (!isGnu || pax.sparse !== undefined)) {
    throw new HostctlError(
      'image-invalid',
      'Sparse file of type "S" has no GNU header or a second map in a PAX header',
    );
  }
  if (pax.sparse !== undefined && type !== 'file') {
    throw new HostctlError('image-invalid', `PAX header gives a sparse map to a ${type}`);
  }
}

function checkId(field: string, id: number): number {
  if (id > MAX_ID) throw new HostctlError('image-invalid', `Field "${field}" is ${id}, more than ${MAX_ID}`);
  return id;
}

function checkDevice(field: string, value: number, most: number): number {
  if (value > most) throw new HostctlError('image-invalid', `Field "${field}" is ${value}, more than ${most}`);
  return value;
}
