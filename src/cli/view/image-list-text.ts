/** Images of a repository, for people. Pure. */

import type { ImageOwners, ListedImage } from '../../ops/list-images.ts';
import { formatBytes } from './bytes.ts';

/** One line for each: digest, what keeps it, what it takes. */
export function imageListText(images: readonly ListedImage[]): string {
  return images
    .map((image) => {
      const { digest, layout, bytes } = image;
      const size =
        bytes === null
          ? 'unreadable'
          : `${formatBytes(bytes.uniqueBytes)} of its own, ${formatBytes(bytes.sharedBytes)} shared`;
      const how = layout === 'flat' ? '' : `${layout}, `;
      return `${digest} ${ownersText(image) || 'nothing keeps it'} (${how}${size})\n`;
    })
    .join('');
}

/** Empty when there are none. */
export function ownersText({ names, deployments, bound, mounts, over, others }: ImageOwners): string {
  return [
    ...names,
    ...deployments.map((id) => `deployment ${id}`),
    ...bound.map((id) => `bound to deployment ${id}`),
    ...mounts.map((place) => `mounted on "${place}"`),
    ...(over.length === 0 ? [] : [`base of ${over.length} image${over.length > 1 ? 's' : ''}`]),
    ...others.map((ref) => `ref "${ref}"`),
  ].join(', ');
}
