/** Further images in an OCI layout on this host: one that is in it, with a layer more. None of its layers is unpacked. */

import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Descriptor, layerTypes, refName, writeBlob, writeIndex, writeJson } from '../../helpers/oci-builder.ts';
import { tar, tarFile, tarSymlink } from '../../helpers/tar-builder.ts';

/** Text of files by path; `-> target` is a link. An executable script begins with `#!`. */
export type Files = Readonly<Record<string, string | Buffer>>;

export interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

export function blobIn(layout: string, { digest }: Descriptor): string {
  return join(layout, 'blobs', digest.replace(':', '/'));
}

export async function readDocument<T>(path: string): Promise<T> {
  return JSON.parse(await readFile(path, 'utf8')) as T;
}

/** The manifest that a tag of the layout leads to. */
export async function taggedManifest(layout: string, tag: string): Promise<Descriptor> {
  const index = await readDocument<{ manifests: Descriptor[] }>(join(layout, 'index.json'));
  const [name] = Object.keys(refName(tag)) as [string];
  const found = index.manifests.find(({ annotations }) => annotations?.[name] === tag);
  if (found === undefined) throw new Error(`The layout has no tag "${tag}"`);
  return found;
}

/** Makes this the only image that the layout names. Blobs and index may be links to those of another layout. */
export async function setOnlyTag(layout: string, tag: string, manifest: Descriptor): Promise<void> {
  await rm(join(layout, 'index.json'));
  writeIndex(layout, { schemaVersion: 2, manifests: [{ ...manifest, annotations: refName(tag) }] });
}

/** The image `base` with these files in a layer above, which no tag leads to yet. */
export async function withLayer(layout: string, base: Descriptor, files: Files): Promise<Descriptor> {
  const manifest = await readDocument<Manifest>(blobIn(layout, base));
  const config = await readDocument<{ rootfs: { diff_ids: string[] } }>(blobIn(layout, manifest.config));
  const bytes = filesTar(files);
  const layer = { mediaType: layerTypes.none, digest: writeBlob(layout, bytes), size: bytes.length };
  const rootfs = { ...config.rootfs, diff_ids: [...config.rootfs.diff_ids, layer.digest] };
  const changed = writeJson(layout, { mediaType: manifest.config.mediaType, value: { ...config, rootfs } });
  const value = { ...manifest, config: changed, layers: [...manifest.layers, layer] };
  return writeJson(layout, { mediaType: base.mediaType, value });
}

/** An archive of these files. */
export function filesTar(files: Files): Buffer {
  return tar(
    Object.entries(files).map(([name, content]) =>
      typeof content === 'string' && content.startsWith('-> ')
        ? tarSymlink(name, content.slice(3))
        : tarFile(name, content, { mode: isProgram(content) ? 0o755 : 0o644 }),
    ),
  );
}

const ELF = Buffer.from('\x7fELF', 'latin1');

export function isProgram(content: string | Buffer): boolean {
  return typeof content === 'string' ? content.startsWith('#!') : content.subarray(0, 4).equals(ELF);
}
