/**
 * Looks whether the repository holds what its names say. Without `deep` names, kinds, sizes and the kernel's own
 * measurements are compared; images are always read whole, since they say which objects there must be. With `deep`
 * every byte of every object is read.
 */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { errnoOf, HostctlError, isHostctlError, isShortage } from '../errors.ts';
import { listNames } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { problemOf, type ObjectProblem } from './check-object.ts';
import { ObjectReader } from './check-objects.ts';
import { DIGEST } from './image-record.ts';
import { isLinked, listImages, readImage, readImageUse } from './images.ts';
import type { Repository } from './repository.ts';
import type { ImageUse } from './usage.ts';

export interface ObjectFinding {
  readonly code: 'image-corrupt' | ObjectProblem['code'];
  readonly digest: string;
  readonly message: string;
  /** Images that need it; none when it is referenced by none. */
  readonly images: readonly VerityDigest[];
}

export interface RepositoryCheck {
  readonly findings: readonly ObjectFinding[];
  /** Images that could be read. */
  readonly images: readonly ImageUse[];
}

/** Checks images and objects; `host.signal` ends it between two of them. */
export async function checkRepository(host: Host, repository: Repository, deep: boolean): Promise<RepositoryCheck> {
  const present = objectNames(repository);
  const reader = new ObjectReader(host, repository, present, deep);
  try {
    const findings: ObjectFinding[] = [];
    const images = await readUses(repository, deep, findings);
    const needed = neededObjects(images);
    const damagedImages = new Set<string>(findings.map(({ digest }) => digest));
    const others = present.filter((name) => !needed.has(name) && !damagedImages.has(name));
    const names = [...needed.keys(), ...others];
    for (const [i, look] of (await reader.look(names)).entries()) {
      const digest = names[i]!;
      const need = needed.get(digest);
      const problem = problemOf(digest, look, need?.sizes);
      if (problem !== undefined) findings.push({ digest, images: need?.images ?? [], ...problem });
    }
    const over = imagesOver(images);
    const withThoseOver = findings.map((finding) => ({
      ...finding,
      images: [...new Set(finding.images.flatMap((digest) => [digest, ...(over.get(digest) ?? [])]))],
    }));
    return { findings: withThoseOver, images };
  } finally {
    await reader.close();
  }
}

/** The images that can be read; with `deep`, what makes an image is put together as well. */
async function readUses(repository: Repository, deep: boolean, findings: ObjectFinding[]): Promise<ImageUse[]> {
  const images: ImageUse[] = [];
  for (const digest of listImages(repository)) {
    const use = readUse(repository, digest, findings);
    if (use === undefined) continue;
    images.push(use);
    if (!deep || use.parts === undefined) continue;
    await nextTurn();
    checkParts(repository, digest, findings);
  }
  return images;
}

interface Need {
  /** Different ones. */
  readonly sizes: readonly number[];
  readonly images: readonly VerityDigest[];
}

function neededObjects(images: readonly ImageUse[]): Map<string, Need> {
  const needed = new Map<string, Need>();
  for (const { digest, objects } of images) {
    const alone = [digest];
    for (const [object, size] of objects) {
      const known = needed.get(object);
      const sizes = known === undefined ? [size] : known.sizes.includes(size) ? known.sizes : [...known.sizes, size];
      needed.set(object, { sizes, images: known === undefined ? alone : [...known.images, digest] });
    }
  }
  return needed;
}

/** Bases with the images that are laid over each. */
function imagesOver(images: readonly ImageUse[]): Map<VerityDigest, VerityDigest[]> {
  const over = new Map<VerityDigest, VerityDigest[]>();
  for (const { digest, parts } of images) {
    if (parts !== undefined) over.set(parts.base, [...(over.get(parts.base) ?? []), digest]);
  }
  return over;
}

/** Whether what an image is made of still makes it. */
function checkParts(repository: Repository, digest: VerityDigest, findings: ObjectFinding[]): void {
  try {
    readImage(repository, digest);
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    findings.push({ code: 'image-corrupt', digest, message: error.message, images: [digest] });
  }
}

/** Reads every byte of one image and of the objects it names. Throws 'corrupt' for the first that is not as it should be. */
export async function checkImage(host: Host, repository: Repository, digest: VerityDigest): Promise<void> {
  const findings: ObjectFinding[] = [];
  const use = readUse(repository, digest, findings);
  const base = use?.parts === undefined ? undefined : readUse(repository, use.parts.base, findings);
  if (base !== undefined) checkParts(repository, digest, findings);
  const sizes = [...(use?.objects ?? []), ...(base?.objects ?? [])];
  const names = sizes.map(([name]) => name);
  const reader = new ObjectReader(host, repository, names, true);
  try {
    const looks = await reader.look(names);
    const problems = sizes.map(([name, size], i) => problemOf(name, looks[i]!, [size]));
    const first = findings[0] ?? problems.find((problem) => problem !== undefined);
    if (first === undefined) return;
    throw new HostctlError('corrupt', `Image ${digest}: ${first.message}`, { hint: 'See "hostctl fsck --deep"' });
  } finally {
    await reader.close();
  }
}

/** Reads an image and, where it can be read, what it needs. */
function readUse(repository: Repository, digest: VerityDigest, findings: ObjectFinding[]): ImageUse | undefined {
  try {
    if (!isLinked(repository, digest)) {
      throw new HostctlError('corrupt', `"images/${digest}" does not lead to its object`);
    }
    return readImageUse(repository, digest);
  } catch (error) {
    if ((!isHostctlError(error) && errnoOf(error) === undefined) || isShortage(error)) throw error;
    findings.push({ code: 'image-corrupt', digest, message: (error as Error).message, images: [digest] });
    return undefined;
  }
}

function objectNames({ objectsPath }: Repository): string[] {
  return listNames(objectsPath)
    .filter((prefix) => /^[0-9a-f]{2}$/.test(prefix))
    .flatMap((prefix) => listNames(`${objectsPath}/${prefix}`).map((rest) => prefix + rest))
    .filter((name) => DIGEST.test(name));
}
