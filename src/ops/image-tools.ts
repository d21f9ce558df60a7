/**
 * `image dump|ls|cat|inspect`: looking into images, in a repository by digest or name, or anywhere by reference. Reading
 * only.
 */

import { repositoryContent } from '../deploy/materialize.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { formatDump } from '../format/dump/format.ts';
import { imageObjects } from '../format/erofs/image-objects.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { formatPlatform } from '../format/oci/index.ts';
import { digestsOfDocuments, type StatedDigest } from '../image/stated-digests.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { measuringSink } from '../image/ingest.ts';
import type { ImageSource, IndexChoice } from '../image/source.ts';
import { readImageRecord, type ImageLayout } from '../store/image-record.ts';
import { readImage } from '../store/images.ts';
import type { Host } from '../sys/host.ts';
import { lookup } from '../tree/lookup.ts';
import { displayRaw } from '../tree/name.ts';
import type { DirectoryNode, FileNode, TreeNode, VerityDigest } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';
import { childrenOf, walkTree, type WalkedEntry } from '../tree/walk.ts';
import { flattenImage } from './build.ts';
import { capturingSink } from './capture.ts';
import { findStored, type ImageToolOptions } from './find-image.ts';
import { imageOwners, type ImageOwners } from './list-images.ts';
import { judgeStatedDigests, type DigestMaking } from './stated-digests.ts';
import { withImage } from './with-image.ts';

interface OpenedTree {
  readonly tree: DirectoryNode;
  /** The bytes of a file of the tree. */
  readonly contentOf: (file: FileNode) => Promise<Iterable<Uint8Array>>;
}

/** Gives `body` the tree of an image; what it returns must need nothing more of the image. */
async function withTree<T>(
  host: Host,
  options: ImageToolOptions,
  body: (opened: OpenedTree) => Promise<T>,
): Promise<T> {
  const stored = findStored(host, options);
  if (stored !== undefined) {
    const tree = readComposefsImage(readImage(stored.repository, stored.digest));
    const content = repositoryContent(stored.repository);
    return body({ tree, contentOf: (file) => Promise.resolve(content(file)) });
  }
  return withImage(host, options.image, undefined, async (source) => {
    const sink = measuringSink('sha512');
    return body({ tree: await flattenImage(host, source, sink), contentOf: layerContent(host, source, sink) });
  });
}

/** Contents of a tree of which nothing was kept: the layers are read once more for each file. */
function layerContent(host: Host, source: ImageSource, { algorithm }: ObjectSink): OpenedTree['contentOf'] {
  return async ({ content }) => {
    if (content.kind === 'inline') return [content.bytes];
    const capture = capturingSink(algorithm, content);
    await flattenImage(host, source, capture.sink);
    return capture.chunks();
  };
}

/** The flattened tree in the composefs dump format, in pieces. */
export function dumpTree(host: Host, options: ImageToolOptions): Promise<Iterable<string>> {
  return withTree(host, options, ({ tree }) => Promise.resolve(formatDump(tree)));
}

/** What lies at `path`: the node itself, or the entries of a directory; everything below with `recursive`. */
export function listFiles(
  host: Host,
  options: ImageToolOptions & { readonly path: string; readonly recursive: boolean },
): Promise<Iterable<WalkedEntry>> {
  return withTree<Iterable<WalkedEntry>>(host, options, ({ tree }) => {
    const node = requireNode(tree, options.path);
    const path = `/${options.path.split('/').filter(Boolean).join('/')}` as WalkedEntry['path'];
    if (options.recursive) return Promise.resolve(walkTree(node, path));
    return Promise.resolve(node.kind === 'directory' ? childrenOf(path, node) : [{ path, entry: node }]);
  });
}

/** The bytes of one file. */
export function readFile(
  host: Host,
  options: ImageToolOptions & { readonly path: string },
): Promise<Iterable<Uint8Array>> {
  return withTree(host, options, ({ tree, contentOf }) => {
    const node = requireNode(tree, options.path);
    if (node.kind !== 'file') {
      throw new HostctlError('image-not-found', `"${options.path}" is a ${node.kind} in the image, not a file`);
    }
    return contentOf(node);
  });
}

function requireNode(tree: DirectoryNode, path: string): TreeNode {
  const node = lookup(tree, path);
  if (node !== undefined) return node;
  throw new HostctlError('image-not-found', `There is no "${path}" in the image`);
}

/** A digest that an image states, and how the image is made to have it: null where it never has, absent if not compared. */
export type StatedRecord = StatedDigest & { readonly fits?: DigestMaking | null };

export interface InspectedImage {
  readonly digest?: VerityDigest;
  readonly parameters?: string;
  readonly xattrs?: string;
  readonly bootable?: boolean;
  readonly layout?: ImageLayout;
  /** What it is laid over, if anything. */
  readonly base?: VerityDigest;
  readonly imageBytes?: number;
  readonly objects?: { readonly count: number; readonly bytes: number };
  readonly owners?: ImageOwners;
  readonly reference?: string;
  readonly manifestDigest?: string;
  readonly platform?: string;
  /** What there was to choose from, and why this one was chosen. */
  readonly index?: readonly IndexChoice[];
  readonly created?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly stated?: readonly StatedRecord[];
  readonly layers?: readonly {
    readonly digest: string;
    readonly mediaType: string;
    readonly size: number;
    readonly diffId: string;
  }[];
}

/** What is known of an image: of one in the repository how it was made, of a reference what it leads to here. */
export async function inspectImage(host: Host, options: ImageToolOptions): Promise<InspectedImage> {
  const stored = findStored(host, options);
  if (stored !== undefined) {
    const { repository, digest } = stored;
    const bytes = readImage(repository, digest);
    const objects = imageObjects(bytes);
    const { parameters, xattrs, bootable, parts } = readImageRecord(repository, digest);
    return {
      digest,
      ...(parameters === undefined ? {} : { parameters }),
      ...(xattrs === undefined ? {} : { xattrs }),
      ...(bootable === undefined ? {} : { bootable }),
      layout: parts?.layout ?? 'flat',
      ...(parts === undefined ? {} : { base: parts.base }),
      imageBytes: bytes.length,
      objects: { count: objects.length, bytes: objects.reduce((sum, { size }) => sum + size, 0) },
      owners: imageOwners(host, repository)(digest),
    };
  }
  return withImage(host, options.image, undefined, (source) => describeSource(host, source));
}

async function describeSource(host: Host, source: ImageSource): Promise<InspectedImage> {
  return {
    reference: formatImageReference(source.reference),
    manifestDigest: source.manifestDigest,
    platform: formatPlatform(source.config.platform),
    ...(source.choice.length === 0 ? {} : { index: source.choice }),
    ...(source.config.created === undefined ? {} : { created: source.config.created }),
    labels: Object.fromEntries([...source.config.labels].map(([key, value]) => [displayRaw(key as never), value])),
    stated: await statedRecords(host, source),
    layers: source.layers.map(({ descriptor, diffId }) => ({
      digest: descriptor.digest,
      mediaType: descriptor.mediaType,
      size: descriptor.size,
      diffId,
    })),
  };
}

/** Reads the layers, which must lie on this host for that: looking at an image downloads nothing. */
async function statedRecords(host: Host, source: ImageSource): Promise<StatedRecord[]> {
  if (source.reference.transport !== 'oci') return digestsOfDocuments(source);
  const sink = measuringSink('sha512');
  try {
    const tree = await flattenImage(host, source, sink);
    const contentOf = layerContent(host, source, sink);
    const { stated } = await judgeStatedDigests(host, source, { tree, algorithm: sink.algorithm, contentOf });
    return stated.map(({ fits = null, ...each }) => ({ ...each, fits }));
  } catch (error) {
    if (!isHostctlError(error, 'image-invalid', 'image-unsupported', 'image-not-found')) throw error;
    host.log.warn(`Cannot compare what the image states of itself: ${error.message}`);
    return digestsOfDocuments(source);
  }
}
