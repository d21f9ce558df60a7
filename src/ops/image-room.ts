/**
 * Room for an image on the file system of its repository, before anything is written. Layers are compressed, so what an
 * image takes is only known when it has been read: where the space may be tight it is read once more, measured and
 * compared, object by object, with what is there already.
 */

import { HostctlError } from '../errors.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { merkleTreeBytes, VERITY_BLOCK_SIZE } from '../format/fsverity/merkle.ts';
import { formatMebibytes } from '../format/size.ts';
import { measuringSink } from '../image/ingest.ts';
import type { ObjectLookup } from '../image/known-layers.ts';
import type { ImageSource } from '../image/source.ts';
import { hasLayerRecord } from '../store/layer-records.ts';
import { objectFile, type Repository } from '../store/repository.ts';
import { exists, freeSpace } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { contentSize, type DirectoryNode } from '../tree/node.ts';
import { externalFiles, walkTree } from '../tree/walk.ts';
import { readTreesHere } from './stored-layers.ts';

/** Twice what the layers of operating systems shrink by: with so much free nothing needs to be measured. */
const WIDE_RATIO = 8;
const WIDE_BYTES = 64 << 20;
/** Inodes are only counted where fewer are free than a large operating system has files. */
const WIDE_INODES = 1_000_000;
/** Records, directories and links beside what is counted. */
const BESIDE_BYTES = 256 << 10;
const BESIDE_INODES = 300;

/** What is made of the tree of an image. */
export interface StoredForm {
  /** As it is stored. */
  readonly tree: DirectoryNode;
  /** Directories of it whose files are copied beside the image. */
  readonly copied: readonly (DirectoryNode | undefined)[];
}

/** Throws 'no-space', with the numbers, where what is new of the image does not fit. */
export async function checkImageRoom(
  host: Host,
  repository: Repository,
  { source, objects }: { readonly source: ImageSource; readonly objects: ObjectLookup },
  formOf: (flattened: DirectoryNode) => StoredForm,
): Promise<void> {
  const free = freeSpace(repository.path);
  // What is recorded is here, but for what upper layers hid.
  const unknown = source.layers.filter(({ diffId }) => !hasLayerRecord(repository, diffId));
  const fetchBytes = unknown.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
  if (free.freeBytes >= fetchBytes * WIDE_RATIO + WIDE_BYTES && free.freeInodes >= WIDE_INODES) return;
  const sink = measuringSink(repository.algorithm);
  const form = formOf((await readTreesHere(host, { repository, lookup: objects, source, sink }, {})).tree);
  const needed = roomFor(repository, form, free.unitBytes);
  const refuse = (need: string, has: string): HostctlError =>
    new HostctlError(
      'no-space',
      `The file system of "${repository.path}" needs ${need} for what is new in the image but has ${has} free; nothing was changed`,
      { hint: 'Remove what nothing needs ("hostctl gc") or a deployment, or enlarge the file system' },
    );
  if (needed.bytes > free.freeBytes) throw refuse(formatMebibytes(needed.bytes), formatMebibytes(free.freeBytes));
  if (needed.inodes > free.freeInodes) throw refuse(`${needed.inodes} inodes`, String(free.freeInodes));
}

function roomFor(
  repository: Repository,
  { tree, copied }: StoredForm,
  unitBytes: number,
): { readonly bytes: number; readonly inodes: number } {
  const { algorithm, hasVerity } = repository;
  const allocated = (size: number): number => Math.ceil(size / unitBytes) * unitBytes;
  const image = writeComposefsImage(tree, { algorithm }).bytes;
  const objects = new Map([[fsverityDigest(algorithm, image), image.length], ...externalFiles(tree)]);
  let bytes = BESIDE_BYTES;
  let inodes = BESIDE_INODES;
  for (const [digest, size] of objects) {
    if (exists(objectFile(repository, digest))) continue;
    // Behind a file the kernel puts the hash tree, and a descriptor.
    bytes += allocated(size) + (hasVerity ? allocated(merkleTreeBytes(size, algorithm) + VERITY_BLOCK_SIZE) : 0);
    inodes += 1;
  }
  for (const directory of copied) {
    if (directory === undefined) continue;
    for (const { entry } of walkTree(directory)) {
      if (entry.kind === 'hardlink') continue;
      bytes += entry.kind === 'file' ? allocated(contentSize(entry.content)) : unitBytes;
      inodes += 1;
    }
  }
  return { bytes, inodes };
}
