/** Removing objects that no image names. Only ever under the exclusive lock, and only what was looked up in every image. */

import * as fs from 'node:fs';
import { errnoOf } from '../errors.ts';
import { fsyncPath, listNames, openDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { digestOfFile } from './file-digest.ts';
import { DIGEST, imageParts } from './image-record.ts';
import { listImages, listRefs, readImageUse, removeImage } from './images.ts';
import { removeLayerRecord } from './layer-records.ts';
import { deadMarkers } from './markers.ts';
import { mountedImages } from './mounted.ts';
import { ObjectStore } from './objects.ts';
import { objectFile, tryExclusive, withRepositoryLock, type Repository } from './repository.ts';

/** Digests of every object that some image names, and of the images. Throws when an image cannot be read. */
export function reachableObjects(repository: Repository): Set<string> {
  const reachable = new Set<string>();
  for (const digest of listImages(repository)) {
    for (const object of readImageUse(repository, digest).objects.keys()) reachable.add(object);
  }
  return reachable;
}

/**
 * Runs `body` with a store to write to, under the shared repository lock. When it fails, what it published and the
 * images it made are taken back, unless someone else uses the repository, a ref names them or they are mounted: then they
 * stay as cache for gc.
 */
export async function withObjectStore<T>(
  host: Host,
  repository: Repository,
  body: (store: ObjectStore) => Promise<T>,
): Promise<T> {
  settleDoubt(host, repository);
  let store: ObjectStore | undefined;
  try {
    return await withRepositoryLock(host, repository.path, 'shared', async () => {
      store = new ObjectStore(host, repository);
      try {
        return await body(store);
      } finally {
        store.close();
      }
    });
  } catch (error) {
    if (store !== undefined) takeBack(host, repository, store);
    throw error;
  }
}

/** The same for a plan: what `body` stored is taken back in any case. */
export async function withTrialStore<T>(
  host: Host,
  repository: Repository,
  body: (store: ObjectStore) => Promise<T>,
): Promise<T> {
  let used: ObjectStore | undefined;
  const result = await withObjectStore(host, repository, (store) => {
    used = store;
    return body(store);
  });
  if (used !== undefined) takeBack(host, repository, used);
  return result;
}

function takeBack(host: Host, repository: Repository, { published, newImages, newLayers }: ObjectStore): void {
  bestEffort(host, repository, 'take back what was stored', () => {
    const used = new Set([...listRefs(repository).values(), ...mountedImages(host).keys()]);
    // Another command may have laid an image over a base that this one made: the set grows while it is gone through.
    for (const digest of used) {
      const parts = imageParts(repository, digest);
      if (parts !== undefined) used.add(parts.base);
    }
    // What is laid over another image was made after it.
    for (const digest of [...newImages].reverse()) if (!used.has(digest)) removeImage(repository, digest);
    for (const diffId of newLayers) removeLayerRecord(repository, diffId);
    const reachable = reachableObjects(repository);
    for (const digest of published) if (!reachable.has(digest)) removeObject(repository, digest);
    dropDeadMarkers(host, repository);
  });
}

/**
 * Looks at what a command left that died while it published: objects that no image names are measured or read, damaged
 * ones removed, and the rest made durable. Until this has been done, `ObjectStore` trusts no object for its name.
 */
function settleDoubt(host: Host, repository: Repository): void {
  if (deadMarkers(host.syscalls, repository.path).length === 0) return;
  bestEffort(host, repository, 'look at what an interrupted command left', () => {
    const reachable = reachableObjects(repository);
    const objects = repository.objectsPath;
    for (const prefix of listNames(objects)) {
      for (const rest of listNames(`${objects}/${prefix}`)) {
        const digest = prefix + rest;
        const isSound = reachable.has(digest) || (DIGEST.test(digest) && isWhole(host, repository, digest));
        if (!isSound) removeObject(repository, digest);
      }
    }
    dropDeadMarkers(host, repository);
  });
}

function isWhole(host: Host, repository: Repository, digest: string): boolean {
  const fd = fs.openSync(objectFile(repository, digest), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  try {
    if (!repository.hasVerity) return digestOfFile(fd, repository.algorithm) === digest;
    const measured = host.syscalls.measureVerity(fd);
    return measured.kind === 'enabled' && measured.digestHex === digest;
  } finally {
    fs.closeSync(fd);
  }
}

/** What stands now is sound: made durable, and then beyond doubt. */
export function dropDeadMarkers(host: Host, repository: Repository): void {
  const fd = openDirectory(repository.path);
  try {
    host.syscalls.syncfs(fd, repository.path);
  } finally {
    fs.closeSync(fd);
  }
  for (const path of deadMarkers(host.syscalls, repository.path)) fs.unlinkSync(path);
  fsyncPath(repository.path);
}

/** Under the exclusive lock if nobody else uses the repository. Not doing it costs space or time, never safety. */
function bestEffort(host: Host, repository: Repository, what: string, body: () => void): void {
  try {
    const done = tryExclusive(host, repository.path, () => {
      body();
      return true;
    });
    if (done === undefined) host.log.debug(`Cannot ${what}: the repository is in use`);
  } catch (error) {
    host.log.debug(`Cannot ${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function removeObject(repository: Repository, digest: string): void {
  try {
    fs.unlinkSync(objectFile(repository, digest));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
