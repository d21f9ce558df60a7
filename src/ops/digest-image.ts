/** `image digest`: the composefs digest an image would have. No repository is needed and nothing is written. */

import { formatImageParameters } from '../format/cmdline.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { bootableTree } from '../image/build.ts';
import { measuringSink } from '../image/ingest.ts';
import type { Host } from '../sys/host.ts';
import type { VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import { flattenImage, XATTR_MODE } from './build.ts';
import { withImage } from './with-image.ts';

export interface DigestImageOptions {
  readonly image: string;
  readonly algorithm: VerityAlgorithm;
  readonly formatVersion: 0 | 1 | 2;
  /** The tree that `deploy` boots. */
  readonly bootable: boolean;
}

export interface DigestImageResult {
  readonly digest: VerityDigest;
  readonly parameters: string;
  readonly xattrs: string;
  readonly bootable: boolean;
  readonly manifestDigest: string;
}

export async function digestImage(host: Host, options: DigestImageOptions): Promise<DigestImageResult> {
  const { algorithm, formatVersion, bootable } = options;
  return withImage(host, options.image, undefined, async (source) => {
    const flat = await flattenImage(host, source, measuringSink(algorithm));
    const tree = bootable ? bootableTree(flat).tree : flat;
    const { bytes } = writeComposefsImage(tree, { algorithm, minVersion: formatVersion, maxVersion: formatVersion });
    return {
      digest: fsverityDigest(algorithm, bytes),
      parameters: formatImageParameters({ formatVersion, algorithm, logBlockSize: 12 }),
      xattrs: XATTR_MODE,
      bootable,
      manifestDigest: source.manifestDigest,
    };
  });
}
