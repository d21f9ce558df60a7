/**
 * Bound images: application images that a host image needs, each named by a quadlet file that a symlink in
 * `/usr/lib/bootc/bound-images.d` leads to. A deployment has all of them or is not made, and keeps them as long as it
 * stays.
 */

import type { BoundImage } from '../deploy/origin.ts';
import { HostctlError } from '../errors.ts';
import { withContext } from '../format/error-context.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { quadletImage } from '../format/quadlet.ts';
import type { ImageSource } from '../image/source.ts';
import { listRefs, removeRef } from '../store/images.ts';
import type { ObjectStore } from '../store/objects.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { lookupDirectory, resolve } from '../tree/lookup.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import type { DirectoryNode } from '../tree/node.ts';
import { smallText, type ContentOf } from './boot-facts.ts';
import { checkImageRoom } from './image-room.ts';
import { ownerOfRef } from './image-refs.ts';
import { storeImage } from './store-image.ts';
import { openImage } from './with-image.ts';

const DIRECTORY = 'usr/lib/bootc/bound-images.d';

/** References that a host image is bound to, as its files name them. Throws 'image-invalid' for a file that names none. */
export function boundReferences(tree: DirectoryNode, contentOf: ContentOf): string[] {
  const directory = lookupDirectory(tree, DIRECTORY);
  const references = [...(directory?.entries ?? [])].map(([raw, entry]) => {
    const name = displayRaw(raw);
    if (entry.kind !== 'symlink') throw new HostctlError('image-invalid', `"/${DIRECTORY}/${name}" is no symlink`);
    const text = smallText(resolve(tree, `${DIRECTORY}/${raw}` as RawName), contentOf);
    if (text === undefined) {
      const target = displayRaw(entry.target);
      throw new HostctlError('image-invalid', `"/${DIRECTORY}/${name}" leads to no small file: "${target}"`);
    }
    return quadletImage(name, text);
  });
  return [...new Set(references)].sort();
}

/** Puts every one of them into the repository; all are looked for before the first is read. */
export async function storeBoundImages(
  host: Host,
  repository: Repository,
  references: readonly string[],
  store: ObjectStore,
): Promise<BoundImage[]> {
  const sources: { readonly reference: string; readonly source: ImageSource }[] = [];
  try {
    for (const reference of references) {
      sources.push({ reference, source: await about(reference, () => openImage(host, reference, repository.path)) });
    }
    const bound: BoundImage[] = [];
    for (const { reference, source } of sources) {
      const { digest } = await about(reference, async () => {
        await checkImageRoom(host, repository, { source, objects: store }, (tree) => ({ tree, copied: [] }));
        return storeImage(host, repository, source, store);
      });
      bound.push({ reference: formatImageReference(source.reference), digest });
    }
    return bound;
  } finally {
    for (const { source } of sources) source.blobs.release();
  }
}

/** Names the bound image that an error is about. */
async function about<T>(reference: string, body: () => T | Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw withContext(`Cannot get the bound image "${reference}"`, error);
  }
}

/** Removes every ref of a deployment: of its image, and of those it is bound to. */
export function removeDeploymentRefs(repository: Repository, id: number): void {
  for (const ref of listRefs(repository).keys()) {
    const owner = ownerOfRef(ref);
    if (owner !== undefined && owner.kind !== 'name' && owner.id === id) removeRef(repository, ref);
  }
}
