/**
 * The kernel command line: arguments separated by white space, where white space inside double quotes is literal and
 * nothing escapes a quote. Arguments are kept as they are written, quotes included, so that splitting and joining lose
 * nothing. The rules are those of `next_arg()` in the kernel's lib/cmdline.c.
 */

import { HostctlError } from '../errors.ts';
import type { VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import { parseVerityDigest } from './fsverity/digest.ts';
import { hasUnsafeCharacter } from './text.ts';

const SPACE = /[\t\n\v\f\r ]/;

/** Splits a command line into its arguments, each with its quotes. An unclosed quote runs to the end. */
export function splitCmdline(text: string): string[] {
  const args: string[] = [];
  let current = '';
  let quoted = false;
  for (const char of text) {
    if (char === '"') quoted = !quoted;
    if (!quoted && SPACE.test(char)) {
      if (current !== '') args.push(current);
      current = '';
    } else {
      current += char;
    }
  }
  if (current !== '') args.push(current);
  return args;
}

/**
 * Joins arguments with single blanks. Throws `format-invalid` for one that would not come back as itself: empty, with
 * unquoted white space, an open quote, or a control character.
 */
export function joinCmdline(args: readonly string[]): string {
  for (const arg of args) checkKarg(arg);
  return args.join(' ');
}

/** Refuses, with `format-invalid`, text that is not exactly one argument as written. */
export function checkKarg(arg: string): void {
  const problem = kargProblem(arg);
  if (problem === undefined) return;
  throw new HostctlError('format-invalid', `Cannot use kernel argument ${JSON.stringify(arg)}: ${problem}`, {
    hint: 'Put double quotes around a value with blanks: key="a b"',
  });
}

function kargProblem(arg: string): string | undefined {
  if (arg === '') return 'it is empty';
  if (hasUnsafeCharacter(arg)) return 'it has a control character or a line break';
  if ((arg.split('"').length - 1) % 2 !== 0) return 'it has a double quote that is not closed';
  const parts = splitCmdline(arg);
  if (parts.length !== 1 || parts[0] !== arg) return 'it has blanks outside double quotes';
  return undefined;
}

/** One argument taken apart as the kernel does: quotes around the whole or around the value are gone. */
export interface Karg {
  readonly key: string;
  /** Absent for a bare word such as `quiet`; empty for `key=`. */
  readonly value: string | undefined;
}

/** Takes one argument (as `splitCmdline` gives it) apart at its first `=`. */
export function parseKarg(arg: string): Karg {
  const whole = arg.startsWith('"') ? trimQuotes(arg) : arg;
  const equals = whole.indexOf('=');
  if (equals < 0) return { key: whole, value: undefined };
  const value = whole.slice(equals + 1);
  return { key: whole.slice(0, equals), value: value.startsWith('"') ? trimQuotes(value) : value };
}

function trimQuotes(text: string): string {
  return text.slice(1, text.length > 1 && text.endsWith('"') ? -1 : undefined);
}

/** Writes one argument, quoting a value with white space. Throws `format-invalid` where no quoting helps. */
export function formatKarg(key: string, value?: string): string {
  if (value?.includes('"')) {
    throw new HostctlError('format-invalid', `Cannot write a double quote in kernel argument ${JSON.stringify(key)}`);
  }
  const arg = value === undefined ? key : `${key}=${SPACE.test(value) ? `"${value}"` : value}`;
  checkKarg(arg);
  return arg;
}

/** Whether two keys name one argument: `-` and `_` are the same to the kernel. */
export function sameKargKey(a: string, b: string): boolean {
  return a.replaceAll('-', '_') === b.replaceAll('-', '_');
}

/** The values of every argument with this key, in order; a bare word gives undefined. */
export function findKargs(args: readonly string[], key: string): (string | undefined)[] {
  return args
    .map(parseKarg)
    .filter((karg) => sameKargKey(karg.key, key))
    .map((karg) => karg.value);
}

/** How an image and its digest were made: the parameters recorded beside every digest. */
export interface ImageParameters {
  /** composefs format version: 0 and 1 as mkcomposefs writes, 2 as composefs-rs does. */
  readonly formatVersion: 0 | 1 | 2;
  readonly algorithm: VerityAlgorithm;
  /** log2 of the fs-verity block size; hostctl knows 4096 bytes only. */
  readonly logBlockSize: 12;
}

/** What a `composefs.digest=` or `composefs=` argument pins. */
export interface DigestArgument {
  readonly parameters: ImageParameters;
  readonly digest: VerityDigest;
  /** False after `?`: the image may be mounted without fs-verity (development only). */
  readonly verityRequired: boolean;
}

const EXPLICIT = /^v(\d+)-([a-z0-9]+)-(\d+):([0-9a-f]*)$/;

/**
 * Reads a digest argument, `composefs.digest=[?]v1-sha512-12:HEX` or the older `composefs=[?]HEX` (format version 2,
 * algorithm told by the length). Undefined for any other argument. Throws `format-invalid` for one of ours that is
 * malformed, `image-unsupported` for parameters that hostctl does not know.
 */
export function parseDigestArgument(arg: string): DigestArgument | undefined {
  const { key, value = '' } = parseKarg(arg);
  const explicit = key === 'composefs.digest';
  if (!explicit && key !== 'composefs') return undefined;
  const verityRequired = !value.startsWith('?');
  const pinned = verityRequired ? value : value.slice(1);
  if (!explicit) {
    const algorithm = pinned.length === 128 ? 'sha512' : 'sha256';
    return {
      parameters: { formatVersion: 2, algorithm, logBlockSize: 12 },
      digest: digestOf(arg, pinned, algorithm),
      verityRequired,
    };
  }
  const match = EXPLICIT.exec(pinned);
  if (!match) throw malformed(arg);
  const [, version = '', hash = '', logBlockSize = '', hex = ''] = match;
  const parameters = knownParameters(version, hash, logBlockSize);
  if (!parameters) {
    throw new HostctlError(
      'image-unsupported',
      `Cannot use "${arg}": unknown parameters v${version}-${hash}-${logBlockSize}`,
    );
  }
  return { parameters, digest: digestOf(arg, hex, parameters.algorithm), verityRequired };
}

function knownParameters(version: string, hash: string, logBlockSize: string): ImageParameters | undefined {
  if (version !== '0' && version !== '1' && version !== '2') return undefined;
  if (hash !== 'sha256' && hash !== 'sha512') return undefined;
  if (logBlockSize !== '12') return undefined;
  return { formatVersion: Number(version) as 0 | 1 | 2, algorithm: hash, logBlockSize: 12 };
}

function digestOf(arg: string, hex: string, algorithm: VerityAlgorithm): VerityDigest {
  if (!/^[0-9a-f]*$/.test(hex) || hex.length !== (algorithm === 'sha512' ? 128 : 64)) throw malformed(arg);
  return parseVerityDigest(hex, algorithm);
}

function malformed(arg: string): HostctlError {
  return new HostctlError('format-invalid', `Cannot parse digest argument ${JSON.stringify(arg)}`, {
    hint: 'The form is composefs.digest=v1-sha512-12:HEX or composefs=HEX, with a full lower-case digest',
  });
}

/** The explicit form, `composefs.digest=[?]v1-sha512-12:HEX`. */
export function formatDigestArgument({ parameters, digest, verityRequired }: DigestArgument): string {
  return `composefs.digest=${verityRequired ? '' : '?'}${formatImageParameters(parameters)}:${digest}`;
}

/** `v1-sha512-12`, as it stands before the digest. */
export function formatImageParameters({ formatVersion, algorithm, logBlockSize }: ImageParameters): string {
  return `v${formatVersion}-${algorithm}-${logBlockSize}`;
}

/** The digest arguments of a command line in order; the first whose image exists is the one that boots. */
export function findDigestArguments(args: readonly string[]): DigestArgument[] {
  return args.map(parseDigestArgument).filter((argument) => argument !== undefined);
}

/** COMMAND_LINE_SIZE of the kernel's asm/setup.h by `uname -m` name; the last byte is the terminator. */
const COMMAND_LINE_SIZE: ReadonlyMap<string, number> = new Map([
  ['x86_64', 2048],
  ['aarch64', 2048],
  ['ppc64le', 2048],
  ['riscv64', 1024],
  ['s390x', 4096],
  ['loongarch64', 4096],
]);

/** Refuses, with `format-invalid`, a command line that a kernel for `machine` (as `uname -m`) would cut. */
export function checkCmdlineLength(cmdline: string, machine: string): void {
  const limit = (COMMAND_LINE_SIZE.get(machine) ?? 1024) - 1;
  const length = new TextEncoder().encode(cmdline).length;
  if (length <= limit) return;
  throw new HostctlError(
    'format-invalid',
    `Cannot use a kernel command line of ${length} bytes: a ${machine} kernel takes ${limit}`,
    { hint: 'Remove kernel arguments' },
  );
}
