/**
 * What mkcomposefs and composefs-info do: images made from a directory or a dump, and images taken apart. Needs no
 * host and, but for reading other people's files, no root.
 */

import * as fs from 'node:fs';
import { HostctlError } from '../errors.ts';
import { formatDump } from '../format/dump/format.ts';
import { parseDump } from '../format/dump/parse.ts';
import { imageObjects, type ImageObject } from '../format/erofs/image-objects.ts';
import { inspectImage } from '../format/erofs/inspect.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { writeValidTree } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { readDirectoryTree } from '../image/directory.ts';
import { measuringSink } from '../image/ingest.ts';
import { digestOfFile } from '../store/file-digest.ts';
import { ObjectStore } from '../store/objects.ts';
import { openDigestStore } from '../store/repository.ts';
import { createFile, exists, split, temporaryName } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { assertValidTree, type ValidTree } from '../tree/validate.ts';
import { walkTree, type WalkedEntry } from '../tree/walk.ts';
import type { DirectoryNode, VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';

export interface CreateImageOptions {
  /** A directory, or with `fromDump` a dump file or `-`. */
  readonly source: string;
  /** What `-` stands for. */
  readonly readStdin: () => Promise<Uint8Array>;
  readonly out: string;
  readonly fromDump: boolean;
  /** Where the contents of files go; they are only measured without it. */
  readonly digestStore: string | undefined;
  readonly formatVersion: 0 | 1 | 2;
  readonly algorithm: VerityAlgorithm;
}

const IMAGE_MAX_BYTES = 2 ** 31 - 1;

/** Writes an image file and returns its digest. `out` appears whole or not at all. */
export async function createImage(host: Host, options: CreateImageOptions): Promise<VerityDigest> {
  const { algorithm, formatVersion } = options;
  const tree = options.fromDump
    ? parseDump(options.source === '-' ? await options.readStdin() : fs.readFileSync(options.source), { algorithm })
    : readSource(host, options);
  const { bytes } = writeValidTree(tree, { minVersion: formatVersion, maxVersion: formatVersion });
  const { directory, name } = split(options.out);
  const temporary = `${directory}/${temporaryName(name)}`;
  createFile(temporary, bytes, 0o644);
  fs.renameSync(temporary, options.out);
  return fsverityDigest(algorithm, bytes);
}

function readSource(host: Host, options: CreateImageOptions): ValidTree {
  const tree = readWithStore(host, options);
  assertValidTree(tree, options);
  return tree;
}

function readWithStore(host: Host, { source, digestStore, algorithm }: CreateImageOptions): DirectoryNode {
  const read = (sink: ObjectSink): DirectoryNode =>
    readDirectoryTree(source, sink, { listXattrs: (path) => host.syscalls.listXattrs(path) });
  if (digestStore === undefined) return read(measuringSink(algorithm));
  const store = new ObjectStore(host, openDigestStore(host, digestStore, algorithm));
  try {
    const tree = read(store);
    store.barrier();
    return tree;
  } finally {
    store.close();
  }
}

/** The canonical dump of an image file, in pieces. */
export function dumpImage(path: string): Generator<string, void> {
  const bytes = readImageFile(path);
  return formatDump(readComposefsImage(bytes));
}

/** Every entry of an image file, depth first in byte order. */
export function listImage(path: string): Generator<WalkedEntry, void> {
  return walkTree(readComposefsImage(readImageFile(path)));
}

export function objectsOfImage(path: string): ImageObject[] {
  return imageObjects(readImageFile(path));
}

/** Objects that the image needs and the store does not have. */
export function missingObjects(path: string, digestStore: string): ImageObject[] {
  return objectsOfImage(path).filter((object) => object.path === undefined || !exists(`${digestStore}/${object.path}`));
}

/** Every byte range of an image with its record and fields. */
export function* inspectImageFile(path: string): Generator<string, void> {
  for (const line of inspectImage(readImageFile(path))) yield `${line}\n`;
}

/** fs-verity digest of a file, as `fsverity digest` computes it. */
export function digestFile(path: string, algorithm: VerityAlgorithm): VerityDigest {
  const fd = fs.openSync(path, 'r');
  try {
    return digestOfFile(fd, algorithm);
  } finally {
    fs.closeSync(fd);
  }
}

/** An image file, if it is not too large to be one. */
export function readImageFile(path: string): Uint8Array {
  const { size } = fs.statSync(path);
  if (size > IMAGE_MAX_BYTES) {
    throw new HostctlError('image-unsupported', `"${path}" has ${size} bytes, more than ${IMAGE_MAX_BYTES}`);
  }
  return fs.readFileSync(path);
}
