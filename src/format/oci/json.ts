/**
 * JSON as OCI documents are held to: UTF-8 without byte order mark, an object at the top, no name twice in an object
 * (I-JSON, RFC 7493), bounded depth. Objects become Maps, so that names such as `__proto__` are only names.
 */

import { HostctlError } from '../../errors.ts';

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | JsonObject;
export type JsonObject = ReadonlyMap<string, JsonValue>;

const MAX_DEPTH = 32;

/** Parses a document of at most `maxBytes`; `what` opens the error message. */
export function parseJsonObject(bytes: Uint8Array, what: string, maxBytes: number): JsonObject {
  if (bytes.length > maxBytes) {
    throw new HostctlError('image-unsupported', `${what} has ${bytes.length} bytes, at most ${maxBytes} are read`);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new HostctlError('image-invalid', `${what} is not UTF-8`, { cause });
  }
  const value = new JsonParser(text, what).document();
  if (!isJsonObject(value)) throw new HostctlError('image-invalid', `${what} is not a JSON object`);
  return value;
}

export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return value instanceof Map;
}

const whitespace = /[ \t\n\r]*/y;
const numberLiteral = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const word = /true|false|null/y;

class JsonParser {
  readonly #text: string;
  readonly #what: string;
  #at = 0;

  constructor(text: string, what: string) {
    this.#text = text;
    this.#what = what;
  }

  document(): JsonValue {
    const value = this.#value(1);
    this.#take(whitespace);
    if (this.#at !== this.#text.length) throw this.#error('has something behind its end');
    return value;
  }

  #value(depth: number): JsonValue {
    if (depth > MAX_DEPTH) throw this.#error(`is nested deeper than ${MAX_DEPTH}`);
    this.#take(whitespace);
    switch (this.#text[this.#at]) {
      case '{':
        return this.#object(depth);
      case '[':
        return this.#array(depth);
      case '"':
        return this.#string();
      default: {
        const literal = this.#take(numberLiteral) ?? this.#take(word);
        if (literal === undefined) throw this.#error('is not JSON');
        return JSON.parse(literal) as JsonValue;
      }
    }
  }

  #object(depth: number): JsonObject {
    const object = new Map<string, JsonValue>();
    this.#at++;
    if (this.#isNext('}')) return object;
    do {
      this.#take(whitespace);
      const name = this.#string();
      if (object.has(name)) throw this.#error(`gives ${JSON.stringify(name)} twice`);
      if (!this.#isNext(':')) throw this.#error('is not JSON');
      object.set(name, this.#value(depth + 1));
    } while (this.#isNext(','));
    if (!this.#isNext('}')) throw this.#error('is not JSON');
    return object;
  }

  #array(depth: number): readonly JsonValue[] {
    const values: JsonValue[] = [];
    this.#at++;
    if (this.#isNext(']')) return values;
    do {
      values.push(this.#value(depth + 1));
    } while (this.#isNext(','));
    if (!this.#isNext(']')) throw this.#error('is not JSON');
    return values;
  }

  #string(): string {
    const start = this.#at;
    if (this.#text[start] !== '"') throw this.#error('is not JSON');
    let end = start + 1;
    for (let code; (code = this.#text.charCodeAt(end)) !== 0x22; end += code === 0x5c ? 2 : 1) {
      if (Number.isNaN(code)) throw this.#error('ends inside a string');
    }
    this.#at = end + 1;
    try {
      return JSON.parse(this.#text.slice(start, end + 1)) as string;
    } catch (cause) {
      throw this.#error('holds an invalid string', cause);
    }
  }

  #isNext(character: string): boolean {
    this.#take(whitespace);
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text)?.[0];
    if (match !== undefined) this.#at += match.length;
    return match;
  }

  #error(complaint: string, cause?: unknown): HostctlError {
    return new HostctlError('image-invalid', `${this.#what} ${complaint} (at character ${this.#at})`, { cause });
  }
}
