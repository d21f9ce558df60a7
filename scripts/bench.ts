/**
 * `npm run bench`: how long an OCI image takes to become objects and a composefs image, durable, with hostctl and with
 * what one would use instead. Interleaved rounds, each program on a new file system, and every result looked at.
 * `USAGE` says how it is called.
 */

import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { benchBoot } from './lib/bench/boot.ts';
import { checkPeer, checkRepository, type Reference } from './lib/bench/check.ts';
import { contest, type Contestant } from './lib/bench/contest.ts';
import { benchFinalize } from './lib/bench/finalize.ts';
import { measureFloor, prepareFloor, type FloorInput } from './lib/bench/floor.ts';
import { measure } from './lib/bench/measure.ts';
import { PIPELINES, type Pipeline } from './lib/bench/pipelines.ts';
import { chart, formatTable, report, type Row } from './lib/bench/report.ts';
import {
  description,
  givenImage,
  type Image,
  installPeers,
  prepare,
  type Setting,
  syntheticImage,
  unavailable,
  warm,
} from './lib/bench/setting.ts';
import { onTarget } from './lib/bench/target.ts';
import { benchWarm } from './lib/bench/warm.ts';
import { projectPath } from './lib/project.ts';

/** How many layers the files of the synthetic image go into. */
const SHAPES: Readonly<Record<string, number>> = { layers: 3, giant: 1, small: 63 };
const USAGE = `Usage: npm run bench -- [--image oci:DIR | --shape ${Object.keys(SHAPES).join('|')} --compression gzip|zstd --scale N]
                        [--rounds N] [--only WORD]... [--json FILE] [--chart FILE]
       npm run bench -- --warm [--only second|create|digest|starts|fsck|hash|entries|images|large]...
                        [--image oci:DIR | --scale N] [--rounds N] [--json FILE]
           all else that is asked of hostctl, against limits and what one would use instead
       npm run bench -- --boot [--rounds N] [--json FILE]
           in a guest: what the hook adds to a boot, and fs-verity to a pull
       npm run bench -- --finalize
           what "finalize-staged" takes at shutdown`;

const values = readOptions();
const say = (line: string): void => console.error(line);

if (values.finalize) await benchFinalize();
else await bench();

function readOptions() {
  try {
    const options = {
      image: { type: 'string' },
      shape: { type: 'string', default: 'layers' },
      compression: { type: 'string', default: 'gzip' },
      scale: { type: 'string', default: '1' },
      rounds: { type: 'string', default: '5' },
      only: { type: 'string', multiple: true },
      json: { type: 'string' },
      chart: { type: 'string' },
      boot: { type: 'boolean', default: false },
      warm: { type: 'boolean', default: false },
      finalize: { type: 'boolean', default: false },
    } as const;
    const { values: given } = parseArgs({ options });
    const { shape, compression } = given;
    const layers = SHAPES[shape];
    if (layers === undefined) throw new Error(`There is no shape "${shape}"`);
    if (compression !== 'gzip' && compression !== 'zstd') throw new Error(`There is no compression "${compression}"`);
    const scale = Number(given.scale);
    if (!(scale > 0)) throw new Error(`The scale must be a number above 0, not "${given.scale}"`);
    const rounds = Number(given.rounds);
    if (!Number.isInteger(rounds) || rounds < 1)
      throw new Error(`The rounds must be a number from 1, not "${given.rounds}"`);
    return { ...given, layers, compression, scale, rounds } as const;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    process.exit(2);
  }
}

async function bench(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('Needs root: every program writes to a file system made for it');
  await installPeers(say);
  // Its own name, so that two runs do not meet; below the project, so that the program finds koffi.
  const folder = projectPath('build', `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  try {
    if (values.boot) {
      await benchBoot(folder, { rounds: values.rounds, json: values.json }, say);
      return;
    }
    const image = await openImage();
    const setting = await prepare(folder, image, say);
    if (values.warm) {
      const { rounds, scale } = values;
      await benchWarm({ ...setting, folder, rounds, scale, say }, values.only, values.json);
      return;
    }
    const rows = await measureRounds(folder, setting, values.rounds);
    const result = report(rows);
    console.log(await description(image));
    console.log(formatTable(rows));
    for (const [name, ratio] of Object.entries(result.ratios)) {
      console.log(`${name.padEnd(20)}${ratio === null ? 'not measured' : ratio.toFixed(2)}`);
    }
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
    if (values.chart !== undefined) writeFileSync(values.chart, chart(`${image.title}, all synced`, result));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function openImage(): Promise<Image> {
  const { image, shape, scale, compression, layers } = values;
  if (image !== undefined) return Promise.resolve(givenImage(image));
  return syntheticImage(shape, { scale, compression, layers }, say);
}

async function measureRounds(folder: string, setting: Setting, rounds: number): Promise<Row[]> {
  const pipelines = chosen();
  const { image, variables, program, sid } = setting;
  // hostctl is the first in each round.
  let reference: Reference | undefined;
  let floorInput: FloorInput | undefined;
  const contestantOf = (pipeline: Pipeline): Contestant => ({
    name: pipeline.name,
    unavailable: unavailable(pipeline, setting),
    async run() {
      await warm(image.layers);
      return onTarget(folder, async (target) => {
        const measured = await measure(folder, pipeline.script, { ...variables, TARGET: target.path });
        const bytesWritten = target.written();
        const repository = join(target.path, 'composefs');
        if (existsSync(repository)) {
          const algorithm = pipeline.script.includes('sha512') ? 'sha512' : 'sha256';
          const made = await checkRepository(repository, program, algorithm, sid);
          if (pipeline.kind === 'hostctl') {
            reference = made;
            floorInput ??= await prepareFloor(folder, image.layers, image.compression, join(repository, 'objects'));
          }
        } else if (pipeline.result === 'composefs' && reference !== undefined) {
          checkPeer(join(target.path, 'objects'), reference);
        }
        return { ...measured, bytesWritten };
      });
    },
  });
  const floor: Contestant = {
    name: 'floor',
    async run() {
      const input = floorInput;
      if (input === undefined) throw new Error('hostctl was not measured');
      await warm([...image.layers, ...input.tars]);
      return onTarget(folder, async (target) => {
        const measured = await measureFloor(folder, target, input);
        return { ...measured, bytesWritten: target.written() };
      });
    },
  };
  const results = await contest('cold', rounds, [...pipelines.map(contestantOf), floor], say);
  return results.map(({ runs, note }, i) => ({
    pipeline: pipelines[i] ?? 'floor',
    runs,
    ...(note === undefined ? {} : { note }),
  }));
}

function chosen(): readonly Pipeline[] {
  const { only } = values;
  return PIPELINES.filter(
    (pipeline) =>
      pipeline.kind === 'hostctl' || only === undefined || only.some((word) => pipeline.name.includes(word)),
  );
}
