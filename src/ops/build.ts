/** From an image reference to a composefs image in a repository. */

import { writeComposefsImage } from '../format/erofs/writer.ts';
import type { ImageParameters } from '../format/cmdline.ts';
import { bootableTree, buildTree, type BootableTree } from '../image/build.ts';
import type { ImageSource } from '../image/source.ts';
import type { XattrMode } from '../image/xattr-filter.ts';
import { commitImage } from '../store/images.ts';
import type { ObjectCounts, ObjectStore } from '../store/objects.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, VerityDigest } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';

/** The xattrs of layers that go into an image. */
export const XATTR_MODE = 'allowlist-only';

export interface StoredImage {
  readonly digest: VerityDigest;
  readonly parameters: ImageParameters;
  readonly objects: ObjectCounts;
}

/** Fetches and reads all layers of an image into its tree; large contents go to `sink`, those of files to `keep` also stay there. */
export async function flattenImage(
  host: Host,
  source: ImageSource,
  sink: ObjectSink,
  keep: (path: string) => boolean = () => false,
  xattrMode: XattrMode = XATTR_MODE,
): Promise<DirectoryNode> {
  await source.blobs.fetch();
  const { tree, warnings } = await buildTree(source, {
    sink,
    signal: host.signal,
    startFilter: (program, args) => host.exec.filter(program, args),
    threads: host.threads,
    log: (line) => host.log.debug(`run: ${line}`),
    xattrMode,
    keep,
    progress: (done, total) => host.progress({ step: 'Reading layers', done, total, unit: 'bytes' }),
  });
  for (const warning of warnings) host.log.warn(warning);
  return tree;
}

/** Stores an image as it is. */
export async function storeImage(
  host: Host,
  repository: Repository,
  source: ImageSource,
  objects: ObjectStore,
): Promise<StoredImage> {
  return commit(repository, objects, await flattenImage(host, source, objects), false);
}

/**
 * Stores an image in the form that is booted, and gives its tree and boot files.
 * @param judge - may refuse the image before it is one that can be mounted, given its tree with `/boot` and its digest
 */
export async function storeBootableImage(
  host: Host,
  repository: Repository,
  source: ImageSource,
  objects: ObjectStore,
  judge: (flat: DirectoryNode) => Promise<void>,
): Promise<StoredImage & BootableTree> {
  const flat = await flattenImage(host, source, objects);
  const bootable = bootableTree(flat);
  await judge(flat);
  return { ...commit(repository, objects, bootable.tree, true), ...bootable };
}

function commit(repository: Repository, objects: ObjectStore, tree: DirectoryNode, bootable: boolean): StoredImage {
  const { algorithm } = repository;
  const image = writeComposefsImage(tree, { algorithm });
  const parameters: ImageParameters = { formatVersion: image.version, algorithm, logBlockSize: 12 };
  const digest = commitImage(repository, objects, image.bytes, { parameters, xattrs: XATTR_MODE, bootable });
  return { digest, parameters, objects: objects.counts };
}
