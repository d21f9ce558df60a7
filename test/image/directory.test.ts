import { chmodSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';

import { describe, expect, test } from 'vitest';

import { isHostctlError } from '../../src/errors.ts';
import { fsverityDigest, objectPath } from '../../src/format/fsverity/digest.ts';
import { readDirectoryTree, type ReadDirectoryOptions } from '../../src/image/directory.ts';
import { measuringSink } from '../../src/image/ingest.ts';
import type { ObjectSink } from '../../src/tree/objects.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { treeFacts } from '../helpers/tree-facts.ts';

const sink = measuringSink('sha256');
const none: Pick<ReadDirectoryOptions, 'listXattrs'> = { listXattrs: () => new Map() };
const ids = { uid: process.getuid?.(), gid: process.getgid?.() };

function stamp(path: string): void {
  utimesSync(path, 5, 5);
}

describe('a directory', () => {
  test('is read with modes, times, targets, contents and odd names', () => {
    const top = scratchDir();
    const odd = Buffer.concat([Buffer.from(`${top}/sub/`), Buffer.from([0xff, 0x20])]);
    mkdirSync(`${top}/sub`, { mode: 0o700 });
    writeFileSync(`${top}/empty`, '');
    writeFileSync(`${top}/inline`, 'x'.repeat(64));
    writeFileSync(`${top}/object`, 'y'.repeat(65));
    writeFileSync(odd, 'odd');
    symlinkSync('/nowhere', `${top}/link`);
    for (const name of ['empty', 'inline', 'object']) {
      chmodSync(`${top}/${name}`, 0o4711);
      stamp(`${top}/${name}`);
    }
    utimesSync(odd, 5, new Date(-1500));
    chmodSync(odd, 0o600);
    for (const path of [`${top}/sub`, top]) stamp(path);
    chmodSync(top, 0o755);
    const digest = fsverityDigest('sha256', Buffer.alloc(65, 'y'));
    const common = { ...ids, mtime: '5.0', xattrs: {} };
    const file = { kind: 'file', ...common, mode: 0o4711, nlink: 1 };
    const facts = treeFacts(readDirectoryTree(top, sink, none));
    expect(facts).toMatchObject({ '/link': { kind: 'symlink', target: '/nowhere', nlink: 1 } });
    delete facts['/link'];
    expect(facts).toEqual({
      '/': { kind: 'directory', ...common, mode: 0o755 },
      '/empty': { ...file, content: '' },
      '/inline': { ...file, content: '78'.repeat(64) },
      '/object': { ...file, content: { kind: 'external', size: 65, digest, path: objectPath(digest) } },
      '/sub': { kind: 'directory', ...common, mode: 0o700 },
      '/sub/\xff ': { ...file, mode: 0o600, mtime: '-2.500000000', content: '6f6464' },
    });
  });

  test.each([
    ['all', { 'user.a': '31', 'trusted.b': '32' }],
    ['user', { 'user.a': '31' }],
    ['none', {}],
  ] as const)('is read with %s xattrs', (xattrs, expected) => {
    const top = scratchDir();
    const listXattrs = (): Map<string, Uint8Array> =>
      new Map([
        ['user.a', Buffer.from('1')],
        ['trusted.b', Buffer.from('2')],
      ]);
    expect(treeFacts(readDirectoryTree(top, sink, { listXattrs, xattrs }))).toMatchObject({
      '/': { xattrs: expected },
    });
  });

  test('is read with no times when asked to', () => {
    expect(treeFacts(readDirectoryTree(scratchDir(), sink, { ...none, useEpoch: true }))).toMatchObject({
      '/': { mtime: '0.0' },
    });
  });
});

describe('reading fails, naming the path, and leaves no object open', () => {
  test.each([
    ['what is not there', (top: string) => `${top}/missing`, /^Cannot read ".*\/missing": ENOENT$/],
    ['a file', (top: string) => `${top}/big`, /^Cannot read ".*\/big": it is no directory$/],
  ])('for %s', (_, place, message) => {
    const top = scratchDir();
    writeFileSync(`${top}/big`, 'x'.repeat(100));
    expect(() => readDirectoryTree(place(top), sink, none)).toThrow(message);
  });

  test('for a file that grows while it is read', () => {
    const top = scratchDir();
    writeFileSync(`${top}/big`, 'x'.repeat(100));
    const aborted: string[] = [];
    const growing: ObjectSink = {
      algorithm: 'sha256',
      create: (size) => ({
        write: () => writeFileSync(`${top}/big`, 'x'.repeat(size + 5)),
        finish: () => {
          throw new Error('must not be finished');
        },
        abort: () => void aborted.push('abort'),
      }),
    };
    let problem: unknown;
    try {
      readDirectoryTree(top, growing, none);
    } catch (error) {
      problem = error;
    }
    expect(isHostctlError(problem, 'io') && problem.message).toBe(
      `Cannot read "${top}/big": it changes while it is read`,
    );
    expect(aborted).toEqual(['abort']);
  });
});
