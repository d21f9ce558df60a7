/**
 * Folder of things that take long to make: Debian trees, OCI images, disks. Each lies under its name and a hash of its
 * recipe, appears there complete or not at all, and never changes afterwards. `HOSTCTL_VM_CACHE` names the folder.
 */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** How many versions of one thing are kept, the one just made included. */
const KEPT_VERSIONS = 3;
/** A version used this recently may be in use by another run. */
const IN_USE_MS = 2 * 60 * 60 * 1000;

export function cacheFolder(): string {
  return process.env.HOSTCTL_VM_CACHE ?? join(homedir(), '.cache/hostctl-vm');
}

/** A short hash of anything that JSON can say; the same value always gives the same text. */
export function recipeKey(recipe: unknown): string {
  return createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 16);
}

/** SHA-256 of a file's content, hex. */
export async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/**
 * The folder that `build` fills for `recipe`, from the cache where it was built before.
 * @param name lower-case word for the kind of thing
 * @param build writes into the empty folder it is given
 */
export async function cached(name: string, recipe: unknown, build: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(cacheFolder(), `${name}-${recipeKey(recipe)}`);
  const now = new Date();
  if (await exists(folder)) {
    await utimes(folder, now, now);
    return folder;
  }
  await mkdir(cacheFolder(), { recursive: true });
  const scratch = await mkdtemp(join(cacheFolder(), `.${name}-`));
  try {
    await build(scratch);
    await rename(scratch, folder);
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    // Another process may have made the same thing at the same time; one of the two is as good as the other.
    if (!(await exists(folder))) throw error;
  }
  await utimes(folder, now, now);
  await dropOldVersions(name);
  return folder;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function dropOldVersions(name: string): Promise<void> {
  const versions: { path: string; used: number }[] = [];
  for (const entry of await readdir(cacheFolder())) {
    if (!new RegExp(`^${name}-[0-9a-f]{16}$`).test(entry)) continue;
    const path = join(cacheFolder(), entry);
    versions.push({ path, used: (await stat(path)).mtimeMs });
  }
  versions.sort((a, b) => b.used - a.used);
  for (const { path, used } of versions.slice(KEPT_VERSIONS)) {
    if (Date.now() - used > IN_USE_MS) await rm(path, { recursive: true, force: true });
  }
}
