/** What every measurement needs: the image, the program as it is packaged, and what it is held against. */

import { mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import { join, resolve } from 'node:path';
import { sidRoot } from '../../../test/helpers/sid-root.ts';
import { cached } from '../../../test/vm/lib/cache.ts';
import { bundleProgram } from '../bundle.ts';
import { BENCH_NEEDS, ensureHostPackages, missingPackages } from '../host-packages.ts';
import { run } from '../run.ts';
import { writeBenchImage, type BenchImageOptions } from './image.ts';
import { noFsyncLibrary } from './no-fsync.ts';
import type { Pipeline } from './pipelines.ts';

export type Say = (line: string) => void;

export interface Image {
  readonly title: string;
  readonly directory: string;
  readonly tag: string | undefined;
  readonly layers: readonly string[];
  readonly compression: 'gzip' | 'zstd';
  /** What it was made of, where that was a seed. */
  readonly synthetic?: BenchImageOptions;
}

export interface Setting {
  readonly image: Image;
  readonly program: string;
  readonly sid: string | undefined;
  /** What the scripts of pipelines are written in. */
  readonly variables: NodeJS.ProcessEnv;
}

/** A setting in which rows are measured. */
export interface Bench extends Setting {
  /** Below the project, for everything that is made. */
  readonly folder: string;
  readonly rounds: number;
  /** 1 is full size, for what is made of numbers. */
  readonly scale: number;
  readonly say: Say;
}

/** Peers that cannot be had are not measured; the rest is needed. */
export async function installPeers(say: Say): Promise<void> {
  await ensureHostPackages(
    BENCH_NEEDS.filter(({ optional }) => optional !== true),
    say,
  );
  const missing = missingPackages(BENCH_NEEDS);
  if (missing.length > 0) await ensureHostPackages(BENCH_NEEDS, say).catch((error: unknown) => say(String(error)));
}

/** The image that a reference names. */
export function givenImage(reference: string): Image {
  const directory = resolve(reference.replace(/^oci:/, ''));
  return readImage(directory, `oci:${directory.split('/').at(-1)}`);
}

/** The image that is made of a seed. */
export async function syntheticImage(shape: string, options: BenchImageOptions, say: Say): Promise<Image> {
  const directory = await cached('bench-image', { ...options, format: 4 }, (empty) => {
    say('Making the image');
    return writeBenchImage(empty, options);
  });
  const title = `Synthetic image (${shape}, ${options.compression}, scale ${options.scale})`;
  return { ...readImage(directory, title), synthetic: options };
}

export function readImage(directory: string, title: string): Image {
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

export async function prepare(folder: string, image: Image, say: Say): Promise<Setting> {
  await bundleProgram(join(folder, 'program'));
  const program = join(folder, 'program/main.js');
  const sid = await sidRoot().catch((error: unknown) => {
    say(`No mkcomposefs: ${String(error)}`);
    return undefined;
  });
  const common = { HOSTCTL: program, SID: sid ?? '', NO_FSYNC: await noFsyncLibrary(folder) };
  return { image, program, sid, variables: { ...common, ...imageVariables(folder, image) } };
}

/** The part of the variables that says what is deployed; `folder` is new. */
export function imageVariables(folder: string, image: Image): NodeJS.ProcessEnv {
  mkdirSync(folder, { recursive: true });
  // podman takes a path with a dot in it for something else.
  symlinkSync(image.directory, join(folder, 'image'));
  return { IMAGE: join(folder, 'image'), LAYERS: image.layers.join(' '), TAG: image.tag ?? '' };
}

/** Why a pipeline cannot be measured here. */
export function unavailable(pipeline: Pipeline, { sid, image }: Setting): string | undefined {
  if (pipeline.needs.includes('mkcomposefs') && sid === undefined) return 'no mkcomposefs';
  if (pipeline.script.includes('$TAG') && image.tag === undefined) return 'the image has no tag';
  if (pipeline.script.includes('igzip') && image.compression !== 'gzip') return 'not gzip';
  const missing = missingPackages(BENCH_NEEDS.filter(({ probe }) => pipeline.needs.includes(probe)));
  return missing.length > 0 ? `no ${missing.join(', ')}` : undefined;
}

/** Reads files, so that they are in memory. */
export async function warm(files: readonly string[]): Promise<void> {
  await run('sh', ['-c', 'cat "$@" >/dev/null', 'sh', ...files]);
}

/** Reads all files below a folder. */
export async function warmTree(folder: string): Promise<void> {
  await run('sh', ['-c', 'find "$1" -type f -exec cat {} + >/dev/null', 'sh', folder]);
}

/** On what it was measured, and with what. */
export async function description({ title, layers }: Image): Promise<string> {
  const versions = await run('sh', ['-c', 'bsdtar --version; umoci --version; ostree --version | sed -n 2p; podman --version; igzip --version; true']).catch(() => ''); // prettier-ignore
  const cpu = os.cpus()[0]?.model ?? 'unknown processor';
  return [
    `${title}, ${layers.length} layers`,
    `${os.availableParallelism()} × ${cpu}, Linux ${os.release()}, Node ${process.versions.node}, load ${os.loadavg()[0]?.toFixed(1)}`,
    versions.trim().replaceAll('\n', '; '),
  ].join('\n');
}
