/** Writes OCI layouts layer by layer, compressed on the way. */

import { spawn } from 'node:child_process';
import { createHash, type Hash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { fileHash } from '../../../test/vm/lib/cache.ts';

export type LayerCompression = 'gzip' | 'zstd';

export interface WrittenLayer {
  readonly digest: string;
  readonly size: number;
  readonly diffId: string;
  /** Where it is not that of the others. */
  readonly mediaType?: string;
}

/** A layer on its way through the compressor. */
export class LayerWriter {
  readonly #directory: string;
  readonly #file: string;
  readonly #fd: number;
  readonly #input: Writable;
  readonly #closed: Promise<unknown[]>;
  readonly #diffId: Hash = createHash('sha256');

  constructor(directory: string, compression: LayerCompression) {
    mkdirSync(join(directory, 'blobs/sha256'), { recursive: true });
    this.#directory = directory;
    this.#file = join(directory, `blobs/layer.${process.pid}`);
    this.#fd = openSync(this.#file, 'w');
    const args = compression === 'gzip' ? ['-6nc'] : ['-3qc'];
    const child = spawn(compression, args, { stdio: ['pipe', this.#fd, 'inherit'] });
    this.#input = child.stdin!;
    this.#closed = once(child, 'close');
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#diffId.update(bytes);
    if (!this.#input.write(bytes)) await once(this.#input, 'drain');
  }

  async finish(): Promise<WrittenLayer> {
    this.#input.end();
    const [code] = await this.#closed;
    if (code !== 0) throw new Error(`The compressor failed with ${String(code)}`);
    closeSync(this.#fd);
    const digest = await fileHash(this.#file);
    const { size } = statSync(this.#file);
    renameSync(this.#file, join(this.#directory, 'blobs/sha256', digest));
    return { digest: `sha256:${digest}`, size, diffId: `sha256:${this.#diffId.digest('hex')}` };
  }
}

/** Writes a folder as a layer, with what `more` tells tar: `.` for all that is in it. */
export async function packLayer(
  layout: string,
  compression: LayerCompression,
  folder: string,
  more: readonly string[] = ['.'],
): Promise<WrittenLayer> {
  const layer = new LayerWriter(layout, compression);
  const xattrs = ['--xattrs', '--xattrs-include=security.capability'];
  const args = ['--create', '--format=pax', '--sort=name', '--numeric-owner', ...xattrs, '--directory', folder];
  const child = spawn('tar', [...args, ...more], { stdio: ['ignore', 'pipe', 'inherit'] });
  const closed = once(child, 'close');
  for await (const piece of child.stdout) await layer.write(piece as Buffer);
  const [code] = (await closed) as [number];
  if (code !== 0) throw new Error(`tar failed with ${code}`);
  return layer.finish();
}

/** Ends a layout whose layers are written. */
export function finishLayout(
  directory: string,
  tag: string,
  compression: LayerCompression,
  layers: readonly WrittenLayer[],
): void {
  const oci = 'application/vnd.oci.image';
  const put = (mediaType: string, value: unknown): { mediaType: string; digest: string; size: number } => {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(join(directory, 'blobs/sha256', digest), bytes);
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length };
  };
  const config = put(`${oci}.config.v1+json`, {
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const mediaType = `${oci}.layer.v1.tar+${compression}`;
  const manifest = put(`${oci}.manifest.v1+json`, {
    schemaVersion: 2,
    mediaType: `${oci}.manifest.v1+json`,
    config,
    layers: layers.map(({ digest, size, mediaType: own = mediaType }) => ({ mediaType: own, digest, size })),
  });
  const named = { ...manifest, annotations: { 'org.opencontainers.image.ref.name': tag } };
  writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }));
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
}
