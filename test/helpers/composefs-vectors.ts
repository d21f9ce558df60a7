/**
 * Access to `test/fixtures/composefs/`: dumps with what mkcomposefs makes of them.
 */

import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

export type Mode = 'default' | 'v0' | 'v1';

/** What mkcomposefs wrote for one input in one mode, or its refusal. */
export interface Expected {
  readonly header_version: 0 | 1;
  readonly size: number;
  readonly sha256: string;
  readonly digest: string;
  readonly fsverity_sha512?: string;
  readonly info_dump_sha256?: string;
  readonly objects?: number;
  readonly objects_sha256?: string;
  readonly roundtrip_identical?: false;
  readonly fsck_erofs_ok?: false;
  readonly error?: string;
}

export interface Vector {
  readonly name: string;
  readonly dump: Uint8Array;
  readonly expect: Readonly<Record<Mode, Expected>>;
}

/** Digests of the image with sha512 objects; `deviates_from_c` marks an error of the program that made them. */
export interface Sha512Vector {
  readonly name: string;
  readonly dump: Uint8Array;
  readonly expect: Readonly<
    Record<
      'v0' | 'v1' | 'v2',
      {
        readonly digest_sha512: string;
        readonly sha256: string;
        readonly size: number;
        readonly deviates_from_c?: true;
      }
    >
  >;
}

const folder = new URL('../fixtures/composefs/', import.meta.url);

export function readFixture(file: string): Uint8Array {
  const bytes = readFileSync(new URL(file, folder));
  return file.endsWith('.gz') ? gunzipSync(bytes) : bytes;
}

export function readJsonFixture<T>(file: string): T {
  return JSON.parse(Buffer.from(readFixture(file)).toString('utf8')) as T;
}

interface ManifestCase<E> {
  readonly file: string;
  readonly expect: E;
  readonly rs?: CompareResult;
}

/** What composefs-rs made of the same input; `v2` is its own layout. */
interface CompareResult {
  readonly v2?: Version2Vector['expect'] | { readonly error: string };
}

export interface Version2Vector {
  readonly name: string;
  readonly dump: Uint8Array;
  readonly expect: { readonly size: number; readonly sha256: string; readonly digest: string };
}

interface Manifest {
  readonly cases: Readonly<Record<string, ManifestCase<Vector['expect']>>>;
  readonly sha512_cases: { readonly cases: Readonly<Record<string, ManifestCase<Sha512Vector['expect']>>> };
}

interface Sweep {
  readonly items: readonly {
    readonly name: string;
    readonly dump: string;
    readonly expect: Vector['expect'];
    readonly rs?: CompareResult;
  }[];
}

function fromManifest<E>(
  cases: Readonly<Record<string, ManifestCase<E>>>,
): { name: string; dump: Uint8Array; expect: E }[] {
  return Object.entries(cases).map(([name, { file, expect }]) => ({ name, dump: readFixture(file), expect }));
}

/** The larger cases, one dump file each. */
export function fileVectors(): Vector[] {
  return fromManifest(readJsonFixture<Manifest>('manifest.json').cases);
}

export function sha512Vectors(): Sha512Vector[] {
  return fromManifest(readJsonFixture<Manifest>('manifest.json').sha512_cases.cases);
}

/** Those of which composefs-rs wrote an image of version 2. */
export function version2Vectors(which: 'file' | 'micro'): Version2Vector[] {
  const all =
    which === 'file'
      ? Object.entries(readJsonFixture<Manifest>('manifest.json').cases).map(([name, { file, rs }]) => ({
          name,
          rs,
          dump: readFixture(file),
        }))
      : readJsonFixture<Sweep>('micro.json.gz').items.map(({ name, rs, dump }) => ({
          name,
          rs,
          dump: Buffer.from(dump, 'latin1'),
        }));
  return all.flatMap(({ name, dump, rs }) =>
    rs?.v2 !== undefined && 'digest' in rs.v2 ? [{ name, dump, expect: rs.v2 }] : [],
  );
}

/** A few hundred small sweeps over sizes, alignments, times and limits. */
export function microVectors(): Vector[] {
  return sweep('micro.json.gz');
}

/** Dumps that mkcomposefs refuses. */
export function rejectVectors(): Vector[] {
  return sweep('reject.json.gz');
}

function sweep(file: string): Vector[] {
  const { items } = readJsonFixture<Sweep>(file);
  return items.map(({ name, dump, expect }) => ({ name, dump: Buffer.from(dump, 'latin1'), expect }));
}

/**
 * Inputs that mkcomposefs takes and hostctl refuses, each with the field its error names: quirks of C arithmetic and
 * number parsing that no tool should rely on.
 */
export const REFUSED_ON_PURPOSE: Readonly<Record<string, string>> = {
  'size-2p64-1': 'line 2, field SIZE',
  'hardlink-to-dir-nondir-mode': 'line 3, field PAYLOAD',
  'negative-ints': 'line 2, field NLINK',
  'rdev-truncates-to-zero': 'line 2, field RDEV',
  'mode-extra-high-bits': 'line 2, field MODE',
  'mtime-nsec-overflow': 'line 1, field MTIME',
};

/** Input that mkcomposefs refuses because of an error of its own and hostctl takes. */
export const ACCEPTED_ON_PURPOSE: readonly string[] = ['whiteout-parent-erange'];

/** Inputs of which hostctl writes another image of version 2, or none: dumps that no image can say, or too large ones. */
export const VERSION_2_DEVIATIONS: readonly string[] = [
  'inline-with-payload-and-digest',
  'xattr-value-32739',
  'xattr-value-32740',
  'xattr-ascii-value-32743',
  'xattr-ascii-value-32749',
  'size-2p64-1',
  'mode-extra-high-bits',
];
