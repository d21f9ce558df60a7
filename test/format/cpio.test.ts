import { expect, test } from 'vitest';
import { CpioNames } from '../../src/format/cpio.ts';
import { cpio, cpioEntry } from '../helpers/cpio-builder.ts';

function read(
  bytes: Uint8Array,
  chunkBytes = bytes.length,
): { found: string[]; rest: string | undefined; isOpen: boolean } {
  const names = new CpioNames(() => true);
  let rest: Uint8Array | undefined;
  let at = 0;
  for (; at < bytes.length && rest === undefined; at += chunkBytes)
    rest = names.push(bytes.subarray(at, at + chunkBytes));
  const left = rest === undefined ? undefined : Buffer.concat([rest, bytes.subarray(at)]).toString('latin1');
  return { found: [...names.found], rest: left, isOpen: names.isOpen };
}

const two = cpio({ '.': '', './usr/bin/x': 'content', 'etc/y': '' });

test.each([1, 3, 4, 7, 110, 111, 4096])('names are found in chunks of %i bytes', (size) => {
  expect(read(two, size)).toEqual({ found: ['.', 'usr/bin/x', 'etc/y', 'TRAILER!!!'], rest: undefined, isOpen: false });
});

test.each<readonly [string, Uint8Array, ReturnType<typeof read>]>([
  ['two archives with zeros between', Buffer.concat([cpio({ a: '1' }), Buffer.alloc(700), cpio({ b: '2' })]), { found: ['a', 'TRAILER!!!', 'b'], rest: undefined, isOpen: false }],
  ['what follows a trailer', Buffer.concat([cpio({ a: '1' }), Buffer.alloc(8), Buffer.from('(\xb5/\xfd..', 'latin1')]), { found: ['a', 'TRAILER!!!'], rest: '(\xb5/\xfd..', isOpen: false }],
  ['nothing but something else', Buffer.from('\x1f\x8b and so on', 'latin1'), { found: [], rest: '\x1f\x8b and so on', isOpen: false }],
  ['an archive that is cut', two.subarray(0, two.length - 140), { found: ['.', 'usr/bin/x'], rest: undefined, isOpen: true }],
  ['checksummed entries', Buffer.concat([cpioEntry('a', 'x', '070702'), cpioEntry('TRAILER!!!')]), { found: ['a', 'TRAILER!!!'], rest: undefined, isOpen: false }],
])('%s', (_what, bytes, expected) => {
  expect(read(bytes)).toEqual(expected);
}); // prettier-ignore

/** An entry with other bytes at an offset of its header. */
function broken(offset: number, bytes: string): Buffer {
  const entry = cpioEntry('a', 'x');
  entry.write(bytes, offset, 'latin1');
  return entry;
}

test.each<readonly [string, Uint8Array, RegExp]>([
  ['another format inside', Buffer.concat([cpioEntry('a', 'x'), Buffer.alloc(120, 'q')]), /No cpio header at offset 116/],
  ['a size that is no number', broken(54, 'zzzz\x07zzz'), /the number "zzzz\?zzz"/],
  ['a name without end', broken(94, 'ffffffff'), /name of 4294967295 bytes at offset 0/],
  ['a name of no bytes', broken(94, '00000000'), /name of 0 bytes/],
])('%s is refused', (_what, bytes, message) => {
  expect(() => read(bytes)).toThrow(message);
}); // prettier-ignore
