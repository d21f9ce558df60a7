/**
 * Seals of images on this host: `seals/<digest>` and `seals/<digest>.sig` in the repository, where the initramfs looks
 * for them, and `seals/revoked` with its signature. Durable before any boot entry needs them.
 */

import * as fs from 'node:fs';
import { HostctlError, isShortage } from '../errors.ts';
import { parseSeal, type Seal } from '../format/seal/seal.ts';
import { formatSignatures, MAX_SIGNATURES, parseSignatures, type Signature } from '../format/seal/signatures.ts';
import { MAX_SEAL_BYTES } from '../format/seal/lines.ts';
import { fsyncPath, makeDirectories, readSmallFile, replaceFile } from '../sys/files.ts';
import type { VerityDigest } from '../tree/node.ts';
import type { Repository } from './repository.ts';

export const SEALS = 'seals';
/** Name of the list of revoked images among the seals. */
export const REVOKED_LIST = 'revoked';

/** A seal with its signatures, as they were published. */
export interface SealFiles {
  readonly bytes: Uint8Array;
  readonly signatures: Uint8Array;
}

type Place = Pick<Repository, 'path'>;

/**
 * Makes a signed text durable under `name`, in place of another one. Killed at any point, what stands under the name is
 * one of the two and has its signature: meanwhile the signatures of both stand beside it.
 */
export function writeSigned({ path }: Place, name: string, { bytes, signatures }: SealFiles): void {
  const directory = makeDirectories(path, SEALS);
  const file = `${directory}/${name}`;
  const before = ifReadable(() => readSigned({ path }, name));
  const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
  if (before !== undefined && isSame(before.bytes, bytes) && isSame(before.signatures, signatures)) return;
  removeIfDirectory(file);
  removeIfDirectory(`${file}.sig`);
  if (before !== undefined && !isSame(before.bytes, bytes)) {
    const both = ifReadable(() => mergeSignatures(parseSignatures(signatures), parseSignatures(before.signatures)));
    if (both !== undefined) replaceFile(`${file}.sig`, formatSignatures(both));
    replaceFile(file, bytes);
  }
  replaceFile(`${file}.sig`, signatures);
  if (before === undefined) replaceFile(file, bytes);
}

/** What stands under `name`; undefined where one of the two files is missing. */
export function readSigned({ path }: Place, name: string): SealFiles | undefined {
  const bytes = readSmallFile(`${path}/${SEALS}/${name}`, MAX_SEAL_BYTES);
  const signatures = readSmallFile(`${path}/${SEALS}/${name}.sig`, MAX_SEAL_BYTES);
  return bytes === undefined || signatures === undefined ? undefined : { bytes, signatures };
}

/** Takes a seal away, the text last. Idempotent. */
export function removeSigned({ path }: Place, name: string): void {
  for (const file of [`${name}.sig`, name]) {
    fs.rmSync(`${path}/${SEALS}/${file}`, { force: true, recursive: true });
    fsyncPath(`${path}/${SEALS}`);
  }
}

/**
 * The seal of an image that is deployed here, whole and made for it; who signed it is the initramfs' to judge. Throws
 * 'corrupt'.
 */
export function requireStoredSeal(repository: Place, digest: VerityDigest): Seal {
  const damaged = (how: string, cause?: unknown): HostctlError =>
    new HostctlError('corrupt', `The seal of image ${digest} ${how}`, {
      hint: 'Deploy the image again: its seal comes with it',
      cause,
    });
  let files: SealFiles | undefined;
  let seal: Seal | undefined;
  try {
    files = readSigned(repository, digest);
    if (files !== undefined) {
      parseSignatures(files.signatures);
      seal = parseSeal(files.bytes);
    }
  } catch (error) {
    if (!(error instanceof HostctlError)) throw error;
    throw damaged(`cannot be read: ${error.message}`, error);
  }
  if (seal === undefined) throw damaged(`is missing in "${repository.path}"`);
  if (seal.digests.some((each) => each.digest === digest)) return seal;
  throw damaged('is that of another image');
}

/** Lines of both, the first's first, as many as are read. */
export function mergeSignatures(first: readonly Signature[], second: readonly Signature[]): Signature[] {
  const key = ({ keyId, bytes }: Signature): string => `${keyId} ${Buffer.from(bytes).toString('base64')}`;
  const seen = new Set(first.map(key));
  return [...first, ...second.filter((each) => !seen.has(key(each)))].slice(0, MAX_SIGNATURES);
}

/** What cannot be read is as good as not there: it is replaced. */
function ifReadable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isShortage(error)) throw error;
    return undefined;
  }
}

function removeIfDirectory(path: string): void {
  if (fs.lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true) fs.rmSync(path, { recursive: true });
}
