/**
 * Names inside images are bytes, not text: kept as latin1 strings with one character per byte, so that they work as
 * map keys and `<` is the byte order that EROFS needs. Only views turn them into readable text.
 */

/** A byte string held as latin1 (every char code 0…255). Used for names, symlink targets, xattr names. */
export type RawName = string & { readonly __brand: 'RawName' };

const encoder = new TextEncoder();

/** Takes bytes as they are. */
export function rawFromBytes(bytes: Uint8Array): RawName {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1') as RawName;
}

/** Takes ordinary text as its UTF-8 bytes. */
export function rawFromText(text: string): RawName {
  return rawFromBytes(encoder.encode(text));
}

/** The bytes of a raw name. */
export function rawToBytes(name: RawName): Uint8Array {
  return Buffer.from(name, 'latin1');
}

/** From here on the copy by the library is faster than a loop. */
const LONG = 24;

/** Writes the bytes of a raw name at an offset. */
export function writeRaw(bytes: Buffer, name: string, at: number): void {
  if (name.length >= LONG) bytes.write(name, at, 'latin1');
  else for (let i = 0; i < name.length; i++) bytes[at + i] = name.charCodeAt(i);
}

/** Byte order, shorter prefix first (C `strcmp`). */
export function compareRaw(a: RawName, b: RawName): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Readable and safe for a terminal or a log: valid UTF-8 is shown as text, but control characters, backslashes and
 * undecodable bytes as `\xHH`. Never feed the result back as a name.
 */
export function displayRaw(name: RawName): string {
  const bytes = Buffer.from(name, 'latin1');
  const text = bytes.toString('utf8');
  const faithful = !text.includes('�') && Buffer.from(text, 'utf8').equals(bytes);
  if (!faithful) return name.replace(/[^\x20-\x5b\x5d-\x7e]/g, hexEscape);
  return text.replace(/[\x00-\x1f\x7f\\\u0080-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, hexEscape);
}

function hexEscape(char: string): string {
  const code = char.charCodeAt(0);
  return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
}
