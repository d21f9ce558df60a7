/** What SHA-512 costs over SHA-256 in a whole pull, what is written by it, and how fast `fsck --deep` reads. */

import { statSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { run } from '../run.ts';
import { checkRepository, objectNames } from './check.ts';
import type { Comparison } from './comparison.ts';
import { compare, contest, cpu, middle, peak, wall, type Contestant } from './contest.ts';
import { measure } from './measure.ts';
import { hostctl } from './pipelines.ts';
import { warm, warmTree, type Bench } from './setting.ts';
import { onTarget } from './target.ts';

const ALGORITHMS = ['sha256', 'sha512'] as const;
type Algorithm = (typeof ALGORITHMS)[number];

const WRITTEN_GOAL = { most: 1.02 } as const;

interface Sizes {
  /** Of the contents. */
  readonly bytes: number;
  /** As they lie on disk. */
  readonly allocated: number;
}

function sizesOf(objects: string): Sizes {
  let [bytes, allocated] = [0, 0];
  for (const name of objectNames(objects)) {
    const { size, blocks } = statSync(join(objects, name));
    bytes += size;
    allocated += blocks * 512;
  }
  return { bytes, allocated };
}

/** Cold pulls with either hash, and what reached the disk against what is stored. */
export async function coldPulls(bench: Bench): Promise<Comparison[]> {
  const { folder, variables, image, program, sid } = bench;
  const kept = join(folder, 'pulled-objects');
  let sizes: Sizes | undefined;
  const pull = (algorithm: Algorithm): Contestant => ({
    name: algorithm === 'sha256' ? 'SHA-256' : 'SHA-512',
    run: () =>
      onTarget(folder, async (target) => {
        await warm(image.layers);
        const script = `${hostctl} image pull "oci:$IMAGE" --repo "$TARGET/composefs" --hash ${algorithm}`;
        const measured = await measure(folder, script, { ...variables, TARGET: target.path });
        const bytesWritten = target.written();
        const repository = join(target.path, 'composefs');
        await checkRepository(repository, program, algorithm, sid);
        if (algorithm === 'sha256' && sizes === undefined) {
          sizes = sizesOf(join(repository, 'objects'));
          await run('cp', ['-r', join(repository, 'objects'), kept]);
        }
        return { ...measured, bytesWritten };
      }),
  });
  const copy: Contestant = {
    name: 'cp -r of the objects, sync',
    run: () =>
      onTarget(folder, async (target) => {
        await warmTree(kept);
        const script = 'cp -r "$KEPT" "$TARGET"; sync --file-system "$TARGET"';
        const measured = await measure(folder, script, { KEPT: kept, TARGET: target.path });
        return { ...measured, bytesWritten: target.written() };
      }),
  };
  const [small, large, copied] = await contest(
    'cold pull',
    bench.rounds,
    [pull('sha256'), pull('sha512'), copy],
    bench.say,
  );
  const megabytes = ({ bytesWritten }: { bytesWritten: number }): number => bytesWritten / 1e6;
  const written = { unit: 'MB', hostctl: middle(small!, megabytes), note: small!.note } as const;
  const allocated = sizes === undefined ? undefined : sizes.allocated / 1e6;
  return [
    compare('cold pull, SHA-512: wall', large!, [small!], { goal: { most: 1.25 } }),
    compare('cold pull, SHA-512: CPU', large!, [small!], { pick: cpu, goal: { most: 1.25 } }),
    peak('cold pull, SHA-256', small!),
    peak('cold pull, SHA-512', large!),
    { ...written, row: 'cold pull: written', reference: allocated, against: 'new objects and image, in blocks', goal: WRITTEN_GOAL }, // prettier-ignore
    { ...written, row: 'cold pull: written', reference: middle(copied!, megabytes), against: copied!.name, goal: WRITTEN_GOAL }, // prettier-ignore
  ];
}

/** `fsck --deep` against what makes the digests of the same files on all processors; everything in memory. */
export async function deepChecks(bench: Bench): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const algorithm of ALGORITHMS) comparisons.push(...(await deepCheck(bench, algorithm)));
  return comparisons;
}

async function deepCheck(bench: Bench, algorithm: Algorithm): Promise<Comparison[]> {
  const { folder, program, image, rounds, say } = bench;
  return onTarget(folder, async (target) => {
    const sysroot = ['--sysroot', target.path];
    await run('mkdir', [join(target.path, 'boot')]);
    await run(process.execPath, [program, 'deploy', `oci:${image.directory}`, '--hash', algorithm, '--allow-missing-verity', ...sysroot]); // prettier-ignore
    const objects = join(target.path, 'composefs/objects');
    await requireDigests(objects, algorithm);
    const variables = { ...bench.variables, TARGET: target.path, OBJECTS: objects };
    const { bytes } = sizesOf(objects);
    const contestant = (name: string, script: string): Contestant => ({
      name,
      async run() {
        await warmTree(objects);
        return { ...(await measure(folder, script, variables)), bytesWritten: 0 };
      },
    });
    const processes = os.availableParallelism();
    const hash = `find "$OBJECTS" -type f -print0 | xargs -0 -n 256 -P ${processes} fsverity digest --hash-alg=${algorithm} --compact >/dev/null`;
    const title = `fsck --deep, ${algorithm}`;
    // Exit 0 says that it found nothing.
    const [ours, theirs] = await contest(
      title,
      rounds,
      [
        contestant('hostctl', `${hostctl} fsck --deep --sysroot "$TARGET" >/dev/null`),
        contestant(`fsverity digest, ${processes} at a time`, hash),
      ],
      say,
    );
    const rate = (seconds: number | undefined): number | undefined =>
      seconds === undefined ? undefined : bytes / 1e9 / seconds;
    return [
      {
        row: `${title}: rate`,
        unit: 'GB/s',
        hostctl: rate(middle(ours!, wall)),
        reference: rate(middle(theirs!, wall)),
        against: theirs!.name,
        goal: { least: 0.8 },
        note: ours!.note ?? theirs!.note,
      },
      compare(`${title}: CPU`, ours!, [theirs!], { pick: cpu }),
      peak(title, ours!),
    ];
  });
}

/** That the tool says of each object what its name says. */
async function requireDigests(objects: string, algorithm: Algorithm): Promise<void> {
  const script = `cd "$1" && find . -type f -print0 | xargs -0 fsverity digest --hash-alg=${algorithm} --compact`;
  const measured = (await run('sh', ['-c', script, 'sh', objects])).trim().split('\n').sort();
  const named = [...objectNames(objects)].map((name) => name.replace('/', '')).sort();
  if (measured.join() !== named.join()) throw new Error('fsverity does not say what the objects are named');
}
