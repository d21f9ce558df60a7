/**
 * Boot Loader Specification entries of Type #1: lines of a key, blanks and a literal value. Reading is tolerant, since
 * the directory is shared with other systems; every key is kept, known or not, in its order. Writing is strict: what
 * we write must mean the same to systemd-boot and to every GRUB. UAPI.1 "Type #1 Boot Loader Specification Entries".
 */

import { HostctlError } from '../../errors.ts';
import { hasUnsafeCharacter, replaceUnsafeCharacters } from '../text.ts';

export interface BlsField {
  readonly key: string;
  /** Rest of the line, without the blanks around it. Never empty. */
  readonly value: string;
}

/** An entry: its fields in file order. Comments and blank lines are not part of it. */
export interface BlsEntry {
  readonly fields: readonly BlsField[];
}

/** Largest entry read; more is not an entry. */
const MAX_BYTES = 65_536;
/** Keys that may stand more than once. */
const REPEATING = new Set(['initrd', 'options', 'extra']);
/** Longest sanitized value, in characters. */
const MAX_SANITIZED = 200;
const KEY = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const PATHS = new Set(['linux', 'initrd', 'efi', 'uki', 'devicetree']);

/**
 * Reads an entry. Lines with a key alone carry nothing and are dropped. Throws `format-invalid` for what is not text:
 * more than 64 KiB, not UTF-8, or with NUL.
 */
export function parseEntry(bytes: Uint8Array): BlsEntry {
  if (bytes.length > MAX_BYTES) throw invalid(`it has ${bytes.length} bytes, more than ${MAX_BYTES}`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw invalid('it is not UTF-8', cause);
  }
  const nul = text.indexOf('\0');
  if (nul >= 0) throw invalid(`it has a NUL at offset ${nul}`);
  const fields: BlsField[] = [];
  for (const line of text.split(/[\r\n]+/)) {
    const match = /^[ \t]*([^ \t#][^ \t]*)[ \t]+(.*?)[ \t]*$/.exec(line);
    if (match?.[1] && match[2]) fields.push({ key: match[1], value: match[2] });
  }
  return { fields };
}

function invalid(problem: string, cause?: unknown): HostctlError {
  return new HostctlError('format-invalid', `Cannot parse boot entry: ${problem}`, { cause });
}

/** The value of a key that stands once; the last one where a file repeats it, as loaders take it. */
export function entryValue(entry: BlsEntry, key: string): string | undefined {
  return entryValues(entry, key).at(-1);
}

/** Every value of a key, in order. */
export function entryValues(entry: BlsEntry, key: string): string[] {
  return entry.fields.filter((field) => field.key === key).map((field) => field.value);
}

/** The command line of an entry: its `options` joined in order. */
export function entryOptions(entry: BlsEntry): string {
  return entryValues(entry, 'options').join(' ');
}

/** Every reason why this entry must not be written; none for a good one. */
export function entryProblems(entry: BlsEntry): string[] {
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const { key, value } of entry.fields) {
    if (!KEY.test(key)) problems.push(`Bad key ${JSON.stringify(key)}`);
    if (seen.has(key) && !REPEATING.has(key)) problems.push(`Key "${key}" stands twice`);
    seen.add(key);
    const problem = valueProblem(key, value);
    if (problem !== undefined) problems.push(`Value of "${key}" ${problem}: ${JSON.stringify(value)}`);
  }
  if (!seen.has('linux') && !seen.has('efi') && !seen.has('uki')) problems.push('Neither "linux" nor "efi" nor "uki"');
  return problems;
}

/** Refuses, with `format-invalid`, a value that no entry can hold. */
export function checkEntryValue(key: string, value: string): void {
  const problem = valueProblem(key, value);
  if (problem === undefined) return;
  throw new HostctlError('format-invalid', `What a boot entry would say ${problem}: ${JSON.stringify(value)}`);
}

function valueProblem(key: string, value: string): string | undefined {
  // The oldest GRUB ends the entry at a key without value.
  if (value === '') return 'is empty';
  // An image label must not add a line to an entry.
  if (hasUnsafeCharacter(value)) return 'has a control character or a line break';
  if (value.trim() !== value) return 'begins or ends with a blank';
  // GRUB 2.14 expands variables in options, and no loader can quote.
  if (value.includes('$')) return 'has a "$"';
  if (PATHS.has(key) && !isPlainPath(value)) return 'is not a plain path';
  if (key === 'sort-key' && !/^[A-Za-z0-9._-]+$/.test(value)) return 'is not a plain word';
  if (key === 'machine-id' && !/^[0-9a-f]{32}$/.test(value)) return 'is not a machine id';
  return undefined;
}

/** `/a/b`: absolute, no empty, `.` or `..` components, no blanks. */
function isPlainPath(path: string): boolean {
  if (!path.startsWith('/') || /[\s"\\]/.test(path)) return false;
  return path
    .slice(1)
    .split('/')
    .every((part) => part !== '' && part !== '.' && part !== '..');
}

/** The text of an entry. Throws `format-invalid` naming every problem `entryProblems` finds. */
export function formatEntry(entry: BlsEntry): string {
  const problems = entryProblems(entry);
  if (problems.length > 0) {
    throw new HostctlError('format-invalid', `Cannot write boot entry: ${problems.join('; ')}`);
  }
  const text = entry.fields.map(({ key, value }) => `${key} ${value}\n`).join('');
  const length = new TextEncoder().encode(text).length;
  if (length > MAX_BYTES) throw new HostctlError('format-invalid', `Cannot write boot entry of ${length} bytes`);
  return text;
}

/**
 * Text from an image (a name, a version) made fit for a value: control characters and `$` become `_`, blanks are
 * joined, the length is bounded. Undefined when nothing is left, so that the key can be left out.
 */
export function sanitizeValue(text: string): string | undefined {
  const flat = replaceUnsafeCharacters(text.replace(/\s+/gu, ' '), '_').replaceAll('$', '_');
  // By code points: half a character would be unsafe again.
  const safe = [...flat.trim()].slice(0, MAX_SANITIZED).join('').trimEnd();
  return safe === '' ? undefined : safe;
}
