/**
 * Kernel arguments in files: bootc's `/usr/lib/bootc/kargs.d/*.toml` of an image, and the host's own. Unknown keys are errors, since a
 * misspelt `match-architectures` would otherwise apply an argument everywhere.
 */

import { parse } from 'smol-toml';
import { HostctlError } from '../errors.ts';
import { checkKarg, splitCmdline } from './cmdline.ts';

export interface KargsFile {
  /** One argument each, quotes included. */
  readonly kargs: readonly string[];
  /** Rust names (`x86_64`, `powerpc64`, …). Absent: every architecture. */
  readonly matchArchitectures?: readonly string[];
}

/** The arguments of one file of a `kargs.d`. */
export interface KargsOfFile {
  /** Undefined where it was not recorded. */
  readonly file: string | undefined;
  readonly kargs: readonly string[];
}

const MAX_CHARS = 65_536;

/** Reads one file. Throws `image-invalid` naming the file and what is wrong in it. */
export function parseKargsFile(text: string, fileName: string): KargsFile {
  const fail = (problem: string, cause?: unknown): HostctlError =>
    new HostctlError('image-invalid', `Cannot read kernel arguments from "${fileName}": ${problem}`, { cause });
  if (text.length > MAX_CHARS) throw fail(`more than ${MAX_CHARS} characters`);
  let table: Map<string, unknown>;
  try {
    table = new Map(Object.entries(parse(text)));
  } catch (cause) {
    throw fail('not valid TOML', cause);
  }
  for (const key of table.keys()) {
    if (key !== 'kargs' && key !== 'match-architectures') throw fail(`unknown key ${JSON.stringify(key)}`);
  }
  const strings = (key: string): string[] | undefined => {
    const value = table.get(key);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw fail(`"${key}" is not a list of strings`);
    }
    return value;
  };
  const kargs = strings('kargs');
  if (!kargs) throw fail('"kargs" is missing');
  const args = kargs.flatMap(splitCmdline);
  try {
    args.forEach(checkKarg);
  } catch (cause) {
    throw fail(cause instanceof Error ? cause.message : 'bad argument', cause);
  }
  const matchArchitectures = strings('match-architectures');
  return matchArchitectures ? { kargs: args, matchArchitectures } : { kargs: args };
}

/**
 * The arguments of a whole `kargs.d` directory for one architecture, files in byte order of their names. Files that
 * do not end in `.toml` are passed over, and those without an argument for it are left out.
 *
 * @param files file name to text
 * @param architecture Rust name, see `rustArchitecture`
 */
export function kargsFromFiles(files: ReadonlyMap<string, string>, architecture: string): KargsOfFile[] {
  return [...files]
    .filter(([name]) => name.endsWith('.toml'))
    .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    .map(([file, text]) => ({ file, ...parseKargsFile(text, file) }))
    .filter(({ matchArchitectures }) => matchArchitectures?.includes(architecture) ?? true)
    .filter(({ kargs }) => kargs.length > 0)
    .map(({ file, kargs }) => ({ file, kargs }));
}

/** Rust's name, which `match-architectures` uses, for an OCI (Go) architecture name. */
const RUST_NAMES: ReadonlyMap<string, string> = new Map([
  ['amd64', 'x86_64'],
  ['arm64', 'aarch64'],
  ['ppc64le', 'powerpc64'],
  ['loong64', 'loongarch64'],
]);

/** `amd64` → `x86_64`; names alike in both (`riscv64`, `s390x`) stay. */
export function rustArchitecture(ociArchitecture: string): string {
  return RUST_NAMES.get(ociArchitecture) ?? ociArchitecture;
}
