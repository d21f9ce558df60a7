/** One large file, which memory does not grow with. */

import { createCipheriv } from 'node:crypto';
import { tarDir, tarEntry } from '../../../test/helpers/tar-builder.ts';
import { cached } from '../../../test/vm/lib/cache.ts';
import type { Comparison } from './comparison.ts';
import { contest, peak, type Contestant } from './contest.ts';
import { measure } from './measure.ts';
import { finishLayout, LayerWriter } from './oci-writer.ts';
import { hostctl } from './pipelines.ts';
import { readImage, warm, type Bench } from './setting.ts';
import { onTarget } from './target.ts';

const MiB = 1 << 20;
const LARGE_MIB = 4096;

/** A file of which nothing is held as a whole. */
export async function largeFile(bench: Bench): Promise<Comparison[]> {
  const { folder, variables, say } = bench;
  const mebibytes = Math.max(64, Math.round(LARGE_MIB * Math.min(1, bench.scale)));
  const image = await cached(`bench-large-${mebibytes}`, { mebibytes, format: 1 }, (empty) => {
    say('Making the large file');
    return writeLarge(empty, mebibytes);
  });
  const pull: Contestant = {
    name: 'hostctl',
    run: () =>
      onTarget(folder, async (target) => {
        await warm(readImage(image, '').layers);
        const script = `${hostctl} image pull "oci:$LAYOUT" --repo "$TARGET/composefs" >/dev/null; find "$TARGET/composefs/objects" -size ${mebibytes}M | grep -q .`;
        const measured = await measure(folder, script, { ...variables, LAYOUT: image, TARGET: target.path });
        return { ...measured, bytesWritten: target.written() };
      }),
  };
  // The memory of one process does not vary so that it had to be measured many times.
  const [result] = await contest('large file', 1, [pull], say);
  return [peak(`pull of a file of ${mebibytes} MiB`, result!)];
}

/** Zeros, and in between as much that does not compress as keeps them from looking like a bomb. */
async function writeLarge(directory: string, mebibytes: number): Promise<void> {
  const layer = new LayerWriter(directory, 'gzip');
  const cipher = createCipheriv('aes-256-ctr', Buffer.alloc(32, 9), Buffer.alloc(16));
  await layer.write(tarDir('usr'));
  await layer.write(tarEntry('usr/large', { size: mebibytes * MiB }));
  for (let i = 0; i < mebibytes; i++) {
    const piece = Buffer.alloc(MiB);
    cipher.update(Buffer.alloc(MiB / 32)).copy(piece);
    await layer.write(piece);
  }
  await layer.write(Buffer.alloc(1024));
  finishLayout(directory, 'bench', 'gzip', [await layer.finish()]);
}
