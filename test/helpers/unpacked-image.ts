/**
 * The tree of an image as GNU tar, overlayfs and a few calls make it, without any code of hostctl: a base that is
 * unpacked once, and above it for each application an overlay into which its layer is unpacked. docs/layers.md names
 * the rules that no program knows: R1, R2 and R3.
 */

import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import type { AppLayer } from './debian-apps.ts';
import type { MountNamespace } from './mount-namespace.ts';

const EXTRACT = [
  'tar',
  '--extract',
  '--preserve-permissions',
  '--delay-directory-restore',
  '--numeric-owner',
  '--xattrs',
  // R3
  '--xattrs-include=security.capability',
];

/** Unpacks the lowest layer into an empty directory. */
export function unpackBase(archive: string, directory: string): void {
  run([...EXTRACT, `--file=${archive}`, `--directory=${directory}`]);
  keepRules(directory);
}

export interface UnpackedApp {
  /** Where the application is seen, in its namespace. */
  readonly merged: string;
  /** What its layer made, on disk: files are in it whole. */
  readonly upper: string;
}

/** Mounts an overlay over the base, below `directory`, and unpacks a layer into it. */
export function unpackApp(
  namespace: MountNamespace,
  base: string,
  { archive, layer }: { readonly archive: string; readonly layer: AppLayer },
  directory: string,
): UnpackedApp {
  const [merged, upper, work] = [`${directory}/merged`, `${directory}/upper`, `${directory}/work`];
  for (const each of [merged, upper, work]) mkdirSync(each, { recursive: true });
  // With an index, what has several names stays one file.
  const options = `lowerdir=${base},upperdir=${upper},workdir=${work},index=on`;
  run([...namespace.prefix, 'mount', '-t', 'overlay', 'overlay', '-o', options, merged]);
  const root = namespace.path(merged);
  const { hidden, emptied, directories, others } = layer;
  for (const name of hidden) remove(`${root}/${name}`);
  for (const name of emptied) empty(`${root}/${name}`);
  for (const name of directories) if (!isDirectory(`${root}/${name}`)) remove(`${root}/${name}`);
  for (const name of others) if (isDirectory(`${root}/${name}`)) remove(`${root}/${name}`);
  run([...namespace.prefix, ...EXTRACT, '--exclude=.wh.*', `--file=${archive}`, `--directory=${merged}`]);
  // What happens in a directory is no change of it where the layer does not say so (T3).
  for (const name of new Set([...[...hidden, ...others, ...directories].map(parentOf), ...emptied])) {
    if (directories.includes(name) || !isDirectory(`${base}/${name}`) || !isDirectory(`${root}/${name}`)) continue;
    copyTimes(`${base}/${name}`, `${root}/${name}`);
  }
  keepRules(root);
  return { merged, upper };
}

function run([program = '', ...words]: readonly string[]): void {
  execFileSync(program, words, { stdio: ['ignore', 'inherit', 'inherit'] });
}

/** R1 and R2. */
function keepRules(root: string): void {
  empty(`${root}/run`);
  const { uid, gid, mode } = lstatSync(`${root}/usr`);
  chownSync(root, uid, gid);
  chmodSync(root, mode & 0o7777);
  for (const path of [root, `${root}/run`]) copyTimes(`${root}/usr`, path);
}

function copyTimes(from: string, to: string): void {
  const { atime, mtime } = lstatSync(from);
  utimesSync(to, atime, mtime);
}

function empty(directory: string): void {
  for (const name of readdirSync(directory)) remove(`${directory}/${name}`);
}

function remove(path: string): void {
  rmSync(path, { recursive: true, force: true });
}

function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}
