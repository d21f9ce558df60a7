/**
 * Looks at one object: whether a regular file stands under its name, with the content that the name says. Everything is
 * done in place, by as few system calls as there can be: a repository has many small objects.
 */

import * as fs from 'node:fs';
import { errnoOf, isShortage } from '../errors.ts';
import type { Syscalls } from '../sys/syscalls.ts';
import { digestOfFile } from './file-digest.ts';
import { objectFile, type ObjectPlace } from './repository.ts';

export interface ObjectProblem {
  readonly code: 'object-missing' | 'object-corrupt' | 'object-unprotected';
  readonly message: string;
}

/** What was found under the name of an object. */
export interface ObjectLook {
  /** Of the file; undefined where there is none that could be looked at. */
  readonly sizeBytes: number | undefined;
  /** What is wrong with it whatever its size should be. */
  readonly problem: ObjectProblem | undefined;
}

/** What there is to know of a repository; as plain data, which threads are given. */
export type CheckedPlace = Pick<ObjectPlace, 'objectsPath' | 'algorithm' | 'hasVerity'>;

// A fifo would keep whoever opens it waiting.
const FLAGS = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/**
 * Looks at an object; with `deep` at its content. Throws where the machine is short of something, which says nothing about
 * the object.
 * @param syscalls - measures what is on a file system with fs-verity; undefined elsewhere
 */
export function lookAtObject(
  place: CheckedPlace,
  digest: string,
  deep: boolean,
  syscalls: Pick<Syscalls, 'measureVerity'> | undefined,
): ObjectLook {
  let sizeBytes: number | undefined;
  const found = (problem?: ObjectProblem): ObjectLook => ({ sizeBytes, problem });
  let fd: number;
  try {
    fd = fs.openSync(objectFile(place, digest), FLAGS);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT')
      return found({ code: 'object-missing', message: `The object ${digest} is missing` });
    if (errnoOf(error) === undefined || isShortage(error)) throw error;
    return found(corrupt(digest, (error as Error).message));
  }
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) return found(corrupt(digest, 'it is not a regular file'));
    sizeBytes = stat.size;
    const measured = syscalls?.measureVerity(fd);
    if (measured?.kind === 'enabled' && measured.digestHex !== digest) {
      return found(corrupt(digest, `the kernel measures ${measured.digestHex}`));
    }
    if (deep && digestOfFile(fd, place.algorithm, sizeBytes) !== digest) {
      return found(corrupt(digest, 'its content is another'));
    }
    if (measured !== undefined && measured.kind !== 'enabled') {
      return found({ code: 'object-unprotected', message: `The object ${digest} has no fs-verity` });
    }
    return found();
  } catch (error) {
    // What a failing disk answers, and fs-verity for a block that does not fit.
    if (errnoOf(error) === 'EIO') return found(corrupt(digest, 'it cannot be read'));
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/** What is wrong with an object that images say has one of `sizes`; none where no image names it. */
export function problemOf(
  digest: string,
  { sizeBytes, problem }: ObjectLook,
  sizes: readonly number[] | undefined,
): ObjectProblem | undefined {
  if (sizeBytes === undefined || sizes === undefined || (sizes.length === 1 && sizes[0] === sizeBytes)) return problem;
  return corrupt(digest, `it has ${sizeBytes} bytes, not ${sizes.join(' and ')}`);
}

function corrupt(digest: string, how: string): ObjectProblem {
  return { code: 'object-corrupt', message: `The object ${digest} is damaged: ${how}` };
}
