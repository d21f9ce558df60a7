/** From an image reference to a composefs image in a repository. */

import { writeComposefsImage } from '../format/erofs/writer.ts';
import type { ImageParameters } from '../format/cmdline.ts';
import type { BootFiles } from '../image/boot-files.ts';
import { chunkedLayer } from '../format/zstd/chunked.ts';
import { bootableTree, buildTree, type BootableTree, type BuiltTree, type BuildTreeOptions } from '../image/build.ts';
import type { ImageSource } from '../image/source.ts';
import type { XattrMode } from '../image/xattr-filter.ts';
import { recordingSink, writeContents, type Contents } from '../store/contents.ts';
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
  return (await readTrees(host, source, sink, { keep, xattrMode })).tree;
}

/** The same, also of the lowest layers alone. */
export async function readTrees(
  host: Host,
  source: ImageSource,
  sink: ObjectSink,
  options: Pick<BuildTreeOptions, 'keep' | 'xattrMode' | 'baseLayers'>,
): Promise<BuiltTree> {
  await source.blobs.fetch();
  const built = await buildTree(source, {
    xattrMode: XATTR_MODE,
    ...options,
    sink,
    signal: host.signal,
    startFilter: (program, args) => host.exec.filter(program, args),
    threads: host.threads,
    log: (line) => host.log.debug(`run: ${line}`),
    progress: (done, total) => host.progress({ step: 'Reading layers', done, total, unit: 'bytes' }),
  });
  for (const warning of built.warnings) host.log.warn(warning);
  return built;
}

/** By what an image is to boot here. */
export interface JudgedBoot {
  readonly bootFiles: BootFiles;
  /** Of the format, where it has to be one. */
  readonly formatVersion: ImageParameters['formatVersion'] | undefined;
}

/**
 * Stores an image in the form that is booted, and gives its tree and boot files.
 * @param judge - may refuse the image before it is one that can be mounted, given its tree with `/boot`
 */
export async function storeBootableImage(
  host: Host,
  repository: Repository,
  source: ImageSource,
  objects: ObjectStore,
  judge: (flat: DirectoryNode, bootFiles: BootFiles) => Promise<JudgedBoot>,
): Promise<StoredImage & BootableTree> {
  const { sink, contents } = takeDownContents(source, objects);
  const flat = await flattenImage(host, source, sink);
  const { tree, bootFiles: found } = bootableTree(flat);
  const { bootFiles, formatVersion } = await judge(flat, found);
  const { algorithm } = repository;
  const image = writeComposefsImage(tree, { algorithm, ...exactly(formatVersion) });
  const parameters: ImageParameters = { formatVersion: image.version, algorithm, logBlockSize: 12 };
  const digest = commitImage(repository, objects, image.bytes, { parameters, xattrs: XATTR_MODE, bootable: true });
  writeContents(repository.path, digest, contents);
  return { digest, parameters, objects: objects.counts, tree, bootFiles };
}

/** Limits that leave one version of the format; those of the writer where it is open. */
export function exactly(version: ImageParameters['formatVersion'] | undefined): {
  minVersion?: ImageParameters['formatVersion'];
  maxVersion?: ImageParameters['formatVersion'];
} {
  return version === undefined ? {} : { minVersion: version, maxVersion: version };
}

/** Where layers can be fetched in parts, takes down which object holds what, so that the next image needs less. */
export function takeDownContents(
  source: ImageSource,
  objects: ObjectStore,
): { readonly sink: ObjectSink; readonly contents: Contents } {
  const isChunked = source.layers.some(({ descriptor }) => chunkedLayer(descriptor) !== undefined);
  const contents = new Map<string, VerityDigest>();
  return { sink: isChunked ? recordingSink(objects, contents) : objects, contents };
}
