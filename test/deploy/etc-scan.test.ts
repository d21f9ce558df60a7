import * as fs from 'node:fs';
import { makeFifo, makeSocket } from '../helpers/special-file.ts';
import { describe, expect, test } from 'vitest';
import { scanDirectory } from '../../src/deploy/etc-scan.ts';
import { materializeTree } from '../../src/deploy/materialize.ts';
import type { Host } from '../../src/sys/host.ts';
import type { DirectoryNode } from '../../src/tree/node.ts';
import { plain } from '../helpers/etc-model.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost, type TestHost } from '../helpers/test-host.ts';
import { contentOf, dir, file, tree } from '../helpers/tree-builder.ts';

const host = testHost();

function onDisk(node: DirectoryNode): string {
  const path = `${scratchDir()}/etc`;
  materializeTree(host, node, path, contentOf);
  return path;
}

/** A host whose look at the xattrs of `name` comes with something else. */
function hostWith(name: string, meddle: () => Map<string, Uint8Array> | undefined): TestHost {
  const listXattrs: Host['syscalls']['listXattrs'] = (path) =>
    (path.toString().endsWith(`/${name}`) ? meddle() : undefined) ?? host.syscalls.listXattrs(path);
  return testHost({ syscalls: { ...host.syscalls, listXattrs } });
}

describe('a name that changes between being listed and being opened is left out', () => {
  test.each<[string, (path: string) => void]>([
    ['gone', () => undefined],
    ['now a symlink', (path) => fs.symlinkSync('/etc/passwd', path)],
    ['now a directory', (path) => fs.mkdirSync(path)],
    ['now a fifo', (path) => makeFifo(path)],
    ['now a socket', (path) => makeSocket(path)],
  ])('%s', (_, replace) => {
    const path = onDisk(tree({ '/a': file('1'), '/b': file('2') }));
    const meddling = hostWith('a', () => {
      fs.rmSync(`${path}/a`);
      replace(`${path}/a`);
      // The real answer would be of what stands there now.
      return new Map();
    });
    expect(plain(scanDirectory(meddling, path, 'sha256'))).toEqual(plain(tree({ '/b': file('2') })));
  });

  test('a directory', () => {
    const path = onDisk(tree({ '/a': file('1'), '/d/b': file('2') }));
    const meddling = hostWith('a', () => void fs.rmSync(`${path}/d`, { recursive: true }));
    expect(plain(scanDirectory(meddling, path, 'sha256'))).toEqual(plain(tree({ '/a': file('1') })));
  });
});

test('xattrs that belong to the file system or the inode are not read', () => {
  const path = onDisk(tree({ '/a': file('1') }));
  const value = Buffer.from('x');
  const names = ['user.a', 'trusted.b', 'security.capability', 'security.selinux', 'system.posix_acl_access'];
  const foreign = ['btrfs.compression', 'security.evm', 'system.nfs4_acl', 'users.x'];
  const all = new Map([...names, ...foreign].map((name) => [name, value]));
  const scanned = scanDirectory(
    hostWith('a', () => all),
    path,
    'sha256',
  ).entries.get('a' as never);
  expect(scanned).toMatchObject({ xattrs: new Map(names.map((name) => [name, value])) });
});

test('a link count is of the names that were found', () => {
  const scratch = scratchDir();
  fs.mkdirSync(`${scratch}/etc`);
  fs.writeFileSync(`${scratch}/outside`, 'x');
  fs.linkSync(`${scratch}/outside`, `${scratch}/etc/a`);
  expect(scanDirectory(host, `${scratch}/etc`, 'sha256').entries.get('a' as never)).toMatchObject({ nlink: 1 });
});

test('sha512 names contents by sha512', () => {
  const path = onDisk(tree({ '/a': file('x'.repeat(65)) }));
  const node = scanDirectory(host, path, 'sha512').entries.get('a' as never);
  expect(node?.kind === 'file' && node.content).toMatchObject({
    size: 65,
    digest: expect.stringMatching(/^[0-9a-f]{128}$/) as string,
  });
});

test.each<[string, (path: string) => void]>([
  ['missing', () => undefined],
  ['a file', (path) => fs.writeFileSync(path, '')],
  ['a symlink to a directory', (path) => fs.symlinkSync('/etc', path)],
])('what is %s cannot be read, and the message says so', (_, make) => {
  const path = `${scratchDir()}/etc`;
  make(path);
  expect(() => scanDirectory(host, path, 'sha256')).toThrow(
    expect.objectContaining({ code: 'io', message: expect.stringContaining(`Cannot read "${path}"`) as string }),
  );
});

test('an error names the file it happened at', () => {
  const path = onDisk(tree({ '/d': dir(), '/d/a': file('1') }));
  const failing = hostWith('a', () => {
    throw Object.assign(new Error('EIO: broken'), { code: 'EIO' });
  });
  expect(() => scanDirectory(failing, path, 'sha256')).toThrow(
    expect.objectContaining({ code: 'io', message: `Cannot read "${path}": cannot read "d/a": EIO: broken` }),
  );
});
