/**
 * Images in the repository. An image is an object like any other; what makes it an image is its link in `images/`,
 * which appears only after the image and every object it names are durable. Names under `images/refs/` keep images
 * alive, also for other tools' garbage collection.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError } from '../errors.ts';
import { formatImageParameters, type ImageParameters } from '../format/cmdline.ts';
import { imageObjects } from '../format/erofs/image-objects.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { withChecksum } from '../format/checksum.ts';
import { formatKeyfile, parseKeyfile } from '../format/keyfile.ts';
import {
  createFile,
  exists,
  fsyncPath,
  listNames,
  makeDirectories,
  readSmallText,
  removeQuietly,
  temporaryName,
} from '../sys/files.ts';
import type { VerityDigest } from '../tree/node.ts';
import type { ObjectStore } from './objects.ts';
import { objectFile, type Repository } from './repository.ts';
import type { ImageUse } from './usage.ts';

/** How an image was made: two digests of one OCI image differ as soon as one of these does. */
export interface ImageRecord {
  readonly parameters: ImageParameters;
  /** Which xattrs of the layers went in. */
  readonly xattrs: 'allowlist-only';
  /** Whether `/boot` and `/sysroot` were emptied and labels computed, as for a host. */
  readonly bootable: boolean;
}

export const RECORDS = 'hostctl';
/** The names of images and, without the slash, of objects. */
export const DIGEST = /^([0-9a-f]{64}|[0-9a-f]{128})$/;
const IMAGE_MAX_BYTES = 2 ** 31;

/**
 * Stores an image and makes it one that may be mounted. Everything it names must already be in `store`. Idempotent.
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
  writeRecord(repository, digest, record);
  const link = `${repository.path}/images/${digest}`;
  const target = `../objects/${digest.slice(0, 2)}/${digest.slice(2)}`;
  if (linkTarget(link) !== target) {
    placeLink(target, link);
    store.newImages.add(digest);
  }
  // Also for a link that is there already: the command that made it may have died before it synced the directory.
  fsyncPath(`${repository.path}/images`);
  return digest;
}

/** Takes the link of an image away, durably, and its record: its objects are then nobody's. */
export function removeImage(repository: Repository, digest: VerityDigest): void {
  fs.rmSync(`${repository.path}/images/${digest}`, { force: true });
  fsyncPath(`${repository.path}/images`);
  fs.rmSync(`${repository.path}/${RECORDS}/${digest}`, { force: true });
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

/** The bytes of an image, checked against its digest. Throws 'image-not-found' or 'corrupt'. */
export function readImage(repository: Repository, digest: VerityDigest): Uint8Array {
  if (linkTarget(`${repository.path}/images/${digest}`) === undefined) throw notFound(repository, digest);
  let bytes: Uint8Array;
  try {
    const path = objectFile(repository, digest);
    if (fs.statSync(path).size > IMAGE_MAX_BYTES) throw damaged(digest, 'it is too large');
    bytes = fs.readFileSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw damaged(digest, 'its object is missing');
    if (errnoOf(error) === 'EISDIR') throw damaged(digest, 'its object is no file');
    throw error;
  }
  if (fsverityDigest(repository.algorithm, bytes) !== digest) throw damaged(digest, 'its content is another');
  return bytes;
}

/** Objects that an image in the repository names, itself among them. Throws 'corrupt' when it cannot be read whole. */
export function readImageUse(repository: Repository, digest: VerityDigest): ImageUse {
  const bytes = readImage(repository, digest);
  const objects = new Map<string, number>([[digest, bytes.length]]);
  for (const { path, size } of imageObjects(bytes)) if (path !== undefined) objects.set(path.replace('/', ''), size);
  return { digest, objects };
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

/** Written before the image's link: whoever finds the link finds the record. */
function writeRecord(repository: Repository, digest: VerityDigest, record: ImageRecord): void {
  const directory = makeDirectories(repository.path, RECORDS);
  const path = imageRecordPath(repository, digest);
  if (!exists(path)) placeRecord(directory, path, record);
  fsyncPath(directory);
}

function placeRecord(directory: string, path: string, record: ImageRecord): void {
  const text = formatKeyfile(
    new Map([
      [
        'image',
        new Map([
          ['parameters', formatImageParameters(record.parameters)],
          ['xattrs', record.xattrs],
          ['bootable', String(record.bootable)],
        ]),
      ],
    ]),
  );
  const temporary = `${directory}/${temporaryName('record')}`;
  createFile(temporary, withChecksum(text, ';'), 0o644);
  fs.renameSync(temporary, path);
}

/** Where it is recorded how an image was made; other tools' images have none. */
export function imageRecordPath({ path }: Repository, digest: VerityDigest): string {
  return `${path}/${RECORDS}/${digest}`;
}

const CONTENTS_SUFFIX = '.contents';

/** Where `store/contents.ts` keeps what is known of the contents of an image. */
export function contentsPath(repositoryPath: string, digest: VerityDigest): string {
  return `${repositoryPath}/${RECORDS}/${digest}${CONTENTS_SUFFIX}`;
}

/** The image that such a file is about, by its name; undefined for another file. */
export function imageOfContents(name: string): VerityDigest | undefined {
  const digest = name.endsWith(CONTENTS_SUFFIX) ? name.slice(0, -CONTENTS_SUFFIX.length) : '';
  return DIGEST.test(digest) ? (digest as VerityDigest) : undefined;
}

/** How an image was made, as far as it was recorded. */
export function readImageRecord(
  repository: Repository,
  digest: VerityDigest,
): { readonly parameters?: string; readonly xattrs?: string; readonly bootable?: boolean } {
  const text = readSmallText(imageRecordPath(repository, digest));
  const section = text === undefined ? undefined : parseKeyfile(text).get('image');
  const parameters = section?.get('parameters');
  const xattrs = section?.get('xattrs');
  return {
    ...(parameters === undefined ? {} : { parameters }),
    ...(xattrs === undefined ? {} : { xattrs }),
    ...(section === undefined ? {} : { bootable: section.get('bootable') === 'true' }),
  };
}

function notFound(repository: Repository, digest: VerityDigest): HostctlError {
  return new HostctlError('image-not-found', `There is no image ${digest} in "${repository.path}"`);
}

function damaged(digest: VerityDigest, how: string): HostctlError {
  return new HostctlError('corrupt', `The image ${digest} is damaged: ${how}`, {
    hint: 'Deploy or pull it again; a damaged object is then replaced',
  });
}
