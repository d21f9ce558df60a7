/**
 * Looks whether the repository holds what its names say. Without `deep` names, kinds, sizes and the kernel's own
 * measurements are compared; images are always read whole, since they say which objects there must be. With `deep`
 * every byte of every object is read.
 */

import * as fs from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { errnoOf, HostctlError, isHostctlError } from '../errors.ts';
import { listNames } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { DIGEST } from './image-record.ts';
import { isLinked, listImages, readImage, readImageUse } from './images.ts';
import { digestOfFile } from './objects.ts';
import { objectFile, type Repository } from './repository.ts';
import type { ImageUse } from './usage.ts';

export interface ObjectFinding {
  readonly code: 'image-corrupt' | 'object-missing' | 'object-corrupt' | 'object-unprotected';
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

/** Checks images and objects; `host.signal` ends it between two objects. */
export async function checkRepository(host: Host, repository: Repository, deep: boolean): Promise<RepositoryCheck> {
  const findings: ObjectFinding[] = [];
  const images: ImageUse[] = [];
  for (const digest of listImages(repository)) {
    const use = readUse(repository, digest, findings);
    if (use === undefined) continue;
    images.push(use);
    if (!deep || use.parts === undefined) continue;
    await nextTurn();
    checkParts(repository, digest, findings);
  }
  const needed = new Map<string, { sizes: Set<number>; images: VerityDigest[] }>();
  for (const { digest, objects } of images) {
    for (const [object, size] of objects) {
      const entry = needed.get(object) ?? { sizes: new Set(), images: [] };
      entry.sizes.add(size);
      entry.images.push(digest);
      needed.set(object, entry);
    }
  }
  const damagedImages = new Set<string>(findings.map(({ digest }) => digest));
  const over = imagesOver(images);
  const present = objectNames(repository).filter((name) => !needed.has(name) && !damagedImages.has(name));
  for (const name of [...needed.keys(), ...present]) {
    await nextTurn();
    if (host.signal.aborted) throw new HostctlError('interrupted', 'Stopped checking');
    const entry = needed.get(name);
    const problem = checkObject(host, repository, name, entry?.sizes, deep);
    if (problem !== undefined) findings.push({ digest: name, images: entry?.images ?? [], ...problem });
  }
  const withThoseOver = findings.map((finding) => ({
    ...finding,
    images: [...new Set(finding.images.flatMap((digest) => [digest, ...(over.get(digest) ?? [])]))],
  }));
  return { findings: withThoseOver, images };
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
  for (const [name, size] of [...(use?.objects ?? []), ...(base?.objects ?? [])]) {
    await nextTurn();
    if (host.signal.aborted) throw new HostctlError('interrupted', 'Stopped checking');
    const problem = checkObject(host, repository, name, new Set([size]), true);
    if (problem !== undefined) findings.push({ digest: name, images: [digest], ...problem });
  }
  const [first] = findings;
  if (first === undefined) return;
  throw new HostctlError('corrupt', `Image ${digest}: ${first.message}`, { hint: 'See "hostctl fsck --deep"' });
}

/** Reads an image and, where it can be read, what it needs. */
function readUse(repository: Repository, digest: VerityDigest, findings: ObjectFinding[]): ImageUse | undefined {
  try {
    if (!isLinked(repository, digest)) {
      throw new HostctlError('corrupt', `"images/${digest}" does not lead to its object`);
    }
    return readImageUse(repository, digest);
  } catch (error) {
    if (!isHostctlError(error) && errnoOf(error) === undefined) throw error;
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

type Problem = Pick<ObjectFinding, 'code' | 'message'>;

function checkObject(
  host: Host,
  repository: Repository,
  digest: string,
  sizes: ReadonlySet<number> | undefined,
  deep: boolean,
): Problem | undefined {
  const corrupt = (how: string): Problem => ({
    code: 'object-corrupt',
    message: `The object ${digest} is damaged: ${how}`,
  });
  let fd: number;
  try {
    fd = fs.openSync(objectFile(repository, digest), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return { code: 'object-missing', message: `The object ${digest} is missing` };
    if (errnoOf(error) === undefined) throw error;
    return corrupt((error as Error).message);
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) return corrupt('it is not a regular file');
    if (sizes !== undefined && (sizes.size > 1 || !sizes.has(stat.size))) {
      return corrupt(`it has ${stat.size} bytes, not ${[...sizes].join(' and ')}`);
    }
    const measured = host.syscalls.measureVerity(fd);
    if (measured.kind === 'enabled' && measured.digestHex !== digest) {
      return corrupt(`the kernel measures ${measured.digestHex}`);
    }
    if (deep && digestOfFile(fd, repository.algorithm) !== digest) return corrupt('its content is another');
    if (repository.hasVerity && measured.kind !== 'enabled') {
      return { code: 'object-unprotected', message: `The object ${digest} has no fs-verity` };
    }
    return undefined;
  } catch (error) {
    // What a failing disk answers, and fs-verity for a block that does not fit.
    if (errnoOf(error) === 'EIO') return corrupt('it cannot be read');
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}
