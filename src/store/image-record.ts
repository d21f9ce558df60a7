/**
 * The record beside each image: how it was made, of which layers, and what it is stored as. A flat image is one object
 * under its own digest. A split or cached one is kept as a base, which is an image of its own, and a delta over it;
 * both make the flat image again, byte for byte, and its digest says so.
 */

import * as fs from 'node:fs';
import { errnoOf, HostctlError, isHostctlError } from '../errors.ts';
import { hasChecksum, withChecksum } from '../format/checksum.ts';
import { formatImageParameters, type ImageParameters } from '../format/cmdline.ts';
import { formatKeyfile, parseKeyfile } from '../format/keyfile.ts';
import { createFile, exists, fsyncPath, makeDirectories, readSmallText, temporaryName } from '../sys/files.ts';
import type { VerityDigest } from '../tree/node.ts';
import { objectFile, type Repository } from './repository.ts';

export const RECORDS = 'hostctl';
/** The names of images and, without the slash, of objects. */
export const DIGEST = /^([0-9a-f]{64}|[0-9a-f]{128})$/;

/** What a mount makes of an image: one EROFS image, two under one overlay, or one that can be dropped meanwhile. */
export type ImageLayout = 'flat' | 'split' | 'cached';

/** What an image is made of that is not stored flat. */
export interface ImageParts {
  readonly layout: Exclude<ImageLayout, 'flat'>;
  /** An image. */
  readonly base: VerityDigest;
  /** An object, no image by itself. */
  readonly delta: VerityDigest;
}

/** How an image was made: two digests of one OCI image differ as soon as one of the first three does. */
export interface ImageRecord {
  readonly parameters: ImageParameters;
  /** Which xattrs of the layers went in. */
  readonly xattrs: 'allowlist-only';
  /** Whether `/boot` and `/sysroot` were emptied and labels computed, as for a host. */
  readonly bootable: boolean;
  /** Diff ids of its layers, the lowest first: what other images can have in common with it. */
  readonly layers?: readonly string[];
  readonly parts?: ImageParts;
}

/** What could be read of a record. */
export interface StoredRecord {
  readonly parameters?: string;
  readonly xattrs?: string;
  readonly bootable?: boolean;
  readonly layers: readonly string[];
  readonly parts?: ImageParts;
}

/** Where it is recorded how an image was made; other tools' images have none. */
export function imageRecordPath({ path }: Pick<Repository, 'path'>, digest: VerityDigest): string {
  return `${path}/${RECORDS}/${digest}`;
}

/**
 * Written before the image's link: whoever finds the link finds the record. One that is there stays, unless the image is
 * stored in another way from now on.
 */
export function writeImageRecord(repository: Repository, digest: VerityDigest, record: ImageRecord): void {
  const directory = makeDirectories(repository.path, RECORDS);
  const path = imageRecordPath(repository, digest);
  if (!exists(path) || record.parts !== undefined || imageParts(repository, digest) !== undefined) {
    placeRecord(directory, path, record);
  }
  fsyncPath(directory);
}

function placeRecord(
  directory: string,
  path: string,
  { parameters, xattrs, bootable, layers, parts }: ImageRecord,
): void {
  const values = new Map([
    ['parameters', formatImageParameters(parameters)],
    ['xattrs', xattrs],
    ['bootable', String(bootable)],
    ...(layers === undefined ? [] : [['layers', layers.join(' ')] as const]),
    ...(parts === undefined ? [] : Object.entries(parts)),
  ]);
  const temporary = `${directory}/${temporaryName('record')}`;
  createFile(temporary, withChecksum(formatKeyfile(new Map([['image', values]])), ';'), 0o644);
  fs.renameSync(temporary, path);
}

/** How an image was made, as far as it was recorded. */
export function readImageRecord(repository: Pick<Repository, 'path'>, digest: VerityDigest): StoredRecord {
  return parseImageRecord(readSmallText(imageRecordPath(repository, digest)) ?? '');
}

function parseImageRecord(text: string): StoredRecord {
  const section = parseKeyfile(text).get('image');
  if (section === undefined) return { layers: [] };
  const value = (key: string): string | undefined => section.get(key);
  const [parameters, xattrs, parts] = [value('parameters'), value('xattrs'), partsIn(section)];
  return {
    ...(parameters === undefined ? {} : { parameters }),
    ...(xattrs === undefined ? {} : { xattrs }),
    bootable: value('bootable') === 'true',
    layers: value('layers')?.split(' ') ?? [],
    ...(parts === undefined ? {} : { parts }),
  };
}

function partsIn(section: ReadonlyMap<string, string>): ImageParts | undefined {
  const [layout, base = '', delta = ''] = ['layout', 'base', 'delta'].map((key) => section.get(key));
  if ((layout !== 'split' && layout !== 'cached') || !DIGEST.test(base) || !DIGEST.test(delta)) return undefined;
  return { layout, base: base as VerityDigest, delta: delta as VerityDigest };
}

/**
 * What an image is made of; undefined for a flat one, which is also one that is here whole and has lost a part. Throws
 * 'corrupt' for one that is not here whole when its record cannot be trusted.
 */
export function imageParts(repository: Repository, digest: VerityDigest): ImageParts | undefined {
  const isHere = (object: VerityDigest): boolean => exists(objectFile(repository, object));
  const text = readSmallText(imageRecordPath(repository, digest));
  if (text === undefined) return undefined;
  if (!hasChecksum(text)) {
    if (isHere(digest)) return undefined;
    throw new HostctlError('corrupt', `The record of image ${digest} is not as hostctl wrote it`, {
      hint: 'Pull the image again',
    });
  }
  const { parts } = parseImageRecord(text);
  if (parts === undefined || !isHere(digest)) return parts;
  return isHere(parts.base) && isHere(parts.delta) ? parts : undefined;
}

/** What a record says, whatever may be wrong with it or with the image. */
export function readableRecord(repository: Repository, digest: VerityDigest): StoredRecord {
  try {
    return readImageRecord(repository, digest);
  } catch (error) {
    if (isHostctlError(error, 'format-invalid')) return { layers: [] };
    throw error;
  }
}

/**
 * When an image was last used, in milliseconds: the time of its own object. By the clock, which may be wrong: all there
 * is to lose is the time of making it again.
 */
export function lastUse(repository: Repository, digest: VerityDigest): number {
  return fs.statSync(objectFile(repository, digest)).mtimeMs;
}

/** Says that an image is used now. Where nothing can be written it stays as it was. */
export function noteUse(repository: Repository, digest: VerityDigest, now: Date): void {
  try {
    fs.utimesSync(objectFile(repository, digest), now, now);
  } catch (error) {
    if (errnoOf(error) !== 'EROFS') throw error;
  }
}
