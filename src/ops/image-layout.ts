/**
 * The rule by which an image is stored flat, or as a base that other images have in common with it and a delta over
 * that. The base is what its lowest layers are by themselves, the very image that a pull of these alone would make.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import type { ImageSource } from '../image/source.ts';
import { readImageRecord, type ImageLayout, type StoredRecord } from '../store/image-record.ts';
import { listImages } from '../store/images.ts';
import type { Repository } from '../store/repository.ts';
import { listNames } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { imageOwners } from './list-images.ts';

/** How an image is to be stored. */
export type LayoutPlan =
  | { readonly layout: 'flat' }
  | {
      readonly layout: 'split' | 'cached';
      /** How many of its layers, from the lowest, are the base. */
      readonly baseLayers: number;
      /** False where the rule chose: then it is stored flat after all if that takes hardly more. */
      readonly isAsked: boolean;
    };

const FLAT: LayoutPlan = { layout: 'flat' };

/**
 * Without a wish, an image that is here stays as it is, and one that begins with the same layers as another is split.
 * Throws 'image-unsupported' when what is asked for needs two layers and there is one.
 */
export function planLayout(repository: Repository, source: ImageSource, wish: ImageLayout | undefined): LayoutPlan {
  if (wish === 'flat') return FLAT;
  const own = source.layers.map(({ diffId }) => diffId);
  const records = readRecords(repository);
  const same = records.find(({ layers }) => layers.length === own.length && commonLayers(layers, own) === own.length);
  if (wish === undefined && same !== undefined) {
    if (same.parts === undefined) return FLAT;
    const { layout, base } = same.parts;
    return { layout, baseLayers: readImageRecord(repository, base).layers.length, isAsked: true };
  }
  // What others are laid over is whole.
  const shared = records.map(({ layers }) => commonLayers(layers, own)).filter((count) => count < own.length);
  const most = Math.max(0, ...shared);
  if (wish === undefined) {
    const isForUsAlone = listNames(`${repository.path}/streams`).every((name) => name === 'refs');
    return most > 0 && isForUsAlone ? { layout: 'split', baseLayers: most, isAsked: false } : FLAT;
  }
  const baseLayers = most || own.length - 1;
  if (baseLayers > 0) return { layout: wish, baseLayers, isAsked: true };
  throw noBase(source, wish, 'it has one layer');
}

/** That what is asked for cannot be done. */
export function noBase({ reference }: ImageSource, wish: ImageLayout, reason: string): HostctlError {
  return new HostctlError(
    'image-unsupported',
    `Cannot store "${formatImageReference(reference)}" ${wish}: ${reason}, so that nothing of it can be a base`,
    { hint: 'Pull it with --layout flat' },
  );
}

/** Why an image must stay whole, if it must: what boots it, other tools, and images over it know it by its own object. */
export function reasonToStayFlat(host: Host, repository: Repository, digest: VerityDigest): string | undefined {
  const { deployments, others, over } = imageOwners(host, repository)(digest);
  if (deployments.length > 0) return `deployment ${deployments[0]} boots it`;
  if (others.length > 0) return `the ref "${others[0]}" names it`;
  return over.length > 0 ? 'it is the base of other images' : undefined;
}

function readRecords(repository: Repository): StoredRecord[] {
  return listImages(repository).flatMap((digest) => {
    try {
      const record = readImageRecord(repository, digest);
      // One that is booted is another image than its layers make.
      return record.bootable === true ? [] : record;
    } catch (error) {
      // fsck tells of it; here it is one image less to have something in common with.
      if (isHostctlError(error, 'format-invalid')) return [];
      throw error;
    }
  });
}

function commonLayers(a: readonly string[], b: readonly string[]): number {
  const differs = b.findIndex((layer, index) => a[index] !== layer);
  return differs === -1 ? b.length : differs;
}
