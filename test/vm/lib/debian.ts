/**
 * A Debian 13 system as one archive: kernel, systemd, dracut and Node, by the recipe in `examples/debian`. Takes about a
 * minute and 60 MB of download; afterwards it comes from the cache.
 */

import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';
import { cached, fileHash } from './cache.ts';

const PACKAGES = projectPath('examples/debian/packages.txt');
const RECIPE = [projectPath('examples/debian/make-tree.sh'), PACKAGES];

/** No file of the tree is dated later. */
export const DEBIAN_EPOCH = '1767225600';

/** What the system is started by. */
export type Loader = 'systemd-boot' | 'grub';

/** GRUB's modules for BIOS and UEFI, and the program that `hostctl install` makes core images with. */
const GRUB_PACKAGES = ['grub-common', 'grub-pc-bin', 'grub-efi-amd64-bin'];

/** A name for what is kept in the cache of each. */
export function loaderName(name: string, loader: Loader): string {
  return loader === 'grub' ? `${name}-grub` : name;
}

/** Path of the system's archive, `.tar.zst`, with xattrs and numeric owners. Needs root and IMAGE_NEEDS. */
export async function debianArchive(say: (line: string) => void, loader: Loader = 'systemd-boot'): Promise<string> {
  const key = [...(await Promise.all(RECIPE.map(fileHash))), ...(loader === 'grub' ? GRUB_PACKAGES : [])];
  const folder = await cached(loaderName('debian', loader), key, async (scratch) => {
    say('Fetching and unpacking Debian packages (about a minute, kept for next time)');
    const packages = (await readFile(PACKAGES, 'utf8')).split('\n');
    const others = packages.filter((name) => !name.startsWith('systemd-boot'));
    const list = join(scratch, 'packages.txt');
    await writeFile(list, (loader === 'grub' ? [...GRUB_PACKAGES, ...others] : packages).join('\n'));
    await run('sh', [projectPath('examples/debian/make-tree.sh'), join(scratch, 'tree.tar.zst'), list]);
  });
  return join(folder, 'tree.tar.zst');
}
