/** Many images in one repository: what grows with them, and no faster. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ociLayout } from '../../../test/helpers/oci-builder.ts';
import { tar, tarDir, tarFile } from '../../../test/helpers/tar-builder.ts';
import { run } from '../run.ts';
import { FLAT, type Comparison } from './comparison.ts';
import { compare, contest, measureTimes, peak, type Contestant } from './contest.ts';
import { hostctl } from './pipelines.ts';
import type { Bench } from './setting.ts';
import { onTarget } from './target.ts';

const IMAGES = [1, 10, 150] as const;
const PULLS = 5;
const FILES_OF_IMAGE = 50;

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
