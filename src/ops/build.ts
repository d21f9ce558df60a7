/** From the layers of an image to its tree. */

import type { ImageParameters } from '../format/cmdline.ts';
import { buildTree, type BuiltTree, type BuildTreeOptions } from '../image/build.ts';
import type { ImageSource } from '../image/source.ts';
import type { XattrMode } from '../image/xattr-filter.ts';
import type { ObjectCounts } from '../store/objects.ts';
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

export type ReadTreesOptions = Pick<BuildTreeOptions, 'keep' | 'xattrMode' | 'baseLayers' | 'known' | 'onRead'>;

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
  options: ReadTreesOptions,
): Promise<BuiltTree> {
  const known = new Set([...(options.known?.keys() ?? [])].map(({ diffId }) => diffId));
  await source.blobs.fetch((diffId) => known.has(diffId));
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

/** Limits that leave one version of the format; those of the writer where it is open. */
export function exactly(version: ImageParameters['formatVersion'] | undefined): {
  minVersion?: ImageParameters['formatVersion'];
  maxVersion?: ImageParameters['formatVersion'];
} {
  return version === undefined ? {} : { minVersion: version, maxVersion: version };
}
