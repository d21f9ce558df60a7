/**
 * Escapes of the composefs dump format (composefs-dump(5)): `\\ \n \r \t \xHH`. Fields are byte strings held as latin1.
 */

import type { RawName } from '../../tree/name.ts';

const NAMED: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };
const BY_LETTER: Readonly<Record<string, string>> = { '\\': '\\', n: '\n', r: '\r', t: '\t' };

/** Canonical text of a field. A lone "-" means an absent field, so a real one is escaped. */
export function escapeField(value: string): string {
  return value === '-' ? '\\x2d' : escapeWhere(value, /[^\x21-\x5b\x5d-\x7e]/g);
}

/** Canonical text of the name or value of an xattr, where "=" separates the two. */
export function escapeXattrText(value: string): string {
  return escapeWhere(value, /[^\x21-\x3c\x3e-\x5b\x5d-\x7e]/g);
}

function escapeWhere(value: string, special: RegExp): string {
  return value.replace(special, (char) => NAMED[char] ?? `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** The bytes a field stands for. Calls `fail` (which throws) with what is wrong. */
export function unescapeField(text: string, fail: (problem: string) => never): RawName {
  if (!text.includes('\\')) return text as RawName;
  let value = '';
  let from = 0;
  for (let at = text.indexOf('\\'); at >= 0; at = text.indexOf('\\', from)) {
    const letter = text.charAt(at + 1);
    const hex = text.slice(at + 2, at + 4);
    value += text.slice(from, at);
    if (letter === 'x') {
      if (!/^[0-9a-fA-F]{2}$/.test(hex)) fail(`has "\\x${hex}" without two hex digits`);
      value += String.fromCharCode(parseInt(hex, 16));
      from = at + 4;
    } else {
      const char = BY_LETTER[letter];
      if (char === undefined) fail(letter === '' ? 'ends in a backslash' : `has the unknown escape "\\${letter}"`);
      value += char;
      from = at + 2;
    }
  }
  return (value + text.slice(from)) as RawName;
}
