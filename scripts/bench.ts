/**
 * `npm run bench`: how long an OCI image takes to become objects and a composefs image, durable, with hostctl and with
 * what one would use instead. Interleaved rounds, each program on a new file system, and every result looked at.
 *
 *   npm run bench -- [--image oci:DIR | --shape layers|giant|small --compression gzip|zstd --scale N] [--rounds N]
 *                    [--only WORD]... [--json FILE] [--chart FILE]
 *   npm run bench -- --warm [--only second|create|digest|starts|fsck|hash|entries|images|large]...
 *                           # all else that is asked of hostctl, against limits and what one would use instead
 *   npm run bench -- --boot            # in a guest: what the hook adds to a boot, and fs-verity to a pull
 *   npm run bench -- --finalize        # what `finalize-staged` takes at shutdown
 */

import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { benchBoot } from './lib/bench/boot.ts';
import { checkPeer, checkRepository, type Reference } from './lib/bench/check.ts';
import { benchFinalize } from './lib/bench/finalize.ts';
import { measureFloor, prepareFloor, type FloorInput } from './lib/bench/floor.ts';
import { measure } from './lib/bench/measure.ts';
import { PIPELINES, type Pipeline } from './lib/bench/pipelines.ts';
import { chart, formatTable, report, type Row, type Run } from './lib/bench/report.ts';
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
import { makeTarget } from './lib/bench/target.ts';
import { benchWarm } from './lib/bench/warm.ts';
import { projectPath } from './lib/project.ts';

const { values } = parseArgs({
  options: {
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
  },
});
const say = (line: string): void => console.error(line);

/** How many layers the files of the synthetic image go into. */
const SHAPES: Readonly<Record<string, number>> = { layers: 3, giant: 1, small: 63 };

if (values.finalize) await benchFinalize();
else await bench();

async function bench(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('Needs root: every program writes to a file system made for it');
  await installPeers(say);
  // Its own name, so that two runs do not meet; below the project, so that the program finds koffi.
  const folder = projectPath('build', `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  try {
    if (values.boot) {
      await benchBoot(folder, { rounds: Number(values.rounds), json: values.json }, say);
      return;
    }
    const image = await openImage();
    const setting = await prepare(folder, image, say);
    if (values.warm) {
      const rounds = Number(values.rounds);
      await benchWarm({ ...setting, folder, rounds, scale: Number(values.scale), say }, values.only, values.json);
      return;
    }
    const rows = await measureRounds(folder, setting, Number(values.rounds));
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
  if (values.image !== undefined) return Promise.resolve(givenImage(values.image));
  const compression = values.compression === 'zstd' ? 'zstd' : 'gzip';
  const options = { scale: Number(values.scale), compression, layers: SHAPES[values.shape] ?? 3 } as const;
  return syntheticImage(values.shape, options, say);
}

async function measureRounds(folder: string, setting: Setting, rounds: number): Promise<Row[]> {
  const runs = new Map<Pipeline | 'floor', Run[]>();
  const notes = new Map<Pipeline | 'floor', string>();
  let floorInput: FloorInput | undefined;
  for (let round = 1; round <= rounds; round++) {
    let reference: Reference | undefined;
    for (const pipeline of [...chosen(), 'floor' as const]) {
      const missing = pipeline === 'floor' ? undefined : unavailable(pipeline, setting);
      if (missing !== undefined) notes.set(pipeline, missing);
      if (notes.has(pipeline)) continue;
      await warm(setting.image.layers);
      const target = await makeTarget(folder);
      try {
        if (pipeline === 'floor') {
          if (floorInput === undefined) throw new Error('hostctl was not measured');
          await warm(floorInput.tars);
          runs.set('floor', [...(runs.get('floor') ?? []), { ...(await measureFloor(folder, target, floorInput)), bytesWritten: target.written() }]); // prettier-ignore
          continue;
        }
        say(`Round ${round} of ${rounds}: ${pipeline.name} (load ${os.loadavg()[0]?.toFixed(1)})`);
        const measured = await measure(folder, pipeline.script, { ...setting.variables, TARGET: target.path });
        const bytesWritten = target.written();
        const repository = join(target.path, 'composefs');
        if (existsSync(repository)) {
          const algorithm = pipeline.script.includes('sha512') ? 'sha512' : 'sha256';
          const made = await checkRepository(repository, setting.program, algorithm, setting.sid);
          if (pipeline.kind === 'hostctl') reference = made;
          if (pipeline.kind === 'hostctl') floorInput ??= await prepareFloor(folder, setting.image.layers, setting.image.compression, join(repository, 'objects')); // prettier-ignore
        } else if (pipeline.result === 'composefs' && reference !== undefined) {
          checkPeer(join(target.path, 'objects'), reference);
        }
        runs.set(pipeline, [...(runs.get(pipeline) ?? []), { ...measured, bytesWritten }]);
      } catch (error) {
        // A row that fails once, or makes the wrong thing, is void.
        notes.set(pipeline, error instanceof Error ? error.message.split('\n').slice(0, 3).join(' ') : String(error));
        runs.delete(pipeline);
      } finally {
        await target.remove();
      }
    }
  }
  return [...chosen(), 'floor' as const].map((pipeline) => {
    const note = notes.get(pipeline);
    return { pipeline, runs: runs.get(pipeline) ?? [], ...(note === undefined ? {} : { note }) };
  });
}

function chosen(): readonly Pipeline[] {
  const { only } = values;
  return PIPELINES.filter(
    (pipeline) =>
      pipeline.kind === 'hostctl' || only === undefined || only.some((word) => pipeline.name.includes(word)),
  );
}
