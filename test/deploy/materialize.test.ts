import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { scanDirectory } from '../../src/deploy/etc-scan.ts';
import { materializeTree, repositoryContent } from '../../src/deploy/materialize.ts';
import { fsverityDigest } from '../../src/format/fsverity/digest.ts';
import { openOrCreateRepository } from '../../src/store/repository.ts';
import { removeEntry } from '../../src/sys/beneath.ts';
import { rawFromText } from '../../src/tree/name.ts';
import type { FileNode } from '../../src/tree/node.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';
import { charDevice, contentOf, dir, fifo, file, link, socket, symlink, tree } from '../helpers/tree-builder.ts';

const host = testHost();
const long = 'x'.repeat(5000);

describe('a tree written to disk reads back as it was', () => {
  const shared = file('one inode', { mode: 0o640 });
  const linked = symlink('two names');
  test.each([
    ['an empty directory', tree({ '/': dir({ mode: 0o700 }) })],
    ['a directory nobody may enter', tree({ '/a': dir({ mode: 0o000 }), '/a/b': file('hidden', { mode: 0o000 }) })],
    ['setuid, setgid and sticky bits', tree({ '/': dir({ mode: 0o3755 }), '/su': file('', { mode: 0o6755 }) })],
    [
      'contents around the inline limit',
      tree({ '/64': file('x'.repeat(64)), '/65': file('x'.repeat(65)), '/l': file(long) }),
    ],
    ['symlinks that lead nowhere and out', tree({ '/dangling': symlink('no/such'), '/out': symlink('/etc/passwd') })],
    ['hard links across directories', tree({ '/a/one': shared, '/b/two': link(shared), '/c/three': link(shared) })],
    ['a symlink with two names', tree({ '/a': linked, '/b': link(linked) })],
    [
      'names that are no text',
      tree({ 'raw:/new\nline': file('1'), 'raw:/\xff\xfe/\xc3': file('2'), 'raw:/\\': symlink('\xff') }),
    ],
    [
      'times before 1970 and with nanoseconds',
      tree({
        '/': dir({ mtime: { sec: 5n, nsec: 1 } }),
        '/f': file('', { mtime: { sec: -2n, nsec: 999_999_999 } }),
        '/l': symlink('x', { mtime: { sec: 7n, nsec: 7 } }),
      }),
    ],
  ])('%s', (_, node) => {
    const scratch = scratchDir();
    materializeTree(host, node, `${scratch}/t`, contentOf);
    expect(scanDirectory(host, `${scratch}/t`, 'sha256')).toEqual(node);
  });
});

test('a way longer than a path may be is written, read and removed', () => {
  const node = tree({ [`/${'d'.repeat(250)}`.repeat(30)]: dir(), [`/${'e'.repeat(250)}`.repeat(20)]: file('deep') });
  const scratch = scratchDir();
  materializeTree(host, node, `${scratch}/t`, contentOf);
  const read = scanDirectory(host, `${scratch}/t`, 'sha256');
  const fd = fs.openSync(scratch, 'r');
  removeEntry(fd, rawFromText('t'));
  fs.closeSync(fd);
  expect(fs.readdirSync(scratch)).toEqual([]);
  expect(read).toEqual(node);
});

test('content may come in pieces that share a buffer', () => {
  const scratch = scratchDir();
  const buffer = Buffer.alloc(3);
  const pieces = function* (): Generator<Uint8Array> {
    for (const piece of ['abc', 'def', 'ghi']) {
      buffer.write(piece);
      yield buffer;
    }
  };
  materializeTree(host, tree({ '/f': file('any') }), `${scratch}/t`, pieces);
  expect(fs.readFileSync(`${scratch}/t/f`, 'utf8')).toBe('abcdefghi');
});

test('devices, fifos and sockets are never made on the host', () => {
  const scratch = scratchDir();
  const special = tree({ '/fifo': fifo(), '/socket': socket(), '/null': charDevice(0x103), '/kept': file('1') });
  materializeTree(host, special, `${scratch}/t`, contentOf);
  expect(fs.readdirSync(`${scratch}/t`)).toEqual(['kept']);
});

test('a hard link to a name outside the written part becomes a file of its own', () => {
  const scratch = scratchDir();
  const outside = file('shared');
  materializeTree(host, tree({ '/a': link(outside), '/b': link(outside) }), `${scratch}/t`, contentOf);
  const [a, b] = ['a', 'b'].map((name) => fs.statSync(`${scratch}/t/${name}`));
  expect([a?.ino === b?.ino, a?.nlink, fs.readFileSync(`${scratch}/t/b`, 'utf8')]).toEqual([true, 2, 'shared']);
});

test('the umask decides nothing', () => {
  const before = process.umask(0o077);
  try {
    const scratch = scratchDir();
    const node = tree({ '/': dir({ mode: 0o777 }), '/d': dir({ mode: 0o775 }), '/d/f': file('', { mode: 0o666 }) });
    materializeTree(host, node, `${scratch}/t`, contentOf);
    expect(scanDirectory(host, `${scratch}/t`, 'sha256')).toEqual(node);
  } finally {
    process.umask(before);
  }
});

describe('a failure', () => {
  test('to find the target free changes nothing', () => {
    const scratch = scratchDir();
    fs.writeFileSync(`${scratch}/t`, 'mine');
    expect(() => materializeTree(host, tree({}), `${scratch}/t`, contentOf)).toThrow(
      expect.objectContaining({ code: 'io', message: expect.stringContaining('file already exists') as string }),
    );
    expect(fs.readFileSync(`${scratch}/t`, 'utf8')).toBe('mine');
  });

  test('half way names the file and takes everything away', () => {
    const scratch = scratchDir();
    const fail = ({ content }: FileNode): Uint8Array => {
      if (content.kind === 'inline' && content.bytes.length > 0) return content.bytes;
      throw Object.assign(new Error('ENOSPC: no space'), { code: 'ENOSPC' });
    };
    const node = tree({ '/a/ok': file('ok'), 'raw:/a/\xff': symlink('x'), '/b/bad': file('') });
    expect(() => materializeTree(host, node, `${scratch}/t`, fail)).toThrow(
      expect.objectContaining({
        code: 'no-space',
        message: `Cannot write "${scratch}/t": cannot write "b/bad": no space left on the device`,
      }),
    );
    expect(fs.readdirSync(scratch)).toEqual([]);
  });

  test.each(['..', '.', 'a/b', 'a\0b', ''])('for the name %j, and nothing outside is written', (name) => {
    const scratch = scratchDir();
    const root = dir();
    root.entries.set(name as never, file('escaped'));
    expect(() => materializeTree(host, root, `${scratch}/t`, contentOf)).toThrow(
      expect.objectContaining({ code: 'image-invalid' }),
    );
    expect(fs.readdirSync(scratch)).toEqual([]);
  });
});

describe('content from a repository', () => {
  const bytes = Buffer.from('object content '.repeat(100));
  const digest = fsverityDigest('sha256', bytes);
  const node: FileNode = { ...file(''), content: { kind: 'external', size: bytes.length, digest } };

  function withObject(content: Uint8Array | undefined, body: (read: () => Buffer) => void): void {
    const scratch = scratchDir();
    const repository = openOrCreateRepository(host, `${scratch}/repo`, { algorithm: 'sha256' });
    fs.mkdirSync(`${repository.path}/objects/${digest.slice(0, 2)}`);
    const path = `${repository.path}/objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
    if (content !== undefined) fs.writeFileSync(path, content);
    body(() => Buffer.concat([...repositoryContent(repository)(node)].map((piece) => Buffer.from(piece))));
  }

  test('is that of the object', () => {
    withObject(bytes, (read) => expect(read()).toEqual(bytes));
  });

  test.each([
    ['missing', undefined, 'it is missing'],
    ['short', bytes.subarray(1), `it has ${bytes.length - 1} bytes, not ${bytes.length}`],
    ['long', Buffer.concat([bytes, Buffer.of(0)]), `it has more than ${bytes.length} bytes`],
    ['flipped', Buffer.from(bytes).fill('O', 0, 1), 'its content is another'],
  ])('is refused from an object that is %s', (_, content, how) => {
    withObject(content, (read) => {
      expect(read).toThrow(
        expect.objectContaining({ code: 'corrupt', message: `The object ${digest} is damaged: ${how}` }),
      );
    });
  });

  test('is refused without a digest to check it by', () => {
    const scratch = scratchDir();
    const repository = openOrCreateRepository(host, `${scratch}/repo`, { algorithm: 'sha256' });
    const unchecked: FileNode = { ...node, content: { kind: 'external', size: 5 } };
    expect(() => repositoryContent(repository)(unchecked)).toThrow(expect.objectContaining({ code: 'image-invalid' }));
  });
});
