/** Many entries, many images, one large file: what grows with them, and no faster. */

import { createCipheriv } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ociLayout } from '../../../test/helpers/oci-builder.ts';
import { tar, tarDir, tarEntry, tarFile } from '../../../test/helpers/tar-builder.ts';
import { cached } from '../../../test/vm/lib/cache.ts';
import { run } from '../run.ts';
import type { Comparison } from './comparison.ts';
import {
  compare,
  contest,
  measureTimes,
  MEMORY_LIMIT_MIB,
  middle,
  peak,
  wall,
  type Contestant,
  type Result,
} from './contest.ts';
import { measure } from './measure.ts';
import { finishLayout, LayerWriter } from './oci-writer.ts';
import { hostctl } from './pipelines.ts';
import { readImage, warm, type Bench } from './setting.ts';
import { onTarget } from './target.ts';

const ENTRIES = [10_000, 100_000, 1_000_000] as const;
const FILES_PER_DIRECTORY = 100;
/** Entries beyond this number have memory of their own. */
const FREE_ENTRIES = 100_000;
const BYTES_PER_ENTRY = 1024;
const FLAT = { most: 1.3 } as const;

const IMAGES = [1, 10, 150] as const;
const PULLS = 5;
const FILES_OF_IMAGE = 50;

const MiB = 1 << 20;
const LARGE_MIB = 4096;

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
    const limit = MEMORY_LIMIT_MIB + (Math.max(0, entries - FREE_ENTRIES) * BYTES_PER_ENTRY) / MiB;
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

/** Some pulls into a repository with so many images, the list of it, and a `gc` that finds nothing. */
export async function manyImages(bench: Bench): Promise<Comparison[]> {
  const { folder, program, rounds, say } = bench;
  const counts = IMAGES.map((count, i) => Math.max(i + 1, Math.round(count * Math.min(1, bench.scale))));
  const place = join(folder, 'images');
  const images = smallImages(place, counts.at(-1)! + PULLS);
  const hostctlRun = (...args: string[]): Promise<string> => run(process.execPath, [program, ...args]);
  const sysroots = counts.map((count) => join(place, `sysroot-${count}`));
  say('Filling repositories');
  for (const [i, count] of counts.entries()) {
    mkdirSync(join(sysroots[i]!, 'boot'), { recursive: true });
    for (const image of images.slice(0, count))
      await hostctlRun('image', 'pull', `oci:${image}`, '--sysroot', sysroots[i]!);
  }
  interface Work {
    readonly name: string;
    readonly times: number;
    readonly script: string;
    readonly leaves: (count: number) => number;
  }
  const works: readonly Work[] = [
    { name: 'pull of one more', times: PULLS, script: `${hostctl} image pull "oci:$NEXT/$((COUNT + i))" --sysroot "$TARGET" >/dev/null`, leaves: (count) => count + PULLS }, // prettier-ignore
    { name: 'image list', times: 10, script: `${hostctl} image list --sysroot "$TARGET" >/dev/null`, leaves: (count) => count }, // prettier-ignore
    { name: 'gc, nothing to do', times: 10, script: `${hostctl} gc --sysroot "$TARGET" >/dev/null`, leaves: (count) => count }, // prettier-ignore
  ];
  const comparisons: Comparison[] = [];
  for (const { name, times, script, leaves } of works) {
    const contestants = counts.map((count, i): Contestant => ({
      name: count === 1 ? '1 image' : `${count} images`,
      run: () =>
        onTarget(folder, async (target) => {
          await run('cp', ['-a', `${sysroots[i]!}/.`, target.path]);
          await run('sync', ['--file-system', target.path]);
          const names = { ...bench.variables, NEXT: place, COUNT: `${count}`, TARGET: target.path };
          const measured = await measureTimes(times, folder, script, names);
          const listed = await hostctlRun('image', 'list', '--json', '--sysroot', target.path);
          const found = (JSON.parse(listed) as unknown[]).length;
          if (found !== leaves(count)) throw new Error(`${found} images, not ${leaves(count)}`);
          return { ...measured, bytesWritten: 0 };
        }),
    })); // prettier-ignore
    const [first, ...more] = await contest(name, rounds, contestants, say);
    for (const [i, result] of more.entries()) {
      comparisons.push(
        compare(`${name}, ${counts[i + 1]!} images`, result, [first!], { unit: 'ms', goal: FLAT }),
        peak(`${name}, ${counts[i + 1]!} images`, result),
      );
    }
  }
  return comparisons;
}

/** Layouts named by number, no file of one in another. */
function smallImages(place: string, count: number): string[] {
  return Array.from({ length: count }, (_, number) => {
    const directory = join(place, `${number}`);
    mkdirSync(directory, { recursive: true });
    const files = Array.from({ length: FILES_OF_IMAGE }, (_, i) =>
      tarFile(`usr/file-${i}`, `image ${number}, file ${i}\n`.repeat(30 + ((i * 7) % 300))),
    );
    ociLayout(directory, { layers: [{ tar: tar([tarDir('usr'), ...files]), compression: 'none' }] });
    return directory;
  });
}

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
