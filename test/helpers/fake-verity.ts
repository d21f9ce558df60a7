/**
 * A file system with fs-verity, for machines that have none: every file of it is measured from the content that it has
 * at that moment, which on a real one could not have changed.
 */

import { fstatSync } from 'node:fs';
import { digestOfFile } from '../../src/store/file-digest.ts';
import type { Host } from '../../src/sys/host.ts';

export function withFakeVerity<H extends Host>(host: H): H {
  return {
    ...host,
    syscalls: {
      ...host.syscalls,
      enableVerity: () => undefined,
      measureVerity: (fd) =>
        fstatSync(fd).isFile()
          ? { kind: 'enabled', algorithm: 'sha512', digestHex: digestOfFile(fd, 'sha512') }
          : { kind: 'disabled' },
    },
  };
}
