/** An image in the form that is booted, from its layers into the repository. */

import type { ImageParameters } from '../format/cmdline.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import type { BootFiles } from '../image/boot-files.ts';
import { bootableTree, type BootableTree } from '../image/build.ts';
import type { ImageSource } from '../image/source.ts';
import { commitImage } from '../store/images.ts';
import type { ObjectStore } from '../store/objects.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode } from '../tree/node.ts';
import { exactly, XATTR_MODE, type StoredImage } from './build.ts';
import { withStoredLayers } from './stored-layers.ts';

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
export function storeBootableImage(
  host: Host,
  repository: Repository,
  source: ImageSource,
  objects: ObjectStore,
  judge: (flat: DirectoryNode, bootFiles: BootFiles) => Promise<JudgedBoot>,
): Promise<StoredImage & BootableTree> {
  return withStoredLayers(host, repository, source, objects, async (layers) => {
    const { tree: flat } = await layers.readTrees();
    const { tree, bootFiles: found } = bootableTree(flat);
    const { bootFiles, formatVersion } = await judge(flat, found);
    const { algorithm } = repository;
    const image = writeComposefsImage(tree, { algorithm, ...exactly(formatVersion) });
    const parameters: ImageParameters = { formatVersion: image.version, algorithm, logBlockSize: 12 };
    const diffIds = source.layers.map(({ diffId }) => diffId);
    const record = { parameters, xattrs: XATTR_MODE, bootable: true, layers: diffIds } as const;
    const digest = commitImage(repository, objects, image.bytes, record);
    layers.keep(digest);
    return { digest, parameters, objects: objects.counts, tree, bootFiles };
  });
}
