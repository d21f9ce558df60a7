/**
 * Images in the repository. An image is an object like any other; what makes it an image is its link in `images/`,
 * which appears only after the image and every object it names are durable. Names under `images/refs/` keep images
 * alive, also for other tools' garbage collection.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError, isHostctlError } from '../errors.ts';
import { joinComposefsDelta } from '../format/erofs/delta.ts';
import { imageObjects } from '../format/erofs/image-objects.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { exists, fsyncPath, listNames, makeDirectories, removeQuietly, temporaryName } from '../sys/files.ts';
import type { VerityDigest } from '../tree/node.ts';
import { contentsPath } from './contents.ts';
import {
  DIGEST,
  imageParts,
  imageRecordPath,
  writeImageRecord,
  type ImageParts,
  type ImageRecord,
} from './image-record.ts';
import type { ObjectStore } from './objects.ts';
import { objectFile, type Repository } from './repository.ts';
import type { ImageUse } from './usage.ts';

const IMAGE_MAX_BYTES = 2 ** 31;

/**
 * Stores an image flat and makes it one that may be mounted. Everything it names must already be in `store`. Idempotent.
 * Returns its digest.
 */
export function commitImage(
  repository: Repository,
  store: ObjectStore,
  bytes: Uint8Array,
  record: ImageRecord,
): VerityDigest {
  const digest = store.put(bytes);
  store.barrier();
  writeImageRecord(repository, digest, record);
  linkImage(repository, store, digest);
  return digest;
}

/**
 * Makes a tree an image that may be mounted without storing it whole: its base is an image already, its delta is in
 * `store`, and what they make has this digest. Idempotent.
 */
export function commitParts(
  repository: Repository,
  store: ObjectStore,
  digest: VerityDigest,
  record: ImageRecord & { readonly parts: ImageParts },
): void {
  store.barrier();
  writeImageRecord(repository, digest, record);
  linkImage(repository, store, digest);
}

function linkImage({ path }: Repository, store: ObjectStore, digest: VerityDigest): void {
  const link = `${path}/images/${digest}`;
  if (!isLinked({ path }, digest)) {
    placeLink(targetOf(digest), link);
    store.newImages.add(digest);
  }
  // Also for a link that is there already: the command that made it may have died before it synced the directory.
  fsyncPath(`${path}/images`);
}

/** Whether the link of an image is there and leads to its object, which may be missing where it is not stored whole. */
export function isLinked({ path }: Pick<Repository, 'path'>, digest: VerityDigest): boolean {
  return linkTarget(`${path}/images/${digest}`) === targetOf(digest);
}

function targetOf(digest: VerityDigest): string {
  return `../objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
}

/** Takes the link of an image away, durably, and its record: its objects are then nobody's. */
export function removeImage(repository: Repository, digest: VerityDigest): void {
  fs.rmSync(`${repository.path}/images/${digest}`, { force: true });
  fsyncPath(`${repository.path}/images`);
  fs.rmSync(imageRecordPath(repository, digest), { force: true });
  fs.rmSync(contentsPath(repository.path, digest), { force: true });
}

/** Every ref, by its path below `images/refs`, with the image it names. */
export function listRefs(repository: Repository): Map<string, VerityDigest> {
  const refs = new Map<string, VerityDigest>();
  const pending = [''];
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    for (const entry of fs.readdirSync(`${repository.path}/images/refs/${directory}`, { withFileTypes: true })) {
      const name = `${directory}${entry.name}`;
      if (entry.isDirectory()) pending.push(`${name}/`);
      if (!entry.isSymbolicLink()) continue;
      const digest = linkTarget(`${repository.path}/images/refs/${name}`)?.split('/').at(-1);
      if (digest !== undefined && DIGEST.test(digest)) refs.set(name, digest as VerityDigest);
    }
  }
  return refs;
}

/** Whether the repository names this image as one that may be mounted, and has what it is stored as. */
export function hasImage(repository: Repository, digest: VerityDigest): boolean {
  const isStored = (object: VerityDigest): boolean =>
    fs.lstatSync(objectFile(repository, object), { throwIfNoEntry: false })?.isFile() ?? false;
  if (!isLinked(repository, digest)) return false;
  if (isStored(digest)) return true;
  try {
    const parts = imageParts(repository, digest);
    return parts !== undefined && isStored(parts.base) && isStored(parts.delta);
  } catch (error) {
    // What a damaged record says cannot be used.
    if (isHostctlError(error, 'corrupt')) return false;
    throw error;
  }
}

/** The bytes of an image, checked against its digest, made again where it is not stored whole. Throws 'image-not-found' or 'corrupt'. */
export function readImage(repository: Repository, digest: VerityDigest): Uint8Array {
  if (!isLinked(repository, digest)) throw notFound(repository, digest);
  const parts = imageParts(repository, digest);
  if (parts === undefined || exists(objectFile(repository, digest))) return readChecked(repository, digest, digest);
  return remakeImage(repository, digest, parts);
}

/** The bytes of an image out of what it is made of, checked against its digest. Throws 'corrupt'. */
export function remakeImage(repository: Repository, digest: VerityDigest, parts: ImageParts): Uint8Array {
  const base = readImage(repository, parts.base);
  const delta = readChecked(repository, parts.delta, digest);
  const { algorithm } = repository;
  const bytes = joinComposefsDelta(base, delta, algorithm);
  if (fsverityDigest(algorithm, bytes) === digest) return bytes;
  throw damaged(digest, 'its base and its delta make another one');
}

/** An object that is the image `of` or a part of it. */
function readChecked(repository: Repository, object: VerityDigest, of: VerityDigest): Uint8Array {
  const part = object === of ? 'its' : "its delta's";
  let bytes: Uint8Array;
  try {
    const path = objectFile(repository, object);
    if (fs.statSync(path).size > IMAGE_MAX_BYTES) throw damaged(of, 'it is too large');
    bytes = fs.readFileSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw damaged(of, `${part} object is missing`);
    if (errnoOf(error) === 'EISDIR') throw damaged(of, `${part} object is no file`);
    throw error;
  }
  if (fsverityDigest(repository.algorithm, bytes) !== object) throw damaged(of, `${part} content is another`);
  return bytes;
}

/**
 * Objects that an image names, and what it is stored as; those of its base are the base's. Asks for no link: what must
 * not go is to be known also where that is damaged. Throws 'corrupt' when it cannot be read whole.
 */
export function readImageUse(repository: Repository, digest: VerityDigest): ImageUse {
  const parts = imageParts(repository, digest);
  const own = parts?.delta ?? digest;
  const bytes = readChecked(repository, own, digest);
  const objects = new Map<string, number>([[own, bytes.length]]);
  for (const { path, size } of imageObjects(bytes)) if (path !== undefined) objects.set(path.replace('/', ''), size);
  if (parts === undefined) return { digest, objects };
  const whole = fs.lstatSync(objectFile(repository, digest), { throwIfNoEntry: false });
  if (whole !== undefined) objects.set(digest, whole.size);
  return { digest, objects, parts };
}

/** Digests of all images that may be mounted, sorted. */
export function listImages(repository: Repository): VerityDigest[] {
  return listNames(`${repository.path}/images`).filter((name) => DIGEST.test(name)) as VerityDigest[];
}

/** Makes `images/refs/<name>` point at an image, durably. An existing ref of that name moves. */
export function setRef(repository: Repository, name: string, digest: VerityDigest): void {
  const parts = name.split('/');
  const directory = makeDirectories(`${repository.path}/images/refs`, parts.slice(0, -1).join('/'));
  const target = `${'../'.repeat(parts.length)}${digest}`;
  const path = `${repository.path}/images/refs/${name}`;
  const before = linkTarget(path);
  if (before !== target) placeLink(target, path);
  try {
    fsyncPath(directory);
  } catch (error) {
    // A command that fails has changed nothing: a ref that stayed would keep the image as well.
    if (before === undefined) removeQuietly(path);
    else if (before !== target) placeLink(before, path);
    throw error;
  }
}

/** Removes a ref durably. Absent is fine. */
export function removeRef(repository: Repository, name: string): void {
  const path = `${repository.path}/images/refs/${name}`;
  if (!exists(path)) return;
  fs.unlinkSync(path);
  fsyncPath(path.slice(0, path.lastIndexOf('/')));
}

/** A name as one path component, as composefs-rs does: `%` and `/` escaped. */
export function refComponent(name: string): string {
  return name.replaceAll('%', '%25').replaceAll('/', '%2F');
}

/** The name that `refComponent` made a component of. */
export function refText(component: string): string {
  return component.replaceAll('%2F', '/').replaceAll('%25', '%');
}

/** The target of a symlink; undefined where there is none. */
export function linkTarget(path: string): string | undefined {
  try {
    return fs.readlinkSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EINVAL') return undefined;
    throw error;
  }
}

/** Puts a symlink at `path` in one step, whatever was there. */
function placeLink(target: string, path: string): void {
  const slash = path.lastIndexOf('/');
  const temporary = `${path.slice(0, slash)}/${temporaryName('link')}`;
  fs.symlinkSync(target, temporary);
  try {
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.unlinkSync(temporary);
    throw error;
  }
}

function notFound(repository: Repository, digest: VerityDigest): HostctlError {
  return new HostctlError('image-not-found', `There is no image ${digest} in "${repository.path}"`);
}

function damaged(digest: VerityDigest, how: string): HostctlError {
  return new HostctlError('corrupt', `The image ${digest} is damaged: ${how}`, {
    hint: 'Deploy or pull it again; a damaged object is then replaced',
  });
}
