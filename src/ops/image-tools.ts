/**
 * `image dump|ls|cat|list|inspect|remove`: looking at images, in a repository by digest or name, or anywhere by
 * reference. Reading only, but for `remove`, which takes a name away and nothing else.
 */

import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import { HostctlError } from '../errors.ts';
import { formatDump } from '../format/dump/format.ts';
import { imageObjects } from '../format/erofs/image-objects.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { measuringSink } from '../image/ingest.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { listImages, listRefs, readImage, readImageRecord, refComponent, removeRef } from '../store/images.ts';
import { requireRepository, withRepositoryLock, type Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { lookup } from '../tree/lookup.ts';
import { displayRaw } from '../tree/name.ts';
import type { DirectoryNode, FileNode, TreeNode, VerityDigest } from '../tree/node.ts';
import { childrenOf, walkTree, type WalkedEntry } from '../tree/walk.ts';
import { flattenImage, openImage } from './build.ts';
import { capturingSink } from './capture.ts';
import { imageRef } from './pull-image.ts';

export interface ImageToolOptions extends SysrootOptions {
  /** Digest in the repository, name it was pulled under, or any image reference. */
  readonly image: string;
}

const NAMES = 'hostctl-images/';

/** Path of the repository a command without a host works on. */
export function repositoryPath(host: Host, options: SysrootOptions): string {
  return options.repo ?? openSysroot(host, options).repo;
}

/** The digest an image has in the repository, by digest, name or unambiguous beginning; undefined when it is not one. */
export function findImage(repository: Repository, image: string): VerityDigest | undefined {
  const byName = listRefs(repository).get(imageRef(image));
  if (byName !== undefined) return byName;
  if (!/^[0-9a-f]{8,}$/.test(image)) return undefined;
  const matches = listImages(repository).filter((digest) => digest.startsWith(image));
  if (matches.length > 1) throw new HostctlError('usage', `"${image}" fits ${matches.length} images`);
  return matches[0];
}

/** Fails with 'image-not-found' unless the repository has the image. */
export function requireImage(repository: Repository, image: string): VerityDigest {
  const digest = findImage(repository, image);
  if (digest !== undefined) return digest;
  throw new HostctlError('image-not-found', `There is no image "${image}" in "${repository.path}"`, {
    hint: 'See "hostctl image list"; "hostctl image pull" stores one',
  });
}

interface OpenedTree {
  readonly tree: DirectoryNode;
  /** The bytes of a file of the tree. */
  readonly contentOf: (file: FileNode) => Promise<Iterable<Uint8Array>>;
}

async function openTree(host: Host, options: ImageToolOptions): Promise<OpenedTree> {
  if (/^[0-9a-f]+$/.test(options.image)) {
    const repository = requireRepository(host, repositoryPath(host, options));
    const tree = readComposefsImage(readImage(repository, requireImage(repository, options.image)));
    const content = repositoryContent(repository);
    return { tree, contentOf: (file) => Promise.resolve(content(file)) };
  }
  const source = openImage(host, options.image);
  const sink = measuringSink('sha512');
  return {
    tree: await flattenImage(host, source, sink),
    async contentOf({ content }) {
      if (content.kind === 'inline') return [content.bytes];
      // Nothing was kept: the layers are read once more for this one file.
      const capture = capturingSink(sink.algorithm, content);
      await flattenImage(host, source, capture.sink);
      return capture.chunks();
    },
  };
}

/** The flattened tree in the composefs dump format, in pieces. */
export async function dumpTree(host: Host, options: ImageToolOptions): Promise<Iterable<string>> {
  const { tree } = await openTree(host, options);
  return formatDump(tree);
}

/** What lies at `path`: the node itself, or the entries of a directory; everything below with `recursive`. */
export async function listFiles(
  host: Host,
  options: ImageToolOptions & { readonly path: string; readonly recursive: boolean },
): Promise<Iterable<WalkedEntry>> {
  const { tree } = await openTree(host, options);
  const node = requireNode(tree, options.path);
  const path = `/${options.path.split('/').filter(Boolean).join('/')}` as WalkedEntry['path'];
  if (options.recursive) return walkTree(node, path);
  return node.kind === 'directory' ? childrenOf(path, node) : [{ path, entry: node }];
}

/** The bytes of one file. */
export async function readFile(
  host: Host,
  options: ImageToolOptions & { readonly path: string },
): Promise<Iterable<Uint8Array>> {
  const { tree, contentOf } = await openTree(host, options);
  const node = requireNode(tree, options.path);
  if (node.kind !== 'file') {
    throw new HostctlError('image-not-found', `"${options.path}" is a ${node.kind} in the image, not a file`);
  }
  return contentOf(node);
}

function requireNode(tree: DirectoryNode, path: string): TreeNode {
  const node = lookup(tree, path);
  if (node !== undefined) return node;
  throw new HostctlError('image-not-found', `There is no "${path}" in the image`);
}

export interface ListedImage {
  readonly digest: VerityDigest;
  /** Names it was pulled under. */
  readonly names: readonly string[];
  /** Numbers of the deployments that use it. */
  readonly deployments: readonly number[];
}

/** Every image of the repository, by digest. */
export function listAllImages(host: Host, options: SysrootOptions): ListedImage[] {
  const repository = requireRepository(host, repositoryPath(host, options));
  const refs = [...listRefs(repository)];
  const below = (digest: VerityDigest, prefix: string): string[] =>
    refs
      .filter(([name, named]) => named === digest && name.startsWith(prefix))
      .map(([name]) => name.slice(prefix.length));
  return listImages(repository).map((digest) => ({
    digest,
    names: below(digest, NAMES).map((name) => name.replaceAll('%2F', '/').replaceAll('%25', '%')),
    deployments: below(digest, 'hostctl/').map(Number),
  }));
}

export interface InspectedImage {
  readonly digest?: VerityDigest;
  readonly parameters?: string;
  readonly xattrs?: string;
  readonly bootable?: boolean;
  readonly imageBytes?: number;
  readonly objects?: { readonly count: number; readonly bytes: number };
  readonly reference?: string;
  readonly manifestDigest?: string;
  readonly platform?: string;
  readonly created?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly layers?: readonly {
    readonly digest: string;
    readonly mediaType: string;
    readonly size: number;
    readonly diffId: string;
  }[];
}

/** What is known of an image: of one in the repository how it was made, of a reference what it leads to here. */
export function inspectImage(host: Host, options: ImageToolOptions): InspectedImage {
  if (/^[0-9a-f]+$/.test(options.image)) {
    const repository = requireRepository(host, repositoryPath(host, options));
    const digest = requireImage(repository, options.image);
    const bytes = readImage(repository, digest);
    const objects = imageObjects(bytes);
    return {
      digest,
      ...readImageRecord(repository, digest),
      imageBytes: bytes.length,
      objects: { count: objects.length, bytes: objects.reduce((sum, { size }) => sum + size, 0) },
    };
  }
  const source = openImage(host, options.image);
  const { os, architecture, variant } = source.config.platform;
  return {
    reference: formatImageReference(source.reference),
    manifestDigest: source.manifestDigest,
    platform: [os, architecture, variant].filter((part) => part !== undefined).join('/'),
    ...(source.config.created === undefined ? {} : { created: source.config.created }),
    labels: Object.fromEntries([...source.config.labels].map(([key, value]) => [displayRaw(key as never), value])),
    layers: source.layers.map(({ descriptor, diffId }) => ({
      digest: descriptor.digest,
      mediaType: descriptor.mediaType,
      size: descriptor.size,
      diffId,
    })),
  };
}

/** Takes a name away; the image goes when nothing names it any more. */
export function removeImageName(host: Host, options: ImageToolOptions): Promise<{ readonly digest: VerityDigest }> {
  const path = repositoryPath(host, options);
  const repository = requireRepository(host, path);
  return withRepositoryLock(host, path, 'exclusive', () => {
    const name = `${NAMES}${refComponent(options.image)}`;
    const digest = listRefs(repository).get(name);
    if (digest === undefined) {
      throw new HostctlError('image-not-found', `No image in "${path}" has the name "${options.image}"`, {
        hint: 'See "hostctl image list"',
      });
    }
    removeRef(repository, name);
    return Promise.resolve({ digest });
  });
}
