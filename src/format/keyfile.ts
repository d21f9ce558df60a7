/**
 * The ini dialect of origin files (`[section]`, `key = value`, `#` and `;` comment lines), shared with bootc and
 * ostree. Values are literal: no quotes, no escapes, no types, nothing nested, so that each tool reads what another
 * wrote. Sections and keys are Maps; no name can reach a prototype.
 */

import { HostctlError } from '../errors.ts';
import { hasUnsafeCharacter } from './text.ts';

/** Section name to key to value, in file order. */
export type Keyfile = ReadonlyMap<string, ReadonlyMap<string, string>>;

const MAX_CHARS = 65_536;
const SECTION = /^\[([^[\]\x00-\x1f\x7f]+)\]$/;
const KEY = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Reads a key file. Throws `format-invalid` naming the line: stray text, a repeated key, control characters. */
export function parseKeyfile(text: string): Keyfile {
  if (text.length > MAX_CHARS)
    throw new HostctlError('format-invalid', `Cannot parse key file of ${text.length} characters`);
  const sections = new Map<string, Map<string, string>>();
  let current: Map<string, string> | undefined;
  text.split(/\r?\n/).forEach((raw, index) => {
    const fail = (problem: string): HostctlError =>
      new HostctlError('format-invalid', `Cannot parse key file: line ${index + 1} ${problem}`);
    const line = raw.trim();
    if (line === '' || line.startsWith('#') || line.startsWith(';')) return;
    const header = SECTION.exec(line)?.[1];
    if (header !== undefined) {
      current = sections.get(header) ?? new Map<string, string>();
      sections.set(header, current);
      return;
    }
    const equals = line.indexOf('=');
    const key = line.slice(0, Math.max(equals, 0)).trim();
    const value = line.slice(equals + 1).trim();
    if (equals < 0 || !KEY.test(key)) throw fail('is neither a section nor an assignment');
    if (!current) throw fail('stands before the first section');
    if (current.has(key)) throw fail(`repeats "${key}"`);
    if (hasUnsafeCharacter(value)) throw fail(`has a control character in "${key}"`);
    current.set(key, value);
  });
  return sections;
}

/** One value, or undefined. */
export function keyfileValue(file: Keyfile, section: string, key: string): string | undefined {
  return file.get(section)?.get(key);
}

/** The text of a key file. Throws `format-invalid` for a value that would not be read back as itself. */
export function formatKeyfile(file: Keyfile): string {
  const blocks = [...file].map(([section, entries]) => {
    if (!SECTION.test(`[${section}]`) || section.trim() !== section) {
      throw new HostctlError('format-invalid', `Cannot write key file section ${JSON.stringify(section)}`);
    }
    const lines = [...entries].map(([key, value]) => {
      if (!KEY.test(key) || hasUnsafeCharacter(value) || value.trim() !== value) {
        throw new HostctlError('format-invalid', `Cannot write ${JSON.stringify(value)} as "${key}" in a key file`);
      }
      return `${key} = ${value}\n`;
    });
    return `[${section}]\n${lines.join('')}`;
  });
  return blocks.join('\n');
}
