/**
 * An image of its layers in the repository, flat or as base and delta. Whichever it is, it has the digest that it has
 * flat, and what was stored in parts has been put together again before it is called an image.
 */

import type { ImageParameters } from '../format/cmdline.ts';
import { joinComposefsDelta, writeComposefsDelta } from '../format/erofs/delta.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { HostctlError } from '../errors.ts';
import type { ImageSource } from '../image/source.ts';
import type { ImageLayout, ImageRecord } from '../store/image-record.ts';
import { commitImage, commitParts } from '../store/images.ts';
import type { ObjectStore } from '../store/objects.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { XATTR_MODE, type StoredImage } from './build.ts';
import { noBase, planLayout, reasonToStayFlat } from './image-layout.ts';
import { withStoredLayers, type StoredLayers } from './stored-layers.ts';

export interface LaidImage extends StoredImage {
  readonly layout: ImageLayout;
  readonly base?: VerityDigest;
}

/** Stores an image as it is. Without a wish for a layout, by the rule of `image-layout.ts`. */
export function storeImage(
  host: Host,
  repository: Repository,
  source: ImageSource,
  objects: ObjectStore,
  wish?: ImageLayout,
): Promise<LaidImage> {
  return withStoredLayers(host, repository, source, objects, (layers) =>
    storeLayers(host, repository, { source, layers, wish }, objects),
  );
}

interface Laying {
  readonly source: ImageSource;
  readonly layers: StoredLayers;
  readonly wish: ImageLayout | undefined;
}

async function storeLayers(
  host: Host,
  repository: Repository,
  { source, layers, wish }: Laying,
  objects: ObjectStore,
): Promise<LaidImage> {
  const plan = planLayout(repository, source, wish);
  const baseLayers = plan.layout === 'flat' ? 0 : plan.baseLayers;
  const { tree, base } = await layers.readTrees({ baseLayers });
  const { algorithm } = repository;
  const { bytes, version } = writeComposefsImage(tree, { algorithm });
  const digest = fsverityDigest(algorithm, bytes);
  const parameters: ImageParameters = { formatVersion: version, algorithm, logBlockSize: 12 };
  const diffIds = source.layers.map(({ diffId }) => diffId);
  const record: ImageRecord = { parameters, xattrs: XATTR_MODE, bootable: false, layers: diffIds };
  const result = { digest, parameters, objects: objects.counts };
  const flat = (): LaidImage => {
    commitImage(repository, objects, bytes, record);
    layers.keep(digest);
    return { ...result, layout: 'flat' };
  };
  if (plan.layout === 'flat') return flat();
  if (base === undefined) {
    if (plan.isAsked) throw noBase(source, plan.layout, 'its lower layers have no directory "/usr"');
    return flat();
  }
  const delta = writeComposefsDelta(base, tree, algorithm);
  if (!plan.isAsked && !isWorthIt(bytes.length, delta.length)) return flat();
  const reason = reasonToStayFlat(host, repository, digest);
  if (reason !== undefined) {
    if (plan.isAsked) host.log.warn(`The image stays flat: ${reason}`);
    return flat();
  }
  const baseImage = writeComposefsImage(base, { algorithm });
  if (fsverityDigest(algorithm, joinComposefsDelta(baseImage.bytes, delta, algorithm)) !== digest) {
    throw new HostctlError('internal', `The base and the delta of image ${digest} do not make it again`, {
      hint: 'Pull it with --layout flat',
    });
  }
  const baseRecord = { ...record, parameters, layers: diffIds.slice(0, baseLayers) };
  const baseDigest = commitImage(repository, objects, baseImage.bytes, baseRecord);
  const parts = { layout: plan.layout, base: baseDigest, delta: objects.put(delta) };
  if (plan.layout === 'cached') objects.put(bytes);
  commitParts(repository, objects, digest, { ...record, parts });
  layers.keep(digest);
  return { ...result, layout: plan.layout, base: baseDigest };
}

/** Less than this saved is not worth one more layer in the mount. */
const WORTH_BYTES = 256 << 10;

function isWorthIt(flatBytes: number, deltaBytes: number): boolean {
  return deltaBytes <= flatBytes / 2 && flatBytes - deltaBytes >= WORTH_BYTES;
}
