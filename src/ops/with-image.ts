/** Opens images by whatever transport, and closes what that needed. */

import { parseImageReference } from '../format/oci/reference.ts';
import type { Platform } from '../format/oci/descriptor.ts';
import { openCopiedImage } from '../image/copied-image.ts';
import { openRegistryImage } from '../image/registry-image.ts';
import { openReader } from '../image/registry/reader.ts';
import { openImageSource, type ImageSource } from '../image/source.ts';
import { BlobCache } from '../store/blob-cache.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';

/**
 * Opens an image for this host's architecture. Manifest and config are here then, layers only after `fetch` of its
 * blobs, which the caller releases.
 * @param repository - path of the repository whose cache holds what is fetched; without one it is gone afterwards
 */
export async function openImage(host: Host, image: string, repository: string | undefined): Promise<ImageSource> {
  const reference = parseImageReference(image);
  const platform: Platform = { os: 'linux', architecture: host.architecture };
  if (reference.transport === 'oci') return openImageSource(reference, platform);
  // What is copied is copied at once, so that its place must be there.
  const isPlace = reference.transport === 'docker' || (repository !== undefined && isDirectory(repository));
  const cache = new BlobCache(host, isPlace ? repository : undefined);
  try {
    return reference.transport === 'docker'
      ? await openRegistryImage(host, reference, { reader: openReader(host, reference.name), platform, cache })
      : await openCopiedImage(host, reference, platform, cache);
  } catch (error) {
    cache.close();
    throw error;
  }
}

/** Runs `body` with an opened image. */
export async function withImage<T>(
  host: Host,
  image: string,
  repository: string | undefined,
  body: (source: ImageSource) => Promise<T>,
): Promise<T> {
  const source = await openImage(host, image, repository);
  try {
    return await body(source);
  } finally {
    source.blobs.release();
  }
}
