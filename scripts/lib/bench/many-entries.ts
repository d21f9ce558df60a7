/** Many entries: what grows with them, and no faster. */

import { join } from 'node:path';
import { tarDir, tarFile } from '../../../test/helpers/tar-builder.ts';
import { cached } from '../../../test/vm/lib/cache.ts';
import { run } from '../run.ts';
import { FLAT, type Comparison } from './comparison.ts';
import {
  contest,
  measureTimes,
  MEMORY_LIMIT_MIB,
  middle,
  peak,
  wall,
  type Contestant,
  type Result,
} from './contest.ts';
import { finishLayout, LayerWriter } from './oci-writer.ts';
import { hostctl } from './pipelines.ts';
import { readImage, warm, type Bench } from './setting.ts';
import { onTarget } from './target.ts';

const ENTRIES = [10_000, 100_000, 1_000_000] as const;
const FILES_PER_DIRECTORY = 100;
/** Entries beyond this number have memory of their own. */
const FREE_ENTRIES = 100_000;
const BYTES_PER_ENTRY = 1024;

/**
 * Pulls of images of files that lie in the image itself: nothing but entries. What an entry takes is told twice, without
 * the start of Node, and without all that a pull of one entry takes: the second is not helped by a slow start.
 */
export async function manyEntries(bench: Bench): Promise<Comparison[]> {
  const { folder, rounds, say } = bench;
  const sizes = ENTRIES.map((entries) => Math.max(200, Math.round(entries * bench.scale)));
  const node: Contestant = {
    name: 'node -e 0',
    run: async () => ({ ...(await measureTimes(20, folder, 'node -e 0', {})), bytesWritten: 0 }),
  };
  const pulls: Contestant[] = [];
  for (const entries of [1, ...sizes]) pulls.push(await entriesPull(bench, entries));
  const [start, one, ...results] = await contest('entries', rounds, [node, ...pulls], say);
  const perEntry = (i: number, without: Result): number | undefined => {
    const [whole, fixed] = [middle(results[i]!, wall), middle(without, wall)];
    return whole === undefined || fixed === undefined ? undefined : ((whole - fixed) / sizes[i]!) * 1e6;
  };
  return sizes.flatMap((entries, i): Comparison[] => {
    const limit = MEMORY_LIMIT_MIB + (Math.max(0, entries - FREE_ENTRIES) * BYTES_PER_ENTRY) / 2 ** 20;
    const memory = peak(`pull of ${entries} entries`, results[i]!, limit);
    if (i === 0) return [memory];
    const time = (without: Result, what: string): Comparison => ({
      row: `pull of ${entries} entries: each`,
      unit: 'µs',
      hostctl: perEntry(i, without),
      reference: perEntry(0, without),
      against: `each of ${sizes[0]!}; without ${what}`,
      goal: FLAT,
      note: results[i]!.note ?? results[0]!.note ?? without.note,
    });
    return [time(start!, "Node's start"), time(one!, 'what one entry takes'), memory];
  });
}

async function entriesPull(bench: Bench, entries: number): Promise<Contestant> {
  const { folder, variables, program, say } = bench;
  const image = await cached(`bench-entries-${entries}`, { entries, format: 1 }, (empty) => {
    say(`Making an image of ${entries} entries`);
    return writeEntries(empty, entries);
  });
  const [digest = ''] = (await run(process.execPath, [program, 'image', 'digest', `oci:${image}`])).split('\n');
  // Short ones are measured as some in a row, each into a repository of its own.
  const times = Math.max(1, Math.min(20, Math.round(100_000 / entries)));
  return {
    name: `${entries} entries`,
    run: () =>
      onTarget(folder, async (target) => {
        await warm(readImage(image, '').layers);
        const names = { ...variables, LAYOUT: image, TARGET: target.path };
        const script = `${hostctl} image pull "oci:$LAYOUT" --repo "$TARGET/$i" >/dev/null`;
        const measured = await measureTimes(times, folder, script, names);
        const listed = await run(process.execPath, [program, 'image', 'list', '--repo', join(target.path, '0')]);
        if (!listed.startsWith(`${digest} `)) throw new Error('The repository has another image');
        return { ...measured, bytesWritten: 0 };
      }),
  };
}

async function writeEntries(directory: string, entries: number): Promise<void> {
  const layer = new LayerWriter(directory, 'zstd');
  await layer.write(tarDir('usr'));
  for (let i = 0; i < entries; i++) {
    if (i % FILES_PER_DIRECTORY === 0) await layer.write(tarDir(`usr/d${i}`));
    await layer.write(tarFile(`usr/d${i - (i % FILES_PER_DIRECTORY)}/file-${i}`, `content ${i}\n`));
  }
  await layer.write(Buffer.alloc(1024));
  finishLayout(directory, 'bench', 'zstd', [await layer.finish()]);
}
