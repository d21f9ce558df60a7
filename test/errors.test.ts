/** System errors have the names that Linux gives them, also where libuv has none. */

import { expect, test } from 'vitest';
import { errnoOf } from '../src/errors.ts';
import { SyscallError } from '../src/sys/native.ts';

/** As libuv makes it. */
function libuvError(errno: number, code: string): Error {
  return Object.assign(new Error(code), { errno, code });
}

test.each([
  [libuvError(-2, 'ENOENT'), 'ENOENT'],
  [libuvError(-122, 'Unknown system error -122'), 'EDQUOT'],
  [libuvError(-74, 'Unknown system error -74'), 'EIO'],
  [libuvError(-117, 'Unknown system error -117'), 'EIO'],
  [new SyscallError('ioctl', 122, 'fd 3'), 'EDQUOT'],
  [new SyscallError('ioctl', 74, 'fd 3'), 'EIO'],
  [new SyscallError('linkat', 17, '/x'), 'EEXIST'],
  [new Error('of ours'), undefined],
  ['no error', undefined],
])('%s', (error, code) => {
  expect(errnoOf(error)).toBe(code);
});
