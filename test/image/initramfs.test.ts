import { execFileSync } from 'node:child_process';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { findInInitramfs } from '../../src/image/initramfs.ts';
import { cpio } from '../helpers/cpio-builder.ts';
import { testHost } from '../helpers/test-host.ts';

const host = testHost();
const HOOK = 'usr/lib/hostctl/hostctl-root';

function find(bytes: Uint8Array, chunkBytes = 1000): Promise<ReadonlySet<string>> {
  const chunks = Array.from({ length: Math.ceil(bytes.length / chunkBytes) }, (_, i) =>
    bytes.subarray(i * chunkBytes, (i + 1) * chunkBytes),
  );
  return findInInitramfs(
    chunks,
    (name) => name === HOOK,
    (program, args) => host.exec.filter(program, args),
  );
}

const microcode = cpio({ 'kernel/x86/microcode/AuthenticAMD.bin': 'x'.repeat(5000) });
const main = cpio({ init: 'x'.repeat(20_000), [HOOK]: '#!/bin/sh', 'usr/bin/sh': 'y'.repeat(9000) });
const by = (program: string): Buffer => execFileSync(program, ['-c'], { input: main, maxBuffer: 1 << 24 });

test.each<readonly [string, () => Uint8Array]>([
  ['plain', () => main],
  ['gzip', () => gzipSync(main)],
  ['zstd', () => by('zstd')],
  ['xz', () => by('xz')],
  ['microcode first', () => Buffer.concat([microcode, Buffer.alloc(512), by('zstd')])],
  ['zeros behind it', () => Buffer.concat([gzipSync(main), Buffer.alloc(1024)])],
])('the hook is found in an initramfs: %s', async (_how, bytes) => {
  expect([...(await find(bytes()))]).toEqual([HOOK]);
});

test('an initramfs without the hook has none of the names', async () => {
  expect([...(await find(gzipSync(cpio({ init: 'x' }))))]).toEqual([]);
});

test.each<readonly [string, () => Uint8Array, RegExp]>([
  ['bytes of no meaning', () => Buffer.alloc(3000, 'initrd'), /neither cpio nor compressed/],
  ['a compressed stream that is cut', () => gzipSync(main).subarray(0, 100), /gives no whole cpio archive/],
  ['a compressed text', () => gzipSync('0 is no cpio header, however long this line may become, and it is made longer than a header by these words'), /gives no whole cpio archive|No cpio header/],
  ['an archive that is cut', () => main.subarray(0, 9000), /ends within a cpio archive/],
  ['nothing', () => new Uint8Array(), /ends within a cpio archive/],
])('%s cannot be read', async (_what, bytes, message) => {
  await expect(find(bytes())).rejects.toThrow(message);
}); // prettier-ignore
