/**
 * `umoci unpack` as referee of flattening: random images of several layers unpack to the same tree. Left out is what
 * umoci 0.4.7 is known to do otherwise: it takes markers in the order of the tar, so markers come first here.
 */

import { execFileSync } from 'node:child_process';
import { lstatSync, readFileSync, readlinkSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HostctlError } from '../../src/errors.ts';
import { TarReader } from '../../src/format/tar/reader.ts';
import { Flattener } from '../../src/image/flatten.ts';
import { LayerIngest, measuringSink } from '../../src/image/ingest.ts';
import { NO_TOTALS } from '../../src/tree/layer-entry.ts';
import { inodeOf, type DirectoryNode } from '../../src/tree/node.ts';
import { ociLayout } from '../helpers/oci-builder.ts';
import { missingPrograms, pathsBelow } from '../helpers/requires.ts';
import { scratchDir } from '../helpers/scratch-dir.ts';
import { paxHeader, tar, tarDir, tarFile, tarHardlink, tarSymlink } from '../helpers/tar-builder.ts';
import { walk } from '../helpers/tree-listing.ts';

const missing = missingPrograms('umoci');

type Op =
  | { readonly kind: 'dir' | 'file'; readonly path: string; readonly mode: number }
  | { readonly kind: 'symlink' | 'hardlink'; readonly path: string; readonly target: string }
  | { readonly kind: 'whiteout' | 'opaque'; readonly path: string };

const name = fc.constantFrom('a', 'b', 'c');
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
/** Sometimes through a symlink, which is only ever called l. */
const anyPath = fc.oneof({ weight: 4, arbitrary: path }, { weight: 1, arbitrary: path.map((rest) => `l/${rest}`) });
const mode = fc.constantFrom(0o755, 0o700, 0o711, 0o644);
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('dir' as const), path: anyPath, mode: mode.map((bits) => bits | 0o700) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('file' as const), path: anyPath, mode }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('symlink' as const), path: fc.oneof(path.map((at) => `${at}/l`), fc.constant('l')), target: fc.constantFrom('a', 'b/c', '../a', '/c', '/a/../b') }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('hardlink' as const), path: anyPath, target: anyPath }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('whiteout' as const), path: anyPath }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('opaque' as const), path: anyPath }) },
); // prettier-ignore

function archive(layer: readonly Op[], number: number): Buffer {
  const markers = layer.filter(({ kind }) => kind === 'whiteout' || kind === 'opaque');
  const makesLinks = layer.some(({ kind }) => kind === 'symlink');
  const entries = [
    ...markers.filter(({ path: at }) => !makesLinks || !at.includes('l/')),
    ...layer.filter((entry) => !markers.includes(entry)),
  ];
  return tar(
    entries.map((entry, i) => {
      const at = entry.path;
      switch (entry.kind) {
        case 'dir':
          return tarDir(at, { mode: entry.mode });
        case 'file':
          return Buffer.concat([
            paxHeader({ mtime: `${1000 + i}.5` }),
            tarFile(at, `${number}.${i}`, { mode: entry.mode }),
          ]);
        case 'symlink':
          return tarSymlink(at, entry.target);
        case 'hardlink':
          return tarHardlink(at, entry.target);
        case 'whiteout':
          return tarFile(at.replace(/[^/]*$/, '.wh.$&'));
        case 'opaque':
          return tarFile(`${at}/.wh..wh..opq`);
      }
    }),
  );
}

function flattened(archives: readonly Buffer[]): DirectoryNode {
  const flattener = new Flattener(() => undefined);
  for (const bytes of archives) {
    const ingest = new LayerIngest(measuringSink('sha256'), 'allowlist-only', NO_TOTALS);
    const reader = new TarReader(ingest);
    reader.push(bytes);
    reader.end();
    flattener.applyLayer(ingest.entries, 'Layer');
  }
  return flattener.finish();
}

/** The layers without what is refused for good reasons, which umoci may take. */
function accepted(layers: readonly (readonly Op[])[]): Op[][] {
  const kept: Op[][] = [];
  for (const layer of layers) {
    kept.push([]);
    for (const next of layer) {
      kept.at(-1)!.push(next);
      try {
        flattened(kept.map(archive));
      } catch (error) {
        if (!(error instanceof HostctlError)) throw error;
        kept.at(-1)!.pop();
      }
    }
  }
  return kept;
}

/** Path to type, content, time of files, and the names that share the inode. */
type Facts = Record<string, string>;

function withGroups(list: readonly { path: string; fact: string; inode: unknown; isDirectory: boolean }[]): Facts {
  const groups = new Map<unknown, string[]>();
  for (const { path: at, inode } of list) groups.set(inode, [...(groups.get(inode) ?? []), at]);
  return Object.fromEntries(list.map(({ path: at, fact, inode, isDirectory }) => [at, isDirectory ? fact : `${fact} as ${groups.get(inode)!.sort().join(',')}`]));
} // prettier-ignore

function treeFacts(root: DirectoryNode): Facts {
  return withGroups(
    [...walk(root)].map(({ path: at, entry }) => {
      const node = inodeOf(entry);
      const fact =
        node.kind === 'file' && node.content.kind === 'inline'
          ? `${Buffer.from(node.content.bytes).toString()} ${node.mode.toString(8)} ${node.mtime.sec}.${node.mtime.nsec}`
          : node.kind === 'symlink' ? `-> ${node.target}` : node.kind;
      return { path: at, fact, inode: node, isDirectory: node.kind === 'directory' };
    }),
  ); // prettier-ignore
}

function diskFacts(root: string): Facts {
  return withGroups(
    pathsBelow(root).map((at) => {
      const stat = lstatSync(`${root}/${at}`, { bigint: true });
      const fact = stat.isFile()
        ? `${readFileSync(`${root}/${at}`, 'utf8')} ${(Number(stat.mode) & 0o7777).toString(8)} ${stat.mtimeNs / 10n ** 9n}.${stat.mtimeNs % 10n ** 9n}`
        : stat.isSymbolicLink() ? `-> ${readlinkSync(`${root}/${at}`)}` : 'directory';
      return { path: at, fact, inode: stat.ino, isDirectory: stat.isDirectory() };
    }),
  ); // prettier-ignore
}

describe.skipIf(missing.length > 0)('umoci unpack', () => {
  test('makes the same tree of random images', () => {
    const directory = scratchDir();
    let number = 0;
    fc.assert(
      fc.property(fc.array(fc.array(op, { minLength: 1, maxLength: 8 }), { minLength: 2, maxLength: 4 }), (layers) => {
        const archives = accepted(layers).map(archive);
        const ours = treeFacts(flattened(archives));
        number++;
        const layout = `${directory}/${number}`;
        execFileSync('mkdir', [layout]);
        ociLayout(layout, { layers: archives.map((bytes) => ({ tar: bytes })), tag: 'x' });
        const rootless = process.getuid?.() === 0 ? [] : ['--rootless'];
        execFileSync('umoci', ['unpack', ...rootless, '--image', `${layout}:x`, `${layout}/bundle`], { stdio: ['ignore', 'ignore', 'pipe'] });
        expect(ours).toEqual(diskFacts(`${layout}/bundle/rootfs`));
        execFileSync('rm', ['-rf', layout]);
      }),
      { numRuns: 100 },
    );
  }); // prettier-ignore
});
