/**
 * Tar archives in the POSIX pax form: a ustar header for each entry, and before it an extended header for whatever does
 * not fit there. The same entries give the same bytes: no clock, no names of users.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, type RawName } from '../../tree/name.ts';
import type { Timestamp } from '../../tree/node.ts';
import type { TarEntry, TarEntryType } from './entry.ts';
import { BLOCK_SIZE, TAR_FIELDS, type TarField } from './header.ts';

/** An entry as it is written; `size` bytes follow its header, and `tarPadding`. */
export type WrittenEntry = Omit<TarEntry, 'number' | 'holeBytes'>;

/** What ends an archive. */
export const TAR_END: Uint8Array = Buffer.alloc(2 * BLOCK_SIZE);

const TYPE_FLAGS: Readonly<Record<TarEntryType, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** The headers of an entry. */
export function tarHeaders(entry: WrittenEntry): Uint8Array {
  const records = paxRecords(entry);
  const header = headerBlock(TYPE_FLAGS[entry.type], entry);
  if (records.length === 0) return header;
  const content = Buffer.concat(records);
  const extended = headerBlock('x', {
    ...entry,
    name: 'PaxHeaders/next' as RawName,
    linkname: '' as RawName,
    mode: 0o644,
    size: content.length,
  });
  return Buffer.concat([extended, content, tarPadding(content.length), header]);
}

/** What fills the last block of `size` bytes. */
export function tarPadding(size: number): Uint8Array {
  return Buffer.alloc((BLOCK_SIZE - (size % BLOCK_SIZE)) % BLOCK_SIZE);
}

function headerBlock(flag: string, entry: WrittenEntry): Buffer {
  const block = Buffer.alloc(BLOCK_SIZE);
  const put = (field: TarField, text: string): void => {
    const [offset, length] = TAR_FIELDS[field];
    block.write(text, offset, length, 'latin1');
  };
  const putNumber = (field: TarField, value: number): void =>
    put(field, (fitsField(field, value) ? value : 0).toString(8).padStart(TAR_FIELDS[field][1] - 1, '0'));
  put('name', entry.name);
  putNumber('mode', entry.mode);
  putNumber('uid', entry.uid);
  putNumber('gid', entry.gid);
  putNumber('size', entry.size);
  putNumber('mtime', Number(entry.mtime.sec));
  put('type', flag);
  put('linkname', entry.linkname);
  put('magic', 'ustar\u000000');
  putNumber('devmajor', entry.devMajor);
  putNumber('devminor', entry.devMinor);
  put('checksum', ' '.repeat(TAR_FIELDS.checksum[1]));
  const sum = block.reduce((total, byte) => total + byte, 0);
  put('checksum', `${sum.toString(8).padStart(6, '0')}\0 `);
  return block;
}

/** What the header cannot hold. */
function paxRecords({ name, linkname, uid, gid, size, mtime, xattrs }: WrittenEntry): Buffer[] {
  const records: Buffer[] = [];
  const add = (key: string, value: Uint8Array | string): void => void records.push(paxRecord(key, value));
  if (name.length > TAR_FIELDS.name[1]) add('path', name);
  if (linkname.length > TAR_FIELDS.linkname[1]) add('linkpath', linkname);
  if (!fitsField('uid', uid)) add('uid', String(uid));
  if (!fitsField('gid', gid)) add('gid', String(gid));
  if (!fitsField('size', size)) add('size', String(size));
  if (mtime.nsec !== 0 || !fitsField('mtime', Number(mtime.sec))) add('mtime', paxTime(mtime));
  for (const [key, value] of xattrs) {
    if (key.includes('=')) {
      throw new HostctlError('image-unsupported', `A tar archive cannot hold the xattr "${displayRaw(key)}"`);
    }
    add(`SCHILY.xattr.${key}`, value);
  }
  return records;
}

function fitsField(field: TarField, value: number): boolean {
  return value >= 0 && value < 8 ** (TAR_FIELDS[field][1] - 1);
}

/** `LEN KEY=VALUE\n`, where LEN counts itself. */
function paxRecord(key: string, value: Uint8Array | string): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const body = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), bytes, Buffer.from('\n')]);
  let digits = 1;
  while (String(body.length + digits).length > digits) digits += 1;
  return Buffer.concat([Buffer.from(String(body.length + digits)), body]);
}

/** Decimal seconds; a time before 1970 counts back from there, its fraction too. */
function paxTime({ sec, nsec }: Timestamp): string {
  const total = sec * 1_000_000_000n + BigInt(nsec);
  const absolute = total < 0n ? -total : total;
  const fraction = (absolute % 1_000_000_000n).toString().padStart(9, '0').replace(/0+$/, '');
  return `${total < 0n ? '-' : ''}${absolute / 1_000_000_000n}${fraction === '' ? '' : `.${fraction}`}`;
}
