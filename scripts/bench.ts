/**
 * `npm run bench`: how long an OCI image takes to become objects and a composefs image, durable, with hostctl and with
 * what one would use instead. Interleaved rounds, each program on a new file system, and every result looked at.
 *
 *   npm run bench -- [--image oci:DIR | --shape layers|giant|small --compression gzip|zstd --scale N] [--rounds N]
 *                    [--only WORD]... [--json FILE] [--chart FILE]
 *   npm run bench -- --finalize        # what `finalize-staged` takes at shutdown
 */

import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { sidRoot } from '../test/helpers/sid-root.ts';
import { cached } from '../test/vm/lib/cache.ts';
import { checkPeer, checkRepository, type Reference } from './lib/bench/check.ts';
import { benchFinalize } from './lib/bench/finalize.ts';
import { measureFloor, prepareFloor, type FloorInput } from './lib/bench/floor.ts';
import { writeBenchImage, type BenchImageOptions } from './lib/bench/image.ts';
import { measure } from './lib/bench/measure.ts';
import { noFsyncLibrary } from './lib/bench/no-fsync.ts';
import { PIPELINES, type Pipeline } from './lib/bench/pipelines.ts';
import { chart, formatTable, report, type Row, type Run } from './lib/bench/report.ts';
import { makeTarget } from './lib/bench/target.ts';
import { bundleProgram } from './lib/deb.ts';
import { BENCH_NEEDS, ensureHostPackages, missingPackages } from './lib/host-packages.ts';
import { projectPath } from './lib/project.ts';
import { run } from './lib/run.ts';

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
  await installPeers();
  // Its own name, so that two runs do not meet; below the project, so that the program finds koffi.
  const folder = projectPath('build', `bench-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  try {
    const image = await openImage();
    const setting = await prepare(folder, image);
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

/** Peers that cannot be had are not measured; the rest is needed. */
async function installPeers(): Promise<void> {
  await ensureHostPackages(
    BENCH_NEEDS.filter(({ optional }) => optional !== true),
    say,
  );
  const missing = missingPackages(BENCH_NEEDS);
  if (missing.length > 0) await ensureHostPackages(BENCH_NEEDS, say).catch((error: unknown) => say(String(error)));
}

interface Image {
  readonly title: string;
  readonly directory: string;
  readonly tag: string | undefined;
  readonly layers: readonly string[];
  readonly compression: 'gzip' | 'zstd';
}

async function openImage(): Promise<Image> {
  if (values.image !== undefined) {
    const directory = resolve(values.image.replace(/^oci:/, ''));
    return readImage(directory, `oci:${directory.split('/').at(-1)}`);
  }
  const options: BenchImageOptions = {
    scale: Number(values.scale),
    compression: values.compression === 'zstd' ? 'zstd' : 'gzip',
    layers: SHAPES[values.shape] ?? 3,
  };
  const directory = await cached('bench-image', { ...options, format: 4 }, (empty) => {
    say('Making the image');
    return writeBenchImage(empty, options);
  });
  return readImage(directory, `Synthetic image (${values.shape}, ${options.compression}, scale ${options.scale})`);
}

function readImage(directory: string, title: string): Image {
  interface Descriptor {
    readonly digest: string;
    readonly mediaType: string;
    readonly annotations?: Record<string, string>;
    readonly manifests?: readonly Descriptor[];
    readonly layers?: readonly Descriptor[];
  }
  const parse = (name: string): Descriptor => JSON.parse(readFileSync(join(directory, name), 'utf8')) as Descriptor;
  const blob = ({ digest }: Descriptor): string => `blobs/${digest.replace(':', '/')}`;
  const [manifest] = parse('index.json').manifests ?? [];
  if (manifest === undefined) throw new Error(`No image in "${directory}"`);
  const layers = parse(blob(manifest)).layers ?? [];
  return {
    title,
    directory,
    tag: manifest.annotations?.['org.opencontainers.image.ref.name'],
    layers: layers.map((layer) => join(directory, blob(layer))),
    compression: layers.some(({ mediaType }) => mediaType.endsWith('zstd')) ? 'zstd' : 'gzip',
  };
}

interface Setting {
  readonly image: Image;
  readonly program: string;
  readonly sid: string | undefined;
  readonly variables: NodeJS.ProcessEnv;
}

async function prepare(folder: string, image: Image): Promise<Setting> {
  await bundleProgram(join(folder, 'program'));
  const program = join(folder, 'program/main.js');
  // podman takes a path with a dot in it for something else.
  symlinkSync(image.directory, join(folder, 'image'));
  const sid = await sidRoot().catch((error: unknown) => {
    say(`No mkcomposefs: ${String(error)}`);
    return undefined;
  });
  return {
    image,
    program,
    sid,
    variables: {
      IMAGE: join(folder, 'image'),
      LAYERS: image.layers.join(' '),
      TAG: image.tag ?? '',
      HOSTCTL: program,
      SID: sid ?? '',
      NO_FSYNC: await noFsyncLibrary(folder),
    },
  };
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

function unavailable(pipeline: Pipeline, { sid, image }: Setting): string | undefined {
  if (pipeline.needs.includes('mkcomposefs') && sid === undefined) return 'no mkcomposefs';
  if (pipeline.script.includes('$TAG') && image.tag === undefined) return 'the image has no tag';
  if (pipeline.script.includes('igzip') && image.compression !== 'gzip') return 'not gzip';
  const missing = missingPackages(BENCH_NEEDS.filter(({ probe }) => pipeline.needs.includes(probe)));
  return missing.length > 0 ? `no ${missing.join(', ')}` : undefined;
}

async function warm(files: readonly string[]): Promise<void> {
  await run('sh', ['-c', 'cat "$@" >/dev/null', 'sh', ...files]);
}

async function description({ title, layers }: Image): Promise<string> {
  const versions = await run('sh', ['-c', 'bsdtar --version; umoci --version; ostree --version | sed -n 2p; podman --version; igzip --version; true']).catch(() => ''); // prettier-ignore
  const cpu = os.cpus()[0]?.model ?? 'unknown processor';
  return [
    `${title}, ${layers.length} layers`,
    `${os.availableParallelism()} × ${cpu}, Linux ${os.release()}, Node ${process.versions.node}, load ${os.loadavg()[0]?.toFixed(1)}`,
    versions.trim().replaceAll('\n', '; '),
  ].join('\n');
}
