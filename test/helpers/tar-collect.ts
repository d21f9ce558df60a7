/** Everything a tar reader says about an archive, as plain values. */

import type { TarEntry } from '../../src/format/tar/entry.ts';
import { TarReader } from '../../src/format/tar/reader.ts';

export interface CollectedEntry extends Omit<TarEntry, 'xattrs' | 'mtime' | 'number'> {
  /** `sec` or `sec.nsec`. */
  readonly mtime: string;
  readonly xattrs: Readonly<Record<string, string>>;
  /** Latin1. */
  readonly content: string;
}

/** Reads an archive in pieces of `pieceBytes`. */
export function collectTar(
  archive: Uint8Array,
  pieceBytes = archive.length,
): { entries: CollectedEntry[]; trailingData: boolean } {
  const entries: CollectedEntry[] = [];
  let open: TarEntry | undefined;
  let content = '';
  const reader = new TarReader({
    entry(entry) {
      if (open !== undefined) throw new Error('An entry began inside another');
      open = entry;
      content = '';
    },
    data(chunk) {
      content += Buffer.from(chunk).toString('latin1');
    },
    entryEnd() {
      const { xattrs, mtime, number, ...rest } = open!;
      if (number !== entries.length + 1) throw new Error(`Entry ${entries.length + 1} calls itself ${number}`);
      entries.push({
        ...rest,
        mtime: mtime.nsec === 0 ? `${mtime.sec}` : `${mtime.sec}.${String(mtime.nsec).padStart(9, '0')}`,
        xattrs: Object.fromEntries([...xattrs].map(([name, value]) => [name, Buffer.from(value).toString('latin1')])),
        content,
      });
      open = undefined;
    },
  });
  for (let at = 0; at < archive.length; at += pieceBytes) reader.push(archive.subarray(at, at + pieceBytes));
  reader.end();
  return { entries, trailingData: reader.trailingData };
}
