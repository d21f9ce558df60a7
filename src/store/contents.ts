/**
 * Which object holds the content with a given sha256: known of images whose layers name contents so, and kept beside
 * the image for as long as it stays. Only ever a hint, neither durable nor trusted: who takes an object by it compares
 * what is in it.
 */

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { listNames, removeQuietly, temporaryName } from '../sys/files.ts';
import type { VerityDigest } from '../tree/node.ts';
import type { ObjectSink } from '../tree/objects.ts';
import { DIGEST, RECORDS } from './image-record.ts';

/** sha256, hex, to object. */
export type Contents = ReadonlyMap<string, VerityDigest>;

const LINE = /^[0-9a-f]{64} ([0-9a-f]{64}|[0-9a-f]{128})$/;
/** More lines than this are not worth their reading. */
const MAX_LINES = 500_000;
const MAX_BYTES = MAX_LINES * 200;

const SUFFIX = '.contents';

/** Where the contents of an image are kept. */
export function contentsPath(repositoryPath: string, digest: VerityDigest): string {
  return `${repositoryPath}/${RECORDS}/${digest}${SUFFIX}`;
}

/** The image that such a file is about, by its name; undefined for another file. */
export function imageOfContents(name: string): VerityDigest | undefined {
  const digest = name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : '';
  return DIGEST.test(digest) ? (digest as VerityDigest) : undefined;
}

/** A sink that also takes down in `contents` what each object holds. */
export function recordingSink(sink: ObjectSink, contents: Map<string, VerityDigest>): ObjectSink {
  return {
    algorithm: sink.algorithm,
    create(sizeBytes) {
      const writer = sink.create(sizeBytes);
      const hash = createHash('sha256');
      return {
        write(chunk) {
          hash.update(chunk);
          writer.write(chunk);
        },
        finish() {
          const digest = writer.finish();
          contents.set(hash.digest('hex'), digest);
          return digest;
        },
        abort: () => writer.abort(),
      };
    },
  };
}

/** Keeps the contents of an image that is there. */
export function writeContents(repositoryPath: string, digest: VerityDigest, contents: Contents): void {
  if (contents.size === 0 || contents.size > MAX_LINES) return;
  const temporary = `${repositoryPath}/${RECORDS}/${temporaryName('contents')}`;
  try {
    const lines = [...contents].map(([sha256, object]) => `${sha256} ${object}\n`);
    fs.writeFileSync(temporary, lines.join(''), { flag: 'wx', mode: 0o644 });
    fs.renameSync(temporary, contentsPath(repositoryPath, digest));
  } catch (error) {
    removeQuietly(temporary);
    throw error;
  }
}

/** The contents of all images of a repository, as far as they are known. */
export function readContents(repositoryPath: string): Contents {
  const contents = new Map<string, VerityDigest>();
  for (const name of listNames(`${repositoryPath}/${RECORDS}`)) {
    if (imageOfContents(name) === undefined) continue;
    const path = `${repositoryPath}/${RECORDS}/${name}`;
    const stat = fs.lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isFile() !== true || stat.size > MAX_BYTES) continue;
    for (const line of fs.readFileSync(path, 'latin1').split('\n')) {
      if (LINE.test(line)) contents.set(line.slice(0, 64), line.slice(65) as VerityDigest);
    }
  }
  return contents;
}
