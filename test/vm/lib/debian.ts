/**
 * A Debian 13 system as one archive: kernel, systemd, dracut and Node, by the recipe in `examples/debian`. Takes about a
 * minute and 60 MB of download; afterwards it comes from the cache.
 */

import { join } from 'node:path';
import { projectPath } from '../../../scripts/lib/project.ts';
import { run } from '../../../scripts/lib/run.ts';
import { cached, fileHash } from './cache.ts';

const RECIPE = ['make-tree.sh', 'packages.txt'].map((name) => projectPath('examples/debian', name));

/** No file of the tree is dated later. */
export const DEBIAN_EPOCH = '1767225600';

/** Path of the system's archive, `.tar.zst`, with xattrs and numeric owners. Needs root and IMAGE_NEEDS. */
export async function debianArchive(say: (line: string) => void): Promise<string> {
  const folder = await cached('debian', await Promise.all(RECIPE.map(fileHash)), async (scratch) => {
    say('Fetching and unpacking Debian packages (about a minute, kept for next time)');
    await run('sh', [projectPath('examples/debian/make-tree.sh'), join(scratch, 'tree.tar.zst')]);
  });
  return join(folder, 'tree.tar.zst');
}
