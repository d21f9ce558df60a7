/**
 * `image compare`: two digests differ; which path, and which field of it? Each side is an image reference, an image of
 * the repository, an image file, a dump, or a directory. All that decides a digest is compared, times and hard links
 * included; where the trees are the same, how the digests were made is what is left. Nothing is written.
 */

import * as fs from 'node:fs';
import type { SysrootOptions } from '../deploy/sysroot.ts';
import { isHostctlError } from '../errors.ts';
import { formatImageParameters, type ImageParameters } from '../format/cmdline.ts';
import { parseDump } from '../format/dump/parse.ts';
import { imageVersion, readComposefsImage } from '../format/erofs/reader.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { digestAlgorithm, fsverityDigest } from '../format/fsverity/digest.ts';
import { bootTransform } from '../image/build.ts';
import { readDirectoryTree } from '../image/directory.ts';
import { measuringSink } from '../image/ingest.ts';
import { readImage } from '../store/images.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { diffTrees, type FurtherAspects, type TreeAspect, type TreeDifference } from '../tree/diff.ts';
import type { RawName } from '../tree/name.ts';
import { inodeOf, type DirectoryNode, type TreeNode, type VerityAlgorithm, type VerityDigest } from '../tree/node.ts';
import { walkTree } from '../tree/walk.ts';
import { flattenImage } from './build.ts';
import { readImageFile } from './composefs-tools.ts';
import { findStored } from './find-image.ts';
import { withImage } from './with-image.ts';

export interface CompareOptions extends SysrootOptions {
  readonly a: string;
  readonly b: string;
}

export interface ComparedSide {
  readonly name: string;
  /** Its own digest, or that of an image of version 1 where it is none yet. */
  readonly digest: VerityDigest;
  /** `v1-sha512-12` */
  readonly parameters: string;
  /** Whether `/boot` and `/sysroot` were emptied and labels computed to compare it. */
  readonly bootable: boolean;
}

/** A difference; `fields` of what both have. */
export type ImageDifference =
  | Exclude<TreeDifference, { kind: 'modified' }>
  | (Extract<TreeDifference, { kind: 'modified' }> & {
      readonly names: readonly [readonly RawName[], readonly RawName[]];
    });

export interface CompareResult {
  readonly a: ComparedSide;
  readonly b: ComparedSide;
  /** Whether the trees are the same. The digests may differ all the same, by how they are made. */
  readonly equal: boolean;
  /** What the comparison had to leave out. */
  readonly notes: readonly string[];
  readonly differences: readonly ImageDifference[];
}

/** One side before it is known how large files of the other are measured. */
interface Side {
  readonly name: string;
  /** Undefined where it may be made with any. */
  readonly algorithm: VerityAlgorithm | undefined;
  /** The image, where there is one already. */
  readonly image?: { readonly bytes: Uint8Array; readonly formatVersion: 0 | 1 | 2 };
  readonly isReference: boolean;
  read(algorithm: VerityAlgorithm): Promise<DirectoryNode>;
}

export async function compareImages(host: Host, options: CompareOptions): Promise<CompareResult> {
  const sides = [openSide(host, options, options.a), openSide(host, options, options.b)] as const;
  const [a, b] = sides;
  const algorithm = a.algorithm ?? b.algorithm ?? 'sha512';
  const trees = [await a.read(a.algorithm ?? algorithm), await b.read(b.algorithm ?? algorithm)] as const;
  const hashesDiffer = a.algorithm !== undefined && b.algorithm !== undefined && a.algorithm !== b.algorithm;
  const secondsOnly = sides.some(({ image }) => image?.formatVersion === 2);
  const compare = (left: DirectoryNode, right: DirectoryNode): ImageDifference[] =>
    differencesOf(left, right, { secondsOnly, hashesDiffer });

  let best = { trees, differences: compare(...trees), booted: [false, false] };
  // A reference against an image of a host: the tree that is booted is what has to be the same.
  if (a.isReference !== b.isReference && best.differences.length > 0) {
    const booted = bootedOrNothing(a.isReference ? trees[0] : trees[1]);
    if (booted !== undefined) {
      const pair = a.isReference ? ([booted, trees[1]] as const) : ([trees[0], booted] as const);
      const differences = compare(...pair);
      if (differences.length < best.differences.length) {
        best = { trees: pair, differences, booted: [a.isReference, b.isReference] };
      }
    }
  }
  return {
    a: describeSide(a, best.trees[0], algorithm, best.booted[0]!),
    b: describeSide(b, best.trees[1], algorithm, best.booted[1]!),
    equal: best.differences.length === 0,
    notes: [
      ...(secondsOnly ? ['An image of version 2 holds no parts of seconds: times are compared without them'] : []),
      ...(hashesDiffer ? ['The sides have different hashes: of files over 64 bytes only sizes are compared'] : []),
    ],
    differences: best.differences,
  };
}

function openSide(host: Host, options: CompareOptions, name: string): Side {
  if (name.startsWith('dump:')) {
    const tree = parseDump(fs.readFileSync(name.slice(5)));
    return { name, algorithm: algorithmOf(tree), isReference: false, read: () => Promise.resolve(tree) };
  }
  if (!/^\.{0,2}\//.test(name)) {
    const stored = /^[0-9a-f]{8,}$/.test(name) ? findStored(host, { ...options, image: name }) : undefined;
    if (stored !== undefined) {
      return imageSide(name, readImage(stored.repository, stored.digest), stored.repository.algorithm);
    }
    const read = (algorithm: VerityAlgorithm) =>
      withImage(host, name, undefined, (source) => flattenImage(host, source, measuringSink(algorithm)));
    return { name, algorithm: undefined, isReference: true, read };
  }
  if (!isDirectory(name)) return imageSide(name, readImageFile(name));
  const listXattrs = (path: Buffer) => host.syscalls.listXattrs(path);
  const read = (algorithm: VerityAlgorithm) =>
    Promise.resolve(readDirectoryTree(name, measuringSink(algorithm), { listXattrs }));
  return { name, algorithm: undefined, isReference: false, read };
}

function imageSide(name: string, bytes: Uint8Array, known?: VerityAlgorithm): Side {
  const tree = readComposefsImage(bytes);
  return {
    name,
    algorithm: known ?? algorithmOf(tree),
    image: { bytes, formatVersion: imageVersion(bytes) },
    isReference: false,
    read: () => Promise.resolve(tree),
  };
}

/** The hash that the large files of a tree are measured by; undefined where it has none. */
function algorithmOf(tree: DirectoryNode): VerityAlgorithm | undefined {
  for (const { entry } of walkTree(tree)) {
    if (entry.kind === 'file' && entry.content.kind === 'external' && entry.content.digest !== undefined) {
      return digestAlgorithm(entry.content.digest);
    }
  }
  return undefined;
}

function describeSide(side: Side, tree: DirectoryNode, usual: VerityAlgorithm, bootable: boolean): ComparedSide {
  const algorithm = side.algorithm ?? usual;
  const { bytes, formatVersion } = side.image ?? {
    ...writeComposefsImage(tree, { algorithm }),
    formatVersion: 1 as const,
  };
  const parameters: ImageParameters = { formatVersion, algorithm, logBlockSize: 12 };
  const digest = fsverityDigest(algorithm, bytes);
  return { name: side.name, digest, parameters: formatImageParameters(parameters), bootable };
}

function bootedOrNothing(tree: DirectoryNode): DirectoryNode | undefined {
  try {
    return bootTransform(tree);
  } catch (error) {
    if (isHostctlError(error, 'image-not-bootable', 'image-unsupported', 'image-invalid')) return undefined;
    throw error;
  }
}

interface Leniency {
  readonly secondsOnly: boolean;
  readonly hashesDiffer: boolean;
}

function differencesOf(a: DirectoryNode, b: DirectoryNode, leniency: Leniency): ImageDifference[] {
  const names = [namesOf(a), namesOf(b)] as const;
  const namesAt = (side: 0 | 1, node: TreeNode): readonly RawName[] => names[side].get(node) ?? [];
  const further: FurtherAspects = (before, after) => [
    ...(isSameTime(before, after, leniency.secondsOnly) ? [] : (['mtime'] as const)),
    ...(namesAt(0, before).join('\0') === namesAt(1, after).join('\0') ? [] : (['links'] as const)),
  ];
  const found: ImageDifference[] = [];
  for (const difference of diffTrees(a, b, further)) {
    if (difference.kind !== 'modified') {
      found.push(difference);
      continue;
    }
    const aspects = leniency.hashesDiffer
      ? difference.aspects.filter((each) => !isOnlyHash(difference, each))
      : difference.aspects;
    if (aspects.length === 0) continue;
    found.push({ ...difference, aspects, names: [namesAt(0, difference.before), namesAt(1, difference.after)] });
  }
  return found;
}

/** The paths of each inode that has several. */
function namesOf(tree: DirectoryNode): Map<TreeNode, RawName[]> {
  const names = new Map<TreeNode, RawName[]>();
  for (const { path, entry } of walkTree(tree)) {
    const node = inodeOf(entry);
    if (node.kind === 'directory' || node.nlink < 2) continue;
    const known = names.get(node);
    if (known === undefined) names.set(node, [path]);
    else known.push(path);
  }
  return names;
}

function isSameTime(a: TreeNode, b: TreeNode, secondsOnly: boolean): boolean {
  return a.mtime.sec === b.mtime.sec && (secondsOnly || a.mtime.nsec === b.mtime.nsec);
}

/** Whether contents of one size only seem to differ because they are measured in different ways. */
function isOnlyHash({ before, after }: Extract<TreeDifference, { kind: 'modified' }>, aspect: TreeAspect): boolean {
  if (aspect !== 'content' || before.kind !== 'file' || after.kind !== 'file') return false;
  return (
    before.content.kind === 'external' &&
    after.content.kind === 'external' &&
    before.content.size === after.content.size
  );
}
