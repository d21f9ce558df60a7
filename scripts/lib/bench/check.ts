/** Whether a pipeline made what it should have: a row that did not is void. */

import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../run.ts';

/** What hostctl made in the same round, against which the others are held. */
export interface Reference {
  /** Objects that the image names. */
  readonly named: ReadonlySet<string>;
  /** All that were stored: also of files that an upper layer replaces or hides. */
  readonly stored: ReadonlySet<string>;
}

/** Names as `xx/rest`. */
export function objectNames(folder: string): Set<string> {
  const names = new Set<string>();
  for (const prefix of readdirSync(folder)) for (const rest of readdirSync(join(folder, prefix))) names.add(`${prefix}/${rest}`); // prettier-ignore
  return names;
}

/** Digests of the images in a repository. */
export function imagesIn(repository: string): string[] {
  return readdirSync(join(repository, 'images')).filter((name) => /^[0-9a-f]{64,128}$/.test(name));
}

/**
 * Looks at a repository that hostctl filled: the image names what is there, a sample of the objects has the digests of
 * their names by `fsverity digest`, and mkcomposefs makes the same image of its dump.
 * @param sid - a system with mkcomposefs; without it, and with SHA-512, the last is not looked at
 * @param before - images that were there before
 */
export async function checkRepository(
  repository: string,
  program: string,
  algorithm: 'sha256' | 'sha512',
  sid: string | undefined,
  before: readonly string[] = [],
): Promise<Reference> {
  const digest = imagesIn(repository).find((name) => !before.includes(name)) ?? '';
  const image = join(repository, 'images', digest);
  const listed = await run(process.execPath, [program, 'composefs', 'objects', image]);
  const named = new Set(listed.split('\n').filter(Boolean));
  const stored = objectNames(join(repository, 'objects'));
  require('every object of the image is stored', [...named].every((name) => stored.has(name)));
  const sample = [...stored].filter((_, i) => i % Math.ceil(stored.size / 300) === 0);
  const measured = await run('fsverity', [
    'digest',
    `--hash-alg=${algorithm}`,
    '--compact',
    ...sample.map((name) => join(repository, 'objects', name)),
  ]);
  const expected = sample.map((name) => name.replace('/', ''));
  require('objects have the digests of their names', measured.trim().split('\n').join() === expected.join());
  if (sid !== undefined && algorithm === 'sha256') {
    const dump = join(repository, 'dump');
    writeFileSync(dump, await run(process.execPath, [program, 'composefs', 'dump', image]));
    const made = await run(`${sid}/lib64/ld-linux-x86-64.so.2`, [
      ...['--library-path', `${sid}/usr/lib/x86_64-linux-gnu`, `${sid}/usr/bin/mkcomposefs`],
      ...['--min-version=1', '--from-file', '--print-digest-only', dump],
    ]);
    require('mkcomposefs makes the same image', made.trim() === digest);
  }
  return { named, stored };
}

/** Looks at the objects of a peer. */
export function checkPeer(objects: string, reference: Reference): void {
  const found = objectNames(objects);
  require('the peer has every object of the image', [...reference.named].every((name) => found.has(name)));
  require('hostctl has every object of the peer', [...found].every((name) => reference.stored.has(name)));
}

function require(what: string, isSo: boolean): void {
  if (!isSo) throw new Error(`Not so: ${what}`);
}
