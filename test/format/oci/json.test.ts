/** JSON documents of OCI images: what is read, and what one parser takes and another does not. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseJsonObject, type JsonValue } from '../../../src/format/oci/json.ts';

const parse = (text: string | Uint8Array, maxBytes = 1 << 24) =>
  parseJsonObject(Buffer.from(text), 'Manifest', maxBytes);

/** Maps back to objects, for comparison with JSON.parse. */
function toPlain(value: JsonValue): unknown {
  if (value instanceof Map)
    return Object.fromEntries([...value].map(([key, item]) => [key, toPlain(item as JsonValue)]));
  return Array.isArray(value) ? value.map((item) => toPlain(item as JsonValue)) : value;
}

const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;

describe('JSON documents', () => {
  test('agree with JSON.parse on any value', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 10 })), fc.nat(4), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(toPlain(parse(text))).toEqual(JSON.parse(text));
      }),
    );
  });

  test('keep names that mean something to JavaScript', () => {
    const text = '{"__proto__":{"a":1},"constructor":2,"10":3,"2":4}';
    expect([...parse(text)].map(([key, value]) => [key, toPlain(value)])).toEqual([['__proto__', { a: 1 }], ['constructor', 2], ['10', 3], ['2', 4]]); // prettier-ignore
  });

  test('of the deepest and the longest allowed are read', () => {
    expect(parse(nested(31)).size).toBe(1);
    const long = 'x'.repeat((8 << 20) - 20);
    expect(parse(`{"a":"${long}"}`).get('a')).toBe(long);
    expect(parse(`${' '.repeat(4 << 20)}{}`).size).toBe(0);
  });

  test.each<readonly [string, string | Uint8Array, RegExp]>([
    ['a name twice', '{"a":1,"a":2}', /gives "a" twice/],
    ['a name twice, once escaped', '{"a":1,"\\u0061":2}', /gives "a" twice/],
    ['a name twice further down', '{"l":[{"a":1,"b":{},"a":2}]}', /gives "a" twice/],
    ['a byte order mark', '\ufeff{}', /is not JSON/],
    ['no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), /is not UTF-8/],
    ['an array at the top', '[]', /is not a JSON object/],
    ['a string at the top', '"x"', /is not a JSON object/],
    ['nothing', '', /is not JSON/],
    ['two documents', '{}{}', /something behind its end/],
    ['a comment', '{}//', /something behind its end/],
    ['depth 33', nested(33), /nested deeper than 32/],
    ['depth without end', '['.repeat(1 << 20), /nested deeper than 32/],
    ['a trailing comma', '{"a":1,}', /is not JSON/],
    ['a trailing comma in an array', '{"a":[1,]}', /is not JSON/],
    ['no colon', '{"a" 1}', /is not JSON/],
    ['a name without quotes', '{a:1}', /is not JSON/],
    ['a leading zero', '{"a":01}', /is not JSON/],
    ['a plus sign', '{"a":+1}', /is not JSON/],
    ['NaN', '{"a":NaN}', /is not JSON/],
    ['a bare line break in a string', '{"a":"\n"}', /holds an invalid string/],
    ['an unknown escape', '{"a":"\\x41"}', /holds an invalid string/],
    ['a string without end', '{"a":"b', /ends inside a string/],
    ['a string that ends in its escape', '{"a":"b\\', /ends inside a string/],
    ['an object without end', '{"a":{}', /is not JSON/],
  ])('with %s are refused', (_title, text, message) => {
    expect(() => parse(text)).toThrow(message);
  });

  test('over the limit are refused before parsing', () => {
    expect(() => parse('{"a":1}', 6)).toThrow(/Manifest has 7 bytes, at most 6 are read/);
  });
});
