/** A host that has an image deploys its next version, of which 95 % are the same. */

import { join } from 'node:path';
import { cached, fileHash } from '../../../test/vm/lib/cache.ts';
import { run } from '../run.ts';
import { checkPeer, checkRepository, imagesIn, type Reference } from './check.ts';
import type { Comparison } from './comparison.ts';
import { compare, contest, cpu, peak, type Contestant } from './contest.ts';
import { deriveImage } from './derive-image.ts';
import { writeBenchImage } from './image.ts';
import { measure } from './measure.ts';
import { PIPELINES, type Pipeline } from './pipelines.ts';
import type { Run } from './report.ts';
import { imageVariables, readImage, unavailable, warm, type Bench, type Image } from './setting.ts';
import { onTarget, type Target } from './target.ts';

const CHANGED_PERCENT = 5;
const GOAL = { least: 6 } as const;

interface Next {
  readonly name: string;
  readonly image: Image;
}

/** Against the best peer without fsync, which unpacks the next version and has the objects of the first. */
export async function secondDeploy(bench: Bench): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  const ours = PIPELINES.find(({ kind }) => kind === 'hostctl')!;
  const objects = await keepObjects(bench, ours);
  for (const { name, image } of await nextVersions(bench)) {
    const title = `second deploy, 95 % shared, ${name}`;
    const variables = { ...bench.variables, ...imageVariables(join(bench.folder, name), image) };
    let reference: Reference | undefined;
    const hostctl: Contestant = {
      name: ours.name,
      run: () =>
        onTarget(bench.folder, async (target) => {
          await measure(bench.folder, ours.script, { ...bench.variables, TARGET: target.path });
          const repository = join(target.path, 'composefs');
          const before = imagesIn(repository);
          const made = await measureNext(bench, ours, variables, image, target);
          reference = await checkRepository(repository, bench.program, 'sha256', bench.sid, before);
          return made;
        }),
    };
    const peers = PIPELINES.filter(({ kind }) => kind === 'no fsync').map((peer): Contestant => ({
      name: peer.name,
      unavailable: unavailable(peer, bench),
      run: () =>
        onTarget(bench.folder, async (target) => {
          await run('cp', ['-r', objects, join(target.path, 'objects')]);
          const made = await measureNext(bench, peer, variables, image, target);
          if (reference !== undefined) checkPeer(join(target.path, 'objects'), reference);
          return made;
        }),
    }));
    const [result, ...others] = await contest(title, bench.rounds, [hostctl, ...peers], bench.say);
    comparisons.push(
      compare(`${title}: wall`, result!, others, { goal: GOAL }),
      compare(`${title}: CPU`, result!, others, { pick: cpu }),
      peak(title, result!),
    );
  }
  return comparisons;
}

/** What a store has that the first version was put into. */
async function keepObjects(bench: Bench, ours: Pipeline): Promise<string> {
  const kept = join(bench.folder, 'first-objects');
  return onTarget(bench.folder, async (target) => {
    await measure(bench.folder, ours.script, { ...bench.variables, TARGET: target.path });
    await run('cp', ['-r', join(target.path, 'composefs/objects'), kept]);
    return kept;
  });
}

/** A layer more, as one who builds on an image makes it; and all layers made again, where they are made of a seed. */
async function nextVersions({ image, folder, scale, say }: Bench): Promise<Next[]> {
  const index = await fileHash(join(image.directory, 'index.json'));
  const derived = await cached('bench-next', { index, CHANGED_PERCENT }, (empty) => {
    say('Making the next version of the image');
    return deriveImage(image, CHANGED_PERCENT, empty, join(folder, 'derive'));
  });
  const next: Next[] = [{ name: 'one layer more', image: readImage(derived, 'next version') }];
  if (image.synthetic !== undefined) {
    const options = { ...image.synthetic, version: 2, changedPercent: CHANGED_PERCENT };
    const again = await cached('bench-again', { ...options, format: 4 }, (empty) => {
      say('Making all layers of the image again');
      return writeBenchImage(empty, options);
    });
    next.push({ name: 'all layers made again', image: readImage(again, `next version, scale ${scale}`) });
  }
  return next;
}

/** The program on the next version, from memory, with all that came before on disk. */
async function measureNext(
  { folder, image }: Bench,
  pipeline: Pipeline,
  variables: NodeJS.ProcessEnv,
  next: Image,
  target: Target,
): Promise<Run> {
  await warm([...image.layers, ...next.layers]);
  await run('sync', ['--file-system', target.path]);
  const before = target.written();
  const measured = await measure(folder, pipeline.script, { ...variables, TARGET: target.path });
  return { ...measured, bytesWritten: target.written() - before };
}
