import * as fs from 'node:fs';
import { makeFifo } from '../helpers/special-file.ts';
import { describe, expect, test } from 'vitest';
import { applyEtcMerge } from '../../src/deploy/etc-apply.ts';
import { planEtcMerge } from '../../src/deploy/etc-merge.ts';
import { scanDirectory } from '../../src/deploy/etc-scan.ts';
import { materializeTree } from '../../src/deploy/materialize.ts';
import type { Host } from '../../src/sys/host.ts';
import type { DirectoryNode } from '../../src/tree/node.ts';
import { modelMerge, plain, randomTriple, withoutSpecials } from '../helpers/etc-model.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { testHost } from '../helpers/test-host.ts';
import { contentOf, dir, file, link, metadata, symlink, tree } from '../helpers/tree-builder.ts';

const host = testHost();
const scan = (path: string): DirectoryNode => scanDirectory(host, path, 'sha256');

interface Merge {
  readonly local: string;
  readonly next: string;
  run(host?: Host): void;
}

/** Both sides on disk and the plan between them; `run` carries it out. */
function prepared(base: DirectoryNode, local: DirectoryNode, next: DirectoryNode, scratch = scratchDir()): Merge {
  const paths = { local: `${scratch}/local`, next: `${scratch}/next` };
  materializeTree(host, local, paths.local, contentOf);
  materializeTree(host, next, paths.next, contentOf);
  const plan = planEtcMerge({ base, local: scan(paths.local), next });
  return { ...paths, run: (with_ = host) => applyEtcMerge(with_, plan, paths.local, paths.next) };
}

function merged(base: DirectoryNode, local: DirectoryNode, next: DirectoryNode): DirectoryNode {
  const merge = prepared(base, local, next);
  merge.run();
  return scan(merge.next);
}

test('300 random merges leave on disk what the rules say, and the live directory as it was', () => {
  const scratch = scratchDir();
  for (let seed = 1; seed <= 300; seed += 1) {
    const { base, local, next } = randomTriple(seed);
    const rule = seed % 2 === 0 ? 'keep-local' : 'take-image';
    const [localPath, newPath] = [`${scratch}/local-${seed}`, `${scratch}/new-${seed}`];
    materializeTree(host, local, localPath, contentOf);
    materializeTree(host, next, newPath, contentOf);
    const live = scan(localPath);
    applyEtcMerge(host, planEtcMerge({ base, local: live, next }, { otherwise: rule }), localPath, newPath);
    const { result } = modelMerge(plain(base), plain(local), plain(next), rule);
    expect(plain(scan(newPath)), `seed ${seed}`).toEqual(withoutSpecials(result));
    expect(scan(localPath), `seed ${seed}`).toEqual(live);
  }
});

test('an added tree arrives with every time, mode, link and odd name', () => {
  const shared = file('shared', { mode: 0o4711, mtime: { sec: 12n, nsec: 345_678_901 } });
  const local = tree({
    '/d': dir({ mode: 0o2750, mtime: { sec: 99n, nsec: 7 } }),
    '/d/empty': dir({ mode: 0o000, mtime: { sec: -1n, nsec: 1 } }),
    '/d/large': file('x'.repeat(3_000_000)),
    '/d/one': shared,
    '/d/sub/two': link(shared),
    '/d/dangling': symlink('no/such', { mtime: { sec: 5n, nsec: 5 } }),
    '/d/out': symlink('/etc/passwd'),
    'raw:/d/\xff\n': file('odd'),
  });
  const result = merged(tree({}), local, tree({}));
  expect(result.entries.get('d' as never)).toEqual(scanOf(local).entries.get('d' as never));
});

/** The tree as it reads back from disk. */
function scanOf(node: DirectoryNode): DirectoryNode {
  const path = `${scratchDir()}/t`;
  materializeTree(host, node, path, contentOf);
  return scan(path);
}

test('replacing one of two names of a file leaves the other as the new image has it', () => {
  const shared = file('new default');
  const result = merged(
    tree({ '/a': file('1'), '/b': file('1') }),
    tree({ '/a': file('mine'), '/b': file('1') }),
    tree({ '/a': shared, '/b': link(shared) }),
  );
  expect(plain(result)).toEqual(plain(tree({ '/a': file('mine'), '/b': file('new default') })));
});

test('a file that changed after it was looked at arrives as it is now', () => {
  const merge = prepared(tree({}), tree({ '/a': file('then') }), tree({}));
  fs.writeFileSync(`${merge.local}/a`, 'now');
  merge.run();
  expect(fs.readFileSync(`${merge.next}/a`, 'utf8')).toBe('now');
});

test('a file that was removed after it was looked at is left out, with a warning', () => {
  const merge = prepared(
    tree({ '/b': file('1') }),
    tree({ '/a': file('then'), '/b': file('2'), '/d/c': file() }),
    tree({ '/b': file('3') }),
  );
  for (const name of ['a', 'b', 'd']) fs.rmSync(`${merge.local}/${name}`, { recursive: true });
  const watching = testHost();
  merge.run(watching);
  expect(plain(scan(merge.next))).toEqual(plain(tree({ '/d': dir() })));
  expect(watching.warnings).toEqual(
    ['a', 'b', 'd/c'].map((path) => `"/etc/${path}" was removed while it was being merged`),
  );
});

describe('a file that changes while it is copied', () => {
  /** A host on which `meddle` runs with each look at the xattrs of a source file, between opening and comparing it. */
  function meddling(meddle: (count: number) => void): Host {
    let count = 0;
    const listXattrs: Host['syscalls']['listXattrs'] = (path) => {
      meddle((count += 1));
      return host.syscalls.listXattrs(path);
    };
    return testHost({ syscalls: { ...host.syscalls, listXattrs } });
  }

  test('once is copied again', () => {
    const merge = prepared(tree({}), tree({ '/a': file('first') }), tree({}));
    merge.run(meddling((count) => count === 1 && fs.writeFileSync(`${merge.local}/a`, 'second')));
    expect(fs.readFileSync(`${merge.next}/a`, 'utf8')).toBe('second');
  });

  const message = (merge: Merge, how: string): string =>
    `Cannot merge "${merge.local}" into "${merge.next}": cannot merge "/etc/a": it changed while it was being merged: ${how}`;

  test.each<[string, (path: string, count: number) => void]>([
    ['in content', (path, count) => fs.writeFileSync(path, `version ${count}`)],
    ['in mode', (path, count) => fs.chmodSync(path, 0o600 + count)],
    [
      'by rename',
      (path, count) => {
        fs.writeFileSync(`${path}.new`, `version ${count}`);
        fs.renameSync(`${path}.new`, path);
      },
    ],
    ['by growing', (path) => fs.appendFileSync(path, 'more')],
  ])('again and again %s is a conflict', (_, change) => {
    const merge = prepared(tree({}), tree({ '/a': file('first') }), tree({}));
    expect(() => merge.run(meddling((count) => change(`${merge.local}/a`, count)))).toThrow(
      expect.objectContaining({
        code: 'etc-conflict',
        message: message(merge, 'it kept changing while it was being copied'),
      }),
    );
  });

  test.each<[string, (path: string) => void]>([
    ['a symlink', (path) => fs.symlinkSync('/etc/passwd', path)],
    ['a directory', (path) => fs.mkdirSync(path)],
    ['a fifo', (path) => makeFifo(path)],
  ])('into %s is a conflict', (_, replace) => {
    const merge = prepared(tree({}), tree({ '/a': file('first') }), tree({}));
    fs.rmSync(`${merge.local}/a`);
    replace(`${merge.local}/a`);
    expect(() => merge.run()).toThrow(
      expect.objectContaining({ code: 'etc-conflict', message: message(merge, 'it is no regular file any more') }),
    );
    expect(fs.readdirSync(merge.next)).toEqual([]);
  });
});

test('a plan with conflicts, and a merge of a directory with itself, are refused', () => {
  const scratch = scratchDir();
  materializeTree(host, tree({ '/a': file('1') }), `${scratch}/etc`, contentOf);
  const before = scan(`${scratch}/etc`);
  const conflicts = [{ path: 'a' as never, reason: 'is a file changed here, but a directory in the new image' }];
  expect(() => applyEtcMerge(host, { changes: [], conflicts }, `${scratch}/etc`, `${scratch}/none`)).toThrow(
    expect.objectContaining({
      code: 'etc-conflict',
      message: 'Cannot merge "/etc/a": it is a file changed here, but a directory in the new image',
    }),
  );
  const changes = [{ kind: 'remove', path: 'a' as never }] as const;
  expect(() => applyEtcMerge(host, { changes, conflicts: [] }, `${scratch}/etc`, `${scratch}/etc`)).toThrow(
    expect.objectContaining({ code: 'internal' }),
  );
  expect(scan(`${scratch}/etc`)).toEqual(before);
});

test('the mode of a directory that may not be written to does not keep files out of it', () => {
  const closed = (entries: Record<string, ReturnType<typeof file>>): DirectoryNode =>
    tree({ '/d': { ...dir(), ...metadata({ mode: 0o500 }) }, ...entries });
  const result = merged(tree({}), closed({ '/d/a': file('1') }), tree({ '/d': dir() }));
  expect(plain(result)).toEqual(plain(closed({ '/d/a': file('1') })));
});
