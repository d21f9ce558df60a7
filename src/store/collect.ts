/**
 * What may go from the repository, decided over a snapshot, and its removal. An object stays when an image that stays
 * names it; which these are is read from the images themselves, and one that cannot be read stops everything: then
 * nothing is removed at all. Only ever under the exclusive repository lock.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { allocatedBytes, fsyncPath, isDirectory, listNames, split, TEMPORARY_NAME } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { listCachedBlobs, removeCachedBlob } from './blob-cache.ts';
import { imageOfContents } from './contents.ts';
import { DIGEST, RECORDS } from './image-record.ts';
import { linkTarget, removeImage } from './images.ts';
import { LAYER_NAME, LAYERS } from './layer-records.ts';
import { deadMarkers } from './markers.ts';
import { SEALS } from './seals.ts';
import type { Repository } from './repository.ts';
import { dropDeadMarkers } from './sweep.ts';
import type { ImageUse } from './usage.ts';

export interface RepositoryItem {
  readonly kind:
    | 'ref'
    | 'image'
    | 'image-record'
    | 'layer-record'
    | 'seal'
    | 'object'
    | 'object-directory'
    | 'temporary'
    | 'marker'
    | 'blob';
  /** Digest of an image, object or layer, path below `images/refs` of a ref, else the file's name. */
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

export interface RepositorySnapshot {
  readonly refs: readonly { readonly name: string; readonly digest: VerityDigest | undefined }[];
  readonly images: readonly VerityDigest[];
  readonly records: readonly RepositoryItem[];
  readonly layers: readonly RepositoryItem[];
  /** Files of seals, each by the image it is for. */
  readonly seals: readonly (RepositoryItem & { readonly digest: string })[];
  readonly objects: readonly RepositoryItem[];
  /** Names of the directories of objects, each two digits. */
  readonly objectDirectories: readonly string[];
  readonly temporaries: readonly RepositoryItem[];
  readonly markers: readonly RepositoryItem[];
  /** Of the cache, unless a running command uses it. */
  readonly blobs: readonly RepositoryItem[];
  /** Streams of other tools, which keep objects that hostctl cannot tell. */
  readonly streams: readonly string[];
}

/** An image that must stay, and for whom. */
export interface ImageRoot {
  readonly digest: VerityDigest;
  /** Who needs it, for messages. */
  readonly needed: string;
  /** False for what may well lie in another repository. */
  readonly isOurs: boolean;
}

export interface RepositoryGarbage {
  /** In the order in which they go. */
  readonly items: readonly RepositoryItem[];
  /** Why something stays that looks unused. */
  readonly notes: readonly { readonly code: string; readonly message: string }[];
}

/** Places that hold roots. One that is missing is damage, not "no roots". */
const ROOT_PLACES = ['images', 'images/refs', 'streams', 'streams/refs', 'objects'] as const;
const HEX_PAIR = /^[0-9a-f]{2}$/;

/** Reads every name. Throws 'state-invalid' when a place of roots is missing. */
export function readRepositorySnapshot(host: Host, repository: Repository): RepositorySnapshot {
  const { path, objectsPath } = repository;
  for (const place of ROOT_PLACES) {
    if (isDirectory(`${path}/${place}`)) continue;
    throw new HostctlError('state-invalid', `The repository "${path}" has lost its directory "${place}"`, {
      hint: 'Nothing was removed; make the directory again if it is known to have been empty',
    });
  }
  const objectDirectories = listNames(objectsPath).filter((name) => HEX_PAIR.test(name));
  const refs = walk(`${path}/images/refs`);
  const inObjects = objectDirectories.flatMap((prefix) =>
    listNames(`${objectsPath}/${prefix}`).map((rest) =>
      itemOf('object', prefix + rest, `${objectsPath}/${prefix}/${rest}`),
    ),
  );
  return {
    refs: refs.filter(isLasting).map((name) => ({ name, digest: refDigest(`${path}/images/refs/${name}`) })),
    images: listNames(`${path}/images`).filter((name) => DIGEST.test(name)) as VerityDigest[],
    records: listNames(`${path}/${RECORDS}`).flatMap((name) => {
      const image = imageOfContents(name) ?? name;
      return DIGEST.test(image) ? [itemOf('image-record', image, `${path}/${RECORDS}/${name}`)] : [];
    }),
    layers: listNames(`${path}/${LAYERS}`)
      .filter((name) => LAYER_NAME.test(name))
      .map((name) => itemOf('layer-record', name, `${path}/${LAYERS}/${name}`)),
    seals: listNames(`${path}/${SEALS}`).flatMap((name) => {
      const digest = name.replace(/\.sig$/, '');
      return DIGEST.test(digest) ? { ...itemOf('seal', name, `${path}/${SEALS}/${name}`), digest } : [];
    }),
    objects: inObjects.filter(({ name }) => DIGEST.test(name)),
    objectDirectories,
    temporaries: [
      ...[path, `${path}/images`, `${path}/${RECORDS}`, `${path}/${SEALS}`].flatMap((at) =>
        listNames(at).map((name) => `${at}/${name}`),
      ),
      ...refs.map((name) => `${path}/images/refs/${name}`),
      ...inObjects.map((item) => item.path),
    ]
      .filter((file) => TEMPORARY_NAME.test(split(file).name))
      .map((file) => itemOf('temporary', split(file).name, file)),
    markers: deadMarkers(host.syscalls, path).map((marker) => itemOf('marker', split(marker).name, marker)),
    blobs: listCachedBlobs(host, path).map((blob) => ({ kind: 'blob' as const, ...blob })),
    streams: [
      ...listNames(`${path}/streams`).filter((name) => name !== 'refs'),
      ...walk(`${path}/streams/refs`).map((name) => `refs/${name}`),
    ],
  };
}

/** What the caller decided. */
export interface CollectChoice {
  readonly droppedRefs: ReadonlySet<string>;
  /** Names of cached blobs that stay. */
  readonly keptBlobs: ReadonlySet<string>;
}

/** How the plan looks into images. */
export interface ImageReader {
  /** What it throws stops the whole. */
  useOf(digest: VerityDigest): ImageUse;
  /** The base of an image, also of one that is damaged otherwise. */
  baseOf(digest: VerityDigest): VerityDigest | undefined;
  /** Names of the layers that an image was made of, as far as that is known. */
  layersOf(digest: VerityDigest): readonly string[];
  /** When a cached image was last mounted, or made. */
  lastUse(digest: VerityDigest): number;
}

/** What images that can be made again may take. */
export const IMAGE_CACHE_BYTES = 256 << 20;

/** Decides what goes. Throws 'corrupt' when an image that one of ours needs is not there. */
export function planRepositoryGarbage(
  repository: Pick<Repository, 'path' | 'objectsPath'>,
  snapshot: RepositorySnapshot,
  roots: readonly ImageRoot[],
  { droppedRefs, keptBlobs }: CollectChoice,
  reader: ImageReader,
): RepositoryGarbage {
  const refs = snapshot.refs
    .filter(({ name }) => droppedRefs.has(name))
    .map(({ name }) => itemOf('ref', name, `${repository.path}/images/refs/${name}`));
  const blobs = snapshot.blobs.filter(({ name }) => !keptBlobs.has(name));
  const staying = snapshot.refs.filter(({ name }) => !droppedRefs.has(name));
  const notes = [...streamNotes(snapshot), ...refNotes(staying)];
  const needed = [
    ...roots,
    ...staying.map(({ name, digest }) => ({ digest, needed: `the ref "${name}"`, isOurs: true })),
  ];
  const kept = keptImages(repository, snapshot, needed);
  const reachable = reachableFrom(repository, snapshot, kept, new Set(roots.map(({ digest }) => digest)), reader);
  // A seal keeps nothing, and is of no use without a deployment that boots its image.
  const sealed = new Set<string>(needed.flatMap(({ digest }) => digest ?? []));
  const seals = snapshot.seals.filter(({ digest }) => !sealed.has(digest));
  if (notes.length > 0) return { items: [...refs, ...seals, ...snapshot.temporaries, ...blobs], notes };
  const layers = new Set([...kept].flatMap((digest) => reader.layersOf(digest)));
  const objects = snapshot.objects.filter(({ name }) => !reachable.has(name));
  const images = snapshot.images.filter((digest) => !kept.has(digest));
  const emptied = snapshot.objectDirectories.filter(
    (prefix) => !snapshot.objects.some(({ name }) => name.startsWith(prefix) && reachable.has(name)),
  );
  return {
    items: [
      ...refs,
      ...seals,
      ...inOrder(images, reader).map((digest) => itemOf('image', digest, `${repository.path}/images/${digest}`)),
      ...snapshot.records.filter(({ name }) => !kept.has(name as VerityDigest)),
      ...snapshot.layers.filter(({ name }) => !layers.has(name)),
      ...objects,
      ...snapshot.temporaries,
      ...blobs,
      ...emptied.map((prefix) => ({
        kind: 'object-directory' as const,
        name: prefix,
        path: `${repository.objectsPath}/${prefix}`,
        // What lies in it is counted by itself.
        bytes: 0,
      })),
      ...snapshot.markers,
    ],
    notes,
  };
}

/** Takes one item away. Killed in between, what is left is still garbage and nothing else. */
export function removeRepositoryItem(host: Host, repository: Repository, item: RepositoryItem): void {
  switch (item.kind) {
    case 'image':
      removeImage(repository, item.name as VerityDigest);
      return;
    case 'ref':
      fs.rmSync(item.path, { force: true });
      fsyncPath(split(item.path).directory);
      return;
    case 'marker':
      dropDeadMarkers(host, repository);
      return;
    case 'object-directory':
      removeIfEmpty(item.path);
      return;
    case 'blob':
      removeCachedBlob(host, repository.path, item.path);
      return;
    case 'seal':
    case 'image-record':
    case 'layer-record':
    case 'object':
    case 'temporary':
      fs.rmSync(item.path, { force: true, recursive: true });
  }
}

/**
 * Objects of the images that stay, to which their bases are added. Of an image that can be made again its own object is
 * not among them, unless it is cached, was used of late, or something else than its name wants it whole.
 */
function reachableFrom(
  repository: Pick<Repository, 'path'>,
  snapshot: RepositorySnapshot,
  kept: Set<VerityDigest>,
  roots: ReadonlySet<VerityDigest>,
  reader: ImageReader,
): Set<string> {
  const reachable = new Set<string>();
  const whole = new Set(roots);
  const remakable: ImageUse[] = [];
  // The set grows while it is gone through.
  for (const digest of kept) {
    const use = reader.useOf(digest);
    for (const object of use.objects.keys()) if (object !== digest) reachable.add(object);
    if (use.parts === undefined) whole.add(digest);
    else {
      const { base } = use.parts;
      keptImages(repository, snapshot, [{ digest: base, needed: `the image ${digest}`, isOurs: true }]);
      kept.add(base);
      whole.add(base);
      remakable.push(use);
    }
  }
  for (const digest of whole) reachable.add(digest);
  const cached = remakable.filter(({ digest, parts, objects }) => parts?.layout === 'cached' && objects.has(digest));
  cached.sort((a, b) => reader.lastUse(b.digest) - reader.lastUse(a.digest));
  let cachedBytes = 0;
  for (const { digest, objects } of cached) {
    cachedBytes += objects.get(digest) ?? 0;
    if (cachedBytes <= IMAGE_CACHE_BYTES) reachable.add(digest);
  }
  return reachable;
}

/** Each image before its base: what is there at any moment has what it is made of. */
function inOrder(images: readonly VerityDigest[], reader: ImageReader): VerityDigest[] {
  const bases = new Set(images.map((digest) => reader.baseOf(digest)));
  return [...images].sort((a, b) => Number(bases.has(a)) - Number(bases.has(b)));
}

function keptImages(
  repository: Pick<Repository, 'path'>,
  { images, objects }: RepositorySnapshot,
  needed: readonly { digest: VerityDigest | undefined; needed: string; isOurs: boolean }[],
): Set<VerityDigest> {
  const linked = new Set(images);
  const stored = new Set(objects.map(({ name }) => name));
  const kept = new Set<VerityDigest>();
  for (const root of needed) {
    if (root.digest === undefined) continue;
    if (linked.has(root.digest)) {
      kept.add(root.digest);
    } else if (root.isOurs || stored.has(root.digest)) {
      throw new HostctlError(
        'corrupt',
        `The image ${root.digest} that ${root.needed} needs is not in "${repository.path}"; nothing was removed`,
        { hint: 'Repair it with "hostctl fsck --repair", or delete what needs it' },
      );
    }
  }
  return kept;
}

function streamNotes({ streams }: RepositorySnapshot): RepositoryGarbage['notes'] {
  if (streams.length === 0) return [];
  const message =
    `Another tool keeps ${streams.length} streams in the repository, and which objects they need hostctl cannot tell: ` +
    'no image and no object is removed';
  return [{ code: 'foreign-streams', message }];
}

function refNotes(refs: RepositorySnapshot['refs']): RepositoryGarbage['notes'] {
  return refs
    .filter(({ digest }) => digest === undefined)
    .map(({ name }) => ({
      code: 'ref-unreadable',
      message: `The ref "${name}" does not name an image: no image and no object is removed`,
    }));
}

function refDigest(path: string): VerityDigest | undefined {
  const digest = linkTarget(path)?.split('/').at(-1);
  return digest !== undefined && DIGEST.test(digest) ? (digest as VerityDigest) : undefined;
}

/** Every file below a directory by its path in it. */
function walk(directory: string, prefix = ''): string[] {
  return fs
    .readdirSync(`${directory}/${prefix}`, { withFileTypes: true })
    .flatMap((entry) => (entry.isDirectory() ? walk(directory, `${prefix}${entry.name}/`) : [`${prefix}${entry.name}`]))
    .sort();
}

function isLasting(path: string): boolean {
  return !TEMPORARY_NAME.test(split(path).name);
}

function itemOf(kind: RepositoryItem['kind'], name: string, path: string): RepositoryItem {
  return { kind, name, path, bytes: allocatedBytes(path) };
}

function removeIfEmpty(path: string): void {
  try {
    fs.rmdirSync(path);
  } catch (error) {
    // Something lies there that is not an object: it stays, and the directory with it.
    if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'ENOENT') throw error;
  }
}
