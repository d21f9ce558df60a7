/**
 * Minimal systems of other releases of Debian, for programs that the host's release has not or only old: sid with
 * mkcomposefs and a current erofs-utils, Debian 13 with a skopeo that writes zstd:chunked. Made by debootstrap, which
 * unlike mmdebstrap takes a Release file past its date.
 */

import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '../../scripts/lib/run.ts';
import { cached } from '../vm/lib/cache.ts';

const MIRROR = 'http://deb.debian.org/debian';
const SID = { suite: 'sid', packages: ['composefs', 'erofs-utils'], mirror: MIRROR };
/** skopeo needs a package that netavark stands for, which debootstrap does not know. */
const TRIXIE = { suite: 'trixie', packages: ['netavark', 'skopeo'], mirror: MIRROR };

/** Root folder of the system, from the cache if it is there. Needs root, the network and debootstrap. */
export function sidRoot(): Promise<string> {
  return debianRoot('sid-composefs', SID);
}

/** The same of Debian 13 with skopeo. */
export function trixieRoot(): Promise<string> {
  return debianRoot('trixie-skopeo', TRIXIE);
}

async function debianRoot(name: string, recipe: typeof SID): Promise<string> {
  const folder = await cached(name, recipe, async (scratch) => {
    const { suite, packages, mirror } = recipe;
    const root = join(scratch, 'root');
    await run('debootstrap', ['--variant=minbase', `--include=${packages.join(',')}`, suite, root, mirror]);
    await run('chroot', [root, 'apt-get', 'clean']);
  });
  return join(folder, 'root');
}

/**
 * Runs a shell script in the system with `/batch` as its working directory, which `prepare` fills and `collect` reads,
 * both on the host. Mounts live in a namespace of their own and end with the script.
 */
export async function inSidRoot<T>(
  root: string,
  script: string,
  prepare: (folder: string) => Promise<void>,
  collect: (folder: string) => Promise<T>,
): Promise<T> {
  const batch = await mkdtemp(join(root, 'batch-'));
  try {
    await chmod(batch, 0o755);
    await prepare(batch);
    await writeFile(join(batch, 'run.sh'), `cd "$1" && ${script}`);
    const inside = batch.slice(root.length);
    const mountAndEnter = 'mount -t proc proc "$1/proc" && exec chroot "$1" /bin/sh "$2/run.sh" "$2"';
    await run('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', mountAndEnter, 'sh', root, inside]);
    return await collect(batch);
  } finally {
    await rm(batch, { recursive: true, force: true });
  }
}
