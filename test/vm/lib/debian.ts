/**
 * A Debian 13 system as one archive: kernel, systemd, dracut and Node, from Debian's packages by mmdebstrap. Takes
 * about a minute and 60 MB of download; afterwards it comes from the cache.
 */

import { join } from 'node:path';
import { run } from '../../../scripts/lib/run.ts';
import { cached } from './cache.ts';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

const RECIPE = {
  suite: 'trixie',
  sources: [
    `deb [signed-by=${KEYRING}] http://deb.debian.org/debian trixie main`,
    `deb [signed-by=${KEYRING}] http://deb.debian.org/debian-security trixie-security main`,
  ],
  packages: [
    'linux-image-cloud-amd64',
    'systemd',
    'systemd-sysv',
    'systemd-boot',
    'systemd-boot-efi',
    'udev',
    'dbus',
    'dracut',
    'nodejs',
    'fsverity',
    'kmod',
    'mount',
    'util-linux',
    'zstd',
    'e2fsprogs',
    // What `hostctl install to-disk` starts; the machine that installs is made of the same tree.
    'fdisk',
    'dosfstools',
  ],
  excluded: ['/usr/share/man/*', '/usr/share/locale/*', '/usr/share/doc/*'],
  /** Dates no file later than this, so that the same packages give the same archive. */
  epoch: '1767225600',
};

export const DEBIAN_EPOCH = RECIPE.epoch;

/** Path of the system's archive, `.tar.zst`, with xattrs and numeric owners. Needs root and IMAGE_NEEDS. */
export async function debianArchive(say: (line: string) => void): Promise<string> {
  const folder = await cached('debian', RECIPE, async (scratch) => {
    say('Fetching and unpacking Debian packages (about a minute, kept for next time)');
    const archive = join(scratch, 'tree.tar.zst');
    await run(
      'mmdebstrap',
      [
        '--mode=root',
        '--variant=minbase',
        '--format=tar',
        '--aptopt=APT::Install-Recommends "false"',
        ...RECIPE.excluded.map((path) => `--dpkgopt=path-exclude=${path}`),
        `--include=${RECIPE.packages.join(',')}`,
        RECIPE.suite,
        archive,
        ...RECIPE.sources,
      ],
      { env: { SOURCE_DATE_EPOCH: RECIPE.epoch } },
    );
  });
  return join(folder, 'tree.tar.zst');
}
