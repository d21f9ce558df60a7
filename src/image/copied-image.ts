/**
 * An image of an archive, a directory or the containers' storage of this host: copied whole by skopeo into a directory,
 * manifests and blobs as they are, and read there. The layout of such a directory is that of the `dir:` transport.
 */

import * as fs from 'node:fs';
import { withContext } from '../format/error-context.ts';
import { HostctlError } from '../errors.ts';
import type { Descriptor, Platform } from '../format/oci/descriptor.ts';
import { digestLike, type OciDigest } from '../format/oci/digest.ts';
import { describeDocument, MAX_MANIFEST_BYTES } from '../format/oci/manifest.ts';
import { mediaTypeRole } from '../format/oci/media-types.ts';
import { formatImageReference, type ImageReference } from '../format/oci/reference.ts';
import type { BlobCache } from '../store/blob-cache.ts';
import { exists, removeQuietly } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { archiveReferrers } from './archive-referrers.ts';
import { readBlob, readLayoutFile } from './blob.ts';
import { LAYERS_IN_PLACE } from './layer-blobs.ts';
import { copyAll } from './skopeo.ts';
import { resolveImage, withLayerFiles, type ImageSource } from './source.ts';

type CopiedReference = Exclude<ImageReference, { readonly transport: 'docker' | 'oci' }>;

/** Copies and resolves an image for `platform`; the copy ends with `release` of its blobs. */
export async function openCopiedImage(
  host: Host,
  reference: CopiedReference,
  platform: Platform,
  cache: BlobCache,
): Promise<ImageSource> {
  try {
    const isStorage = reference.transport === 'containers-storage';
    if (!isStorage && !exists(reference.path)) {
      throw new HostctlError('image-not-found', `There is no "${reference.path}"`);
    }
    await cache.open();
    const work = cache.makeWorkDirectory();
    const directory = `${work}/image`;
    const failure = isStorage ? 'image-not-found' : 'image-invalid';
    host.log.info(`Copying "${formatImageReference(reference)}"`);
    // Storage keeps of an index only the image that was pulled.
    await copyAll(host, { name: formatImageReference(reference), failure }, { directory, work, all: !isStorage });
    const source = resolveCopy(reference, directory, platform);
    const release = (): void => {
      removeQuietly(work);
      cache.close();
    };
    const referrers =
      reference.transport === 'oci-archive'
        ? archiveReferrers(reference.path, `${work}/beside`, source.manifestDigest)
        : source.referrers;
    return { ...source, referrers, blobs: { ...LAYERS_IN_PLACE, release } };
  } catch (error) {
    throw withContext(`Cannot use "${formatImageReference(reference)}"`, error);
  }
}

function resolveCopy(reference: CopiedReference, directory: string, platform: Platform): ImageSource {
  const fileOf = ({ digest, mediaType }: Descriptor): string => {
    const { role } = mediaTypeRole(mediaType);
    const suffix = role === 'manifest' || role === 'index' ? '.manifest.json' : '';
    return `${directory}/${digest.slice(digest.indexOf(':') + 1)}${suffix}`;
  };
  const bytes = readLayoutFile(`${directory}/manifest.json`, MAX_MANIFEST_BYTES);
  const top: Descriptor = {
    ...describeDocument(bytes),
    digest: digestLike('sha256:' as OciDigest, bytes),
    annotations: new Map(),
  };
  fs.renameSync(`${directory}/manifest.json`, fileOf(top));
  // Both hand out layers unpacked, named by their diff ids, and leave the media type of the packed ones.
  const isUnpacked = reference.transport === 'docker-archive' || reference.transport === 'containers-storage';
  const resolving = resolveImage(top, platform, { isUnpacked });
  let step = resolving.next();
  while (step.done !== true) {
    const { descriptor, what, maxBytes } = step.value;
    step = resolving.next(readBlob(fileOf(descriptor), descriptor, what, maxBytes));
  }
  return withLayerFiles(reference, step.value, ({ descriptor }) => ({ blobFile: fileOf(descriptor) }), LAYERS_IN_PLACE);
}
