/**
 * Access to `test/fixtures/composefs/trees.json`: directories described entry by entry, with what mkcomposefs makes of
 * them under each option.
 */

import type { ReadDirectoryOptions } from '../../src/image/directory.ts';
import type { ComposefsImageOptions } from '../../src/format/erofs/writer.ts';
import { readFixture } from './composefs-vectors.ts';

export interface DirectoryEntry {
  /** Relative, "." for the directory itself. */
  readonly path: string;
  readonly type: 'dir' | 'file' | 'symlink' | 'hardlink' | 'fifo' | 'sock' | 'chr' | 'blk';
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime_ns?: string;
  readonly size?: number;
  readonly seed?: number;
  readonly target?: string;
  readonly major?: number;
  readonly minor?: number;
  /** Values in hex. */
  readonly xattrs?: Readonly<Record<string, string>>;
}

export interface DirectoryExpected {
  readonly digest: string;
  readonly sha256: string;
  readonly size: number;
  readonly header_version: number;
  readonly info_dump?: string;
  readonly store?: Readonly<Record<string, { readonly sha256: string; readonly size: number; readonly mode: string }>>;
}

export interface DirectoryVector {
  readonly name: string;
  readonly entries: readonly DirectoryEntry[];
  /** By options of mkcomposefs. */
  readonly expect: Readonly<Record<string, DirectoryExpected>>;
}

type Options = Omit<ReadDirectoryOptions, 'listXattrs'> & Omit<ComposefsImageOptions, 'algorithm'>;

/** What the options of mkcomposefs are called here. */
export const OPTIONS: Readonly<Record<string, Options>> = {
  default: { minVersion: 0 },
  '--use-epoch': { minVersion: 0, useEpoch: true },
  '--skip-devices': { minVersion: 0, skipDevices: true },
  '--skip-xattrs': { minVersion: 0, xattrs: 'none' },
  '--user-xattrs': { minVersion: 0, xattrs: 'user' },
  '--min-version=1': {},
  '--max-version=0': { maxVersion: 0 },
  '--use-epoch --skip-xattrs --skip-devices': { minVersion: 0, useEpoch: true, xattrs: 'none', skipDevices: true },
  '--threads=1': { minVersion: 0 },
};

export function directoryVectors(): DirectoryVector[] {
  const text = Buffer.from(readFixture('trees.json')).toString('utf8');
  // Nanoseconds since 1970 are beyond what a JSON number keeps in JavaScript.
  const exact = text.replace(/("mtime_ns":\s*)(-?\d+)/g, '$1"$2"');
  const { trees } = JSON.parse(exact) as {
    trees: Record<string, { tree: DirectoryEntry[]; expect: Record<string, DirectoryExpected> }>;
  };
  return Object.entries(trees).map(([name, { tree, expect }]) => ({ name, entries: tree, expect }));
}

export function contentOfEntry({ size = 0, seed = 0 }: DirectoryEntry): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => (i * 7 + seed) % 251);
}
