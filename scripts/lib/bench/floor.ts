/**
 * The least that the work could take on this machine: decompression, both digests of the layers, the digests and the
 * writing of the objects, each by the fastest program at hand and perfectly split over the processors, and one sync.
 */

import { mkdirSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { run } from '../run.ts';
import { measure, type Measured } from './measure.ts';
import type { Target } from './target.ts';

export interface FloorInput {
  /** Compressed and plain layers, and the objects that are made of them. */
  readonly layers: readonly string[];
  readonly tars: readonly string[];
  readonly objects: string;
  readonly compression: 'gzip' | 'zstd';
}

/** Keeps what the floor works on, in `folder`. */
export async function prepareFloor(
  folder: string,
  layers: readonly string[],
  compression: FloorInput['compression'],
  objects: string,
): Promise<FloorInput> {
  const kept = join(folder, 'floor');
  mkdirSync(kept, { recursive: true });
  const decompress = compression === 'gzip' ? 'igzip' : 'zstd';
  const tars = layers.map((_, i) => join(kept, `${i}.tar`));
  for (const [i, layer] of layers.entries()) {
    await run('sh', ['-c', `${decompress} -dc <"$1" >"$2"`, 'sh', layer, tars[i]!]);
  }
  await run('cp', ['-r', objects, join(kept, 'objects')]);
  return { layers, tars, compression, objects: join(kept, 'objects') };
}

export async function measureFloor(folder: string, target: Target, input: FloorInput): Promise<Measured> {
  const variables = {
    LAYERS: input.layers.join(' '),
    TARS: input.tars.join(' '),
    OBJECTS: input.objects,
    TARGET: target.path,
  };
  const decompress = input.compression === 'gzip' ? 'igzip' : 'zstd';
  const parts = [
    `for layer in $LAYERS; do ${decompress} -dc <"$layer" >/dev/null; done`,
    'openssl dgst -sha256 $LAYERS $TARS >/dev/null',
    'find "$OBJECTS" -type f -print0 | xargs -0 fsverity digest --hash-alg=sha256 --compact >/dev/null',
    'cp -r "$OBJECTS" "$TARGET"',
  ];
  const measured = [];
  for (const part of parts) measured.push(await measure(folder, part, variables));
  const sync = await measure(folder, 'sync --file-system "$TARGET"', variables);
  const cpuSec = measured.reduce((sum, one) => sum + one.cpuSec, 0);
  return { cpuSec, wallSec: cpuSec / os.availableParallelism() + sync.wallSec, maxRssMiB: 0 };
}
