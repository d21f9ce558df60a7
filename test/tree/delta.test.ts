/** A base and a delta over it are the tree that the delta was made of, also on the way through their images. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { readComposefsDelta, readComposefsImage } from '../../src/format/erofs/reader.ts';
import { writeComposefsImage } from '../../src/format/erofs/writer.ts';
import { applyDelta, makeDelta, type Delta } from '../../src/tree/delta.ts';
import { directoriesOf, settleLinks } from '../../src/tree/links.ts';
import { copyTree, lookup } from '../../src/tree/lookup.ts';
import type { DirectoryNode, TreeEntry } from '../../src/tree/node.ts';
import { walkTree } from '../../src/tree/walk.ts';
import { treeArbitrary } from '../helpers/arbitraries.ts';
import { charDevice, dir, file, link, symlink, tree } from '../helpers/tree-builder.ts';

const algorithm = 'sha256';

function imageOf(root: DirectoryNode, delta?: Delta): Uint8Array {
  return writeComposefsImage(root, { algorithm, ...(delta === undefined ? {} : { marks: delta }) }).bytes;
}

/** Builds a tree out of what only its files know. */
function settled(entries: Record<string, TreeEntry>): DirectoryNode {
  const root = tree(entries);
  settleLinks(root);
  return root;
}

interface Shown {
  /** Paths that the delta brings. */
  readonly brings: string[];
  readonly hides: Record<string, string[]>;
  readonly opaque: string[];
}

function show({ root, hidden, opaque }: Delta): Shown {
  const walked = [...walkTree(root)];
  const pathOf = new Map(walked.map(({ path, entry }) => [entry, path]));
  const at = (directory: DirectoryNode): string => pathOf.get(directory) ?? 'not in the delta';
  return {
    brings: walked.map(({ path }) => path).filter((path) => path !== '/'),
    hides: Object.fromEntries([...hidden].map(([directory, names]) => [at(directory), [...names].sort()])),
    opaque: [...opaque].map(at),
  };
}

describe('a delta', () => {
  const cases: [string, () => Record<string, TreeEntry>, () => Record<string, TreeEntry>, Partial<Shown>][] = [
    ['of equal trees is empty', () => ({ '/a/b': file('x') }), () => ({ '/a/b': file('x') }), {}],
    [
      'brings what is new and what is changed, and the directories on the way only',
      () => ({ '/a/b': file('x'), '/c/d': file('y'), '/e/f': file('z') }),
      () => ({ '/a/b': file('x'), '/c/d': file('other'), '/e/f': file('z'), '/e/g/h': file('new') }),
      { brings: ['/c', '/c/d', '/e', '/e/g', '/e/g/h'] },
    ],
    [
      'brings a directory of which only the metadata is another',
      () => ({ '/a/b': file('x') }),
      () => ({ '/a': dir({ mode: 0o700 }), '/a/b': file('x') }),
      { brings: ['/a'] },
    ],
    [
      'brings a file of which only the time is another',
      () => ({ '/a': file('x', { mtime: { sec: 1n, nsec: 0 } }) }),
      () => ({ '/a': file('x', { mtime: { sec: 1n, nsec: 1 } }) }),
      { brings: ['/a'] },
    ],
    [
      'hides what is gone where something stays',
      () => ({ '/a/b': file('x'), '/a/c': dir(), '/a/d': file('y') }),
      () => ({ '/a/d': file('y') }),
      { brings: ['/a'], hides: { '/a': ['b', 'c'] } },
    ],
    [
      'makes a directory opaque of which nothing stays',
      () => ({ '/a/b': file('x'), '/a/c/d': file('y') }),
      () => ({ '/a/b': file('other') }),
      { brings: ['/a', '/a/b'], opaque: ['/a'] },
    ],
    [
      'hides in the root by name, which overlayfs merges always',
      () => ({ '/a': file('x') }),
      () => ({ '/b': file('x') }),
      { brings: ['/b'], hides: { '/': ['a'] } },
    ],
    [
      'replaces a file by a directory and a directory by a file without hiding',
      () => ({ '/a': file('x'), '/b/c': file('y'), '/d': file('z') }),
      () => ({ '/a/c': file('x'), '/b': symlink('a'), '/d': file('z') }),
      { brings: ['/a', '/a/c', '/b'] },
    ],
    [
      'brings the whiteouts that an image holds itself, with their directory',
      () => ({ '/a/b': charDevice(0), '/a/c': file('x') }),
      () => ({ '/a/b': charDevice(0), '/a/c': file('x') }),
      { brings: ['/a', '/a/b'] },
    ],
  ];
  test.each(cases)('%s', (_, before, after, shown) => {
    const delta = makeDelta(settled(before()), settled(after()));
    expect(show(delta)).toEqual({ brings: [], hides: {}, opaque: [], ...shown });
  });

  test('brings every name of an inode that gained or lost one', () => {
    const linked = (...names: string[]): Record<string, TreeEntry> => {
      const target = file('x');
      const [first = '', ...others] = names;
      return { [first]: target, ...Object.fromEntries(others.map((name) => [name, link(target)])) };
    };
    const base = settled({ ...linked('/a/1', '/b/1'), ...linked('/a/2', '/b/2'), ...linked('/a/3', '/b/3') });
    const whole = settled({ ...linked('/a/1', '/b/1'), ...linked('/a/2', '/b/2', '/c/2'), ...linked('/a/3') });
    const delta = makeDelta(base, whole);
    expect(show(delta)).toEqual({
      brings: ['/a', '/a/2', '/a/3', '/b', '/b/2', '/c', '/c/2'],
      hides: { '/b': ['3'] },
      opaque: [],
    });
    expect(lookup(delta.root, '/c/2')).toMatchObject({ nlink: 3 });
  });
});

/** Another tree with much in common: some names go, some places get what another tree has. */
function changed(base: DirectoryNode, other: DirectoryNode, picks: readonly number[]): DirectoryNode {
  const root = copyTree(base);
  const grafts = [...copyTree(other).entries];
  for (const [at, pick] of picks.entries()) {
    const directories = [...directoriesOf(root)];
    const directory = directories[pick % directories.length]!;
    const name = [...directory.entries.keys()][pick % Math.max(directory.entries.size, 1)];
    if (name !== undefined && pick % 3 !== 0) directory.entries.delete(name);
    const [newName, entry] = grafts[at] ?? [];
    if (newName !== undefined && entry !== undefined) {
      directory.entries.set(pick % 3 === 1 && name !== undefined ? name : newName, entry);
    }
    if (pick % 5 === 0) directory.mode ^= 0o001;
  }
  settleLinks(root);
  return root;
}

test('base and delta, each read from its image, give the image of the whole tree byte for byte', () => {
  // Of xattrs that images use as marks of their own, what a tree has is lost on the way out of any image.
  const some = (maxEntries: number) => treeArbitrary({ plainXattrs: true, maxEntries });
  const trees = fc.tuple(some(40), some(12), fc.array(fc.nat(), { maxLength: 12 }));
  fc.assert(
    fc.property(trees, ([base, other, picks]) => {
      settleLinks(base);
      const whole = changed(base, other, picks);
      const delta = makeDelta(base, whole);
      const [baseImage, wholeImage, deltaImage] = [imageOf(base), imageOf(whole), imageOf(delta.root, delta)];
      const again = applyDelta(readComposefsImage(baseImage), readComposefsDelta(deltaImage));
      expect(Buffer.compare(imageOf(again), wholeImage)).toBe(0);
    }),
    { numRuns: 300 },
  );
});
