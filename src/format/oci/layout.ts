/**
 * OCI layouts (image-spec image-layout.md): the version file, and which entry of `index.json` a tag means. A layout
 * is a directory of blobs; its tags are annotations of the entries.
 */

import { HostctlError } from '../../errors.ts';
import { displayRaw, rawFromText } from '../../tree/name.ts';
import type { Descriptor } from './descriptor.ts';
import { optionalString } from './fields.ts';
import { isImageEntry } from './index.ts';
import { parseJsonObject } from './json.ts';

export const REF_NAME_ANNOTATION = 'org.opencontainers.image.ref.name';
export const MAX_LAYOUT_FILE_BYTES = 4096;

/** Refuses a layout of any version but 1.0.0. */
export function checkOciLayout(bytes: Uint8Array): void {
  const document = parseJsonObject(bytes, 'File "oci-layout"', MAX_LAYOUT_FILE_BYTES);
  const version = optionalString(document, 'imageLayoutVersion', 'File "oci-layout"');
  if (version !== '1.0.0') {
    throw new HostctlError('image-unsupported', `Layout has the version "${shown(version ?? '')}" instead of "1.0.0"`);
  }
}

/** The entry that `tag` means, or without a tag the only one there is. */
export function chooseByTag(entries: readonly Descriptor[], tag: string | undefined): Descriptor {
  const images = entries.filter(isImageEntry);
  const fitting =
    tag === undefined ? images : images.filter((entry) => entry.annotations.get(REF_NAME_ANNOTATION) === tag);
  const [first] = fitting;
  if (first === undefined) {
    const what = tag === undefined ? 'no image' : `no image tagged "${shown(tag)}"`;
    throw new HostctlError('image-not-found', `Layout holds ${what}${listing(images)}`);
  }
  if (fitting.length === 1 || (tag !== undefined && fitting.every((entry) => entry.digest === first.digest)))
    return first;
  if (tag !== undefined)
    throw new HostctlError('image-invalid', `Layout holds different images tagged "${shown(tag)}"`);
  throw new HostctlError('usage', `Layout holds ${images.length} images${listing(images)}`, {
    hint: 'Name one of them: oci:DIR:TAG.',
  });
}

function listing(images: readonly Descriptor[]): string {
  if (images.length === 0) return '';
  const names = images.slice(0, 20).map((entry) => shown(entry.annotations.get(REF_NAME_ANNOTATION) ?? entry.digest));
  return `, but ${names.map((name) => `"${name}"`).join(', ')}${images.length > 20 ? ', …' : ''}`;
}

function shown(text: string): string {
  return displayRaw(rawFromText(text.slice(0, 200)));
}
