/**
 * `image export`: the tree of an image as a tar archive, with everything a tar archive can hold. Needs no root: nothing
 * is unpacked, and the contents are read from the object store.
 */

import { repositoryContent } from '../deploy/materialize.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import type { TarEntryType } from '../format/tar/entry.ts';
import { TAR_END, tarHeaders, tarPadding, type WrittenEntry } from '../format/tar/writer.ts';
import { readImage } from '../store/images.ts';
import { requireRepository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { contentSize, decodeDevice, inodeOf, type LeafNode, type TreeNode } from '../tree/node.ts';
import { walkTree } from '../tree/walk.ts';
import { repositoryPath, requireImage, type ImageToolOptions } from './find-image.ts';

/** The archive in pieces; a piece is used before the next one is asked for. Throws 'image-not-found' at once. */
export function exportImage(host: Host, options: ImageToolOptions): Iterable<Uint8Array> {
  const repository = requireRepository(host, repositoryPath(host, options));
  const tree = readComposefsImage(readImage(repository, requireImage(host, repository, options)));
  return archive(host, tree, repositoryContent(repository));
}

function* archive(
  host: Host,
  tree: TreeNode,
  contentOf: ReturnType<typeof repositoryContent>,
): Generator<Uint8Array, void> {
  const written = new Map<LeafNode, RawName>();
  for (const { path, entry } of walkTree(tree)) {
    const node = inodeOf(entry);
    const { kind } = node;
    if (kind === 'socket') {
      host.log.warn(`"${displayRaw(path)}" is a socket, which no tar archive can hold`);
      continue;
    }
    const name = path.slice(1) as RawName;
    const first = node.kind === 'directory' ? undefined : written.get(node);
    const header = first === undefined ? entryOf(name, node, kind) : linkTo(name, first, node);
    yield tarHeaders(header);
    if (node.kind === 'directory' || first !== undefined) continue;
    if (node.nlink > 1) written.set(node, name);
    if (node.kind !== 'file') continue;
    yield* contentOf(node);
    yield tarPadding(header.size);
  }
  yield TAR_END;
}

function entryOf(name: RawName, node: TreeNode, type: TarEntryType): WrittenEntry {
  const { kind, mode, uid, gid, mtime, xattrs } = node;
  const device = kind === 'char' || kind === 'block' ? decodeDevice(node.rdev) : { major: 0, minor: 0 };
  return {
    type,
    name: kind === 'directory' ? (`${name === '' ? '.' : name}/` as RawName) : name,
    linkname: kind === 'symlink' ? node.target : ('' as RawName),
    mode,
    uid,
    gid,
    mtime,
    size: kind === 'file' ? contentSize(node.content) : 0,
    devMajor: device.major,
    devMinor: device.minor,
    xattrs,
  };
}

function linkTo(name: RawName, first: RawName, node: TreeNode): WrittenEntry {
  return { ...entryOf(name, node, 'hardlink'), linkname: first, size: 0, devMajor: 0, devMinor: 0 };
}
