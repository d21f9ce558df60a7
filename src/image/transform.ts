/**
 * What happens to the merged tree before it becomes an image: the OCI transform for every image, then the boot
 * transform for a root that is booted. Both follow composefs-rs, since the digest of the image depends on them. They
 * change the tree they are given.
 */

import { HostctlError } from '../errors.ts';
import { settleLinks } from '../tree/links.ts';
import { lookupDirectory } from '../tree/lookup.ts';
import type { DirectoryNode } from '../tree/node.ts';

/**
 * Gives the root the metadata of `/usr` and empties `/run`. Containers have no root directory of their own, and what
 * lies in `/run` is of the build.
 */
export function transformForOci(root: DirectoryNode): void {
  const usr = lookupDirectory(root, 'usr');
  if (usr === undefined) throw new HostctlError('image-unsupported', 'Image has no directory "/usr"');
  root.mode = usr.mode;
  root.uid = usr.uid;
  root.gid = usr.gid;
  root.mtime = usr.mtime;
  root.xattrs = usr.xattrs;
  const run = lookupDirectory(root, 'run');
  if (run !== undefined) {
    run.entries.clear();
    run.mtime = usr.mtime;
  }
  settleLinks(root);
}

/**
 * Empties `/boot` and `/sysroot`, which other file systems cover at boot. Both must exist: a directory made here would
 * give a digest that nobody else computes.
 */
export function emptyMountPoints(root: DirectoryNode): void {
  const usr = lookupDirectory(root, 'usr');
  for (const name of ['boot', 'sysroot']) {
    const directory = lookupDirectory(root, name);
    if (directory === undefined || usr === undefined) {
      throw new HostctlError(
        'image-not-bootable',
        `Image has no directory "/${directory === undefined ? name : 'usr'}"`,
        {
          hint: 'Create "/boot" and "/sysroot" as empty directories in the image.',
        },
      );
    }
    directory.entries.clear();
    directory.mtime = { sec: usr.mtime.sec, nsec: directory.mtime.nsec };
  }
  settleLinks(root);
}
