/**
 * The refs that hostctl makes below `images/refs`, each of which keeps an image: of a deployment, of a name it was
 * pulled under, and of the application images that a deployment is bound to.
 */

import type { Origin } from '../deploy/origin.ts';
import { isHostctlError } from '../errors.ts';
import { formatImageReference, parseImageReference } from '../format/oci/reference.ts';
import { refComponent, refText } from '../store/images.ts';
import type { VerityDigest } from '../tree/node.ts';

/** What a ref keeps its image for. */
export type ImageOwner =
  | { readonly kind: 'host'; readonly id: number }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'bound'; readonly id: number; readonly name: string };

const DEPLOYMENTS = 'hostctl/';
const NAMES = 'hostctl-images/';
const BOUND = 'hostctl-bound/';

export function ownerRef(owner: ImageOwner): string {
  switch (owner.kind) {
    case 'host':
      return `${DEPLOYMENTS}${owner.id}`;
    case 'name':
      return `${NAMES}${refComponent(owner.name)}`;
    case 'bound':
      return `${BOUND}${owner.id}:${refComponent(owner.name)}`;
  }
}

/** Whose a ref is; undefined for one that another tool made. */
export function ownerOfRef(ref: string): ImageOwner | undefined {
  const host = /^hostctl\/([0-9]+)$/.exec(ref)?.[1];
  if (host !== undefined) return { kind: 'host', id: Number(host) };
  const name = /^hostctl-images\/([^/]+)$/.exec(ref)?.[1];
  if (name !== undefined) return { kind: 'name', name: refText(name) };
  const [, id, bound] = /^hostctl-bound\/([0-9]+):([^/]+)$/.exec(ref) ?? [];
  if (id !== undefined && bound !== undefined) return { kind: 'bound', id: Number(id), name: refText(bound) };
  return undefined;
}

/** Every ref that a deployment has, with the image it names. */
export function refsOfOrigin({ id, digest, bound }: Origin): Map<string, VerityDigest> {
  return new Map([
    [ownerRef({ kind: 'host', id }), digest],
    ...bound.map((image) => [ownerRef({ kind: 'bound', id, name: image.reference }), image.digest] as const),
  ]);
}

/** The name that `image pull` gives what is typed so; as it stands where it is no reference. */
export function imageName(text: string): string {
  try {
    return formatImageReference(parseImageReference(text));
  } catch (error) {
    if (isHostctlError(error)) return text;
    throw error;
  }
}
