/**
 * Writes an OCI image layout by hand, for images made here: layers are tar archives, compressed as the image asks.
 * Follows the OCI image specification 1.1; the same input gives the same bytes.
 */

import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { fileHash } from './cache.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

export interface ImageSpec {
  readonly tag: string;
  /** Archives in order, lowest first. */
  readonly layers: readonly { readonly tar: string; readonly compression: Compression }[];
  readonly labels: Readonly<Record<string, string>>;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

const LAYER_TYPES: Record<Compression, string> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};

/** Writes `images` into `folder`, which must not exist; a layer that several name is stored once. */
export async function writeOciLayout(folder: string, images: readonly ImageSpec[]): Promise<void> {
  const blobs = join(folder, 'blobs/sha256');
  await mkdir(blobs, { recursive: true });
  const stored = new Map<string, Descriptor>();
  const manifests: Descriptor[] = [];
  for (const image of images) {
    const layers: Descriptor[] = [];
    const diffIds: string[] = [];
    for (const { tar, compression } of image.layers) {
      const key = `${compression} ${tar}`;
      const descriptor = stored.get(key) ?? (await storeLayer(blobs, tar, compression));
      stored.set(key, descriptor);
      layers.push(descriptor);
      diffIds.push(`sha256:${await fileHash(tar)}`);
    }
    const config = await storeJson(blobs, 'application/vnd.oci.image.config.v1+json', {
      created: '2026-01-01T00:00:00Z',
      architecture: 'amd64',
      os: 'linux',
      config: { Labels: image.labels },
      rootfs: { type: 'layers', diff_ids: diffIds },
    });
    const manifest = await storeJson(blobs, 'application/vnd.oci.image.manifest.v1+json', {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config,
      layers,
    });
    manifests.push({ ...manifest, annotations: { 'org.opencontainers.image.ref.name': image.tag } });
  }
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests };
  await writeFile(join(folder, 'index.json'), JSON.stringify(index));
  await writeFile(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
}

async function storeLayer(blobs: string, tar: string, compression: Compression): Promise<Descriptor> {
  const scratch = join(blobs, '.layer');
  switch (compression) {
    case 'none':
      await pipeline(createReadStream(tar), createWriteStream(scratch));
      break;
    case 'gzip':
      await pipeline(createReadStream(tar), createGzip({ level: 1 }), createWriteStream(scratch));
      break;
    case 'zstd': {
      const child = spawn('zstd', ['-q', '-3', '-c', tar], { stdio: ['ignore', 'pipe', 'inherit'] });
      const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
      await pipeline(child.stdout, createWriteStream(scratch));
      if ((await ended) !== 0) throw new Error(`zstd failed on ${tar}`);
      break;
    }
  }
  const digest = await fileHash(scratch);
  await rename(scratch, join(blobs, digest));
  const { size } = await stat(join(blobs, digest));
  return { mediaType: LAYER_TYPES[compression], digest: `sha256:${digest}`, size };
}

async function storeJson(blobs: string, mediaType: string, value: unknown): Promise<Descriptor> {
  const bytes = Buffer.from(JSON.stringify(value));
  const digest = createHash('sha256').update(bytes).digest('hex');
  await writeFile(join(blobs, digest), bytes);
  return { mediaType, digest: `sha256:${digest}`, size: bytes.length };
}
