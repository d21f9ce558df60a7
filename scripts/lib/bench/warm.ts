/**
 * `npm run bench -- --warm`: everything but the cold deploy, each against what one would use instead or against a limit,
 * as ratios of medians of interleaved rounds.
 */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { comparisonsJson, formatComparisons, type Comparison } from './comparison.ts';
import { reasonOf } from './contest.ts';
import { coldPulls, deepChecks } from './hashes.ts';
import { largeFile } from './large-file.ts';
import { manyEntries } from './many-entries.ts';
import { manyImages } from './many-images.ts';
import { createFromDump, imageDigest } from './metadata.ts';
import { secondDeploy } from './second-deploy.ts';
import { description, type Bench } from './setting.ts';
import { starts } from './starts.ts';

/** By the name that `--only` takes. */
const PARTS: Readonly<Record<string, (bench: Bench) => Promise<Comparison[]>>> = {
  second: secondDeploy,
  create: createFromDump,
  digest: imageDigest,
  starts,
  fsck: deepChecks,
  hash: coldPulls,
  entries: manyEntries,
  images: manyImages,
  large: largeFile,
};

/** Measures the parts that are asked for, and prints the table at the end. One that fails does not end the others. */
export async function benchWarm(bench: Bench, only: readonly string[] | undefined, json?: string): Promise<void> {
  const comparisons: Comparison[] = [];
  for (const [name, part] of Object.entries(PARTS)) {
    if (only !== undefined && !only.includes(name)) continue;
    const folder = `${bench.folder}/${name}`;
    mkdirSync(folder);
    try {
      const made = await part({ ...bench, folder });
      // Seen at once, in a run that takes long.
      bench.say(formatComparisons(made));
      comparisons.push(...made);
    } catch (error) {
      comparisons.push({ row: name, unit: 's', hostctl: undefined, reference: undefined, against: '', note: reasonOf(error) }); // prettier-ignore
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
    if (json !== undefined) writeFileSync(json, `${JSON.stringify(comparisonsJson(comparisons), undefined, 2)}\n`);
  }
  console.log(await description(bench.image));
  console.log(`${bench.rounds} rounds; times are of hostctl as it is packaged, with its start`);
  console.log(formatComparisons(comparisons));
}
