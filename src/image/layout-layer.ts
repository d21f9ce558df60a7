/**
 * Puts one more layer on an image in an OCI layout: its blobs, and then the entry in `index.json`, which leads to the
 * new manifest from then on. The old one stays, without a name.
 */

import { HostctlError } from '../errors.ts';
import { addLayer, pointedTo, type LayerHistory } from '../format/oci/add-layer.ts';
import type { OciDigest } from '../format/oci/digest.ts';
import { REF_NAME_ANNOTATION } from '../format/oci/layout.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { editIndex, writeBlob, type IndexEntry } from './layout-artifact.ts';
import type { ImageSource } from './source.ts';

/** Returns the digest of the new manifest. Throws 'image-unsupported' for an image that is not named by `index.json`. */
export function putLayer(source: ImageSource, tar: Uint8Array, history: LayerHistory): OciDigest {
  const { reference, manifestDigest } = source;
  if (reference.transport !== 'oci') {
    throw new HostctlError('image-unsupported', `Cannot add a layer to "${formatImageReference(reference)}"`, {
      hint: 'Copy the image into an OCI layout, oci:DIR[:TAG], and from there to where it belongs',
    });
  }
  const { manifest, config, layer } = addLayer(source, tar, history);
  const isMeant = (entry: IndexEntry): boolean =>
    entry['digest'] === manifestDigest &&
    (reference.tag === undefined || entry.annotations?.[REF_NAME_ANNOTATION] === reference.tag);
  for (const blob of [layer, config, manifest]) writeBlob(reference.path, blob);
  const { digest, size } = manifest.descriptor;
  editIndex(reference.path, (entries) => {
    if (entries.filter(isMeant).length !== 1) {
      throw new HostctlError(
        'image-unsupported',
        `The index of "${formatImageReference(reference)}" does not name the manifest ${manifestDigest} once`,
        { hint: 'An image for several architectures is put together after this was done to each' },
      );
    }
    return entries.map((entry) => (isMeant(entry) ? pointedTo(entry, { digest, size }) : entry));
  });
  return digest;
}
