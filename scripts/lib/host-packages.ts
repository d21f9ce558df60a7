/**
 * The Debian packages that packaging, demo and machine tests call. On Debian as root they are installed by apt, which
 * is announced; elsewhere the missing ones are named.
 */

import { existsSync } from 'node:fs';
import { run } from './run.ts';

export interface HostNeed {
  /** A program looked for on the path, or an absolute file name. */
  readonly probe: string;
  readonly package: string;
  /** What needs it can be left out. */
  readonly optional?: boolean;
}

export const PACKAGE_NEEDS: readonly HostNeed[] = [{ probe: 'dpkg-deb', package: 'dpkg' }];

/** Building the Debian tree, the OCI image and disks. */
export const IMAGE_NEEDS: readonly HostNeed[] = [
  ...PACKAGE_NEEDS,
  { probe: 'mmdebstrap', package: 'mmdebstrap' },
  { probe: '/usr/share/keyrings/debian-archive-keyring.gpg', package: 'debian-archive-keyring' },
  { probe: 'zstd', package: 'zstd' },
  { probe: 'unshare', package: 'util-linux' },
];

/** Running machines and looking at their disks. */
export const VM_NEEDS: readonly HostNeed[] = [
  ...IMAGE_NEEDS,
  { probe: 'qemu-system-x86_64', package: 'qemu-system-x86' },
  { probe: '/usr/share/OVMF/OVMF_CODE_4M.fd', package: 'ovmf' },
  { probe: 'cpio', package: 'cpio' },
  { probe: 'mcopy', package: 'mtools' },
  { probe: 'mkfs.vfat', package: 'dosfstools' },
  { probe: 'sfdisk', package: 'fdisk' },
  { probe: 'debugfs', package: 'e2fsprogs' },
  { probe: 'fsverity', package: 'fsverity' },
  { probe: 'mkfs.btrfs', package: 'btrfs-progs' },
  { probe: 'grub-mkimage', package: 'grub-common' },
  { probe: '/usr/lib/grub/i386-pc/boot.img', package: 'grub-pc-bin' },
  { probe: '/usr/lib/grub/x86_64-efi/normal.mod', package: 'grub-efi-amd64-bin' },
];

/** Everything that any test of the normal suite calls: machines, and referees. */
export const TEST_NEEDS: readonly HostNeed[] = [
  ...VM_NEEDS,
  { probe: 'shellcheck', package: 'shellcheck' },
  { probe: 'openssl', package: 'openssl' },
  { probe: 'fsck.erofs', package: 'erofs-utils' },
  { probe: 'bsdtar', package: 'libarchive-tools' },
  { probe: 'umoci', package: 'umoci' },
  { probe: 'matchpathcon', package: 'selinux-utils' },
  { probe: 'setfattr', package: 'attr' },
  { probe: 'gcc', package: 'gcc' },
  { probe: '/usr/include/stdlib.h', package: 'libc6-dev' },
  { probe: 'mkfs.xfs', package: 'xfsprogs' },
  { probe: 'qemu-storage-daemon', package: 'qemu-system-common' },
  { probe: 'strace', package: 'strace' },
  { probe: 'tmux', package: 'tmux' },
  { probe: '/usr/share/bash-completion/bash_completion', package: 'bash-completion' },
  { probe: 'zsh', package: 'zsh' },
  { probe: 'fish', package: 'fish' },
  { probe: 'man', package: 'man-db' },
  { probe: 'groff', package: 'groff' },
  { probe: 'mandoc', package: 'mandoc' },
  { probe: 'lintian', package: 'lintian' },
  { probe: 'skopeo', package: 'skopeo' },
  { probe: 'docker-registry', package: 'docker-registry' },
  { probe: 'podman', package: 'podman' },
  { probe: '/var/lib/dpkg/info/busybox-static.list', package: 'busybox-static' },
  { probe: 'systemd-analyze', package: 'systemd' },
];

/** Measuring, and what hostctl is measured against. */
export const BENCH_NEEDS: readonly HostNeed[] = [
  { probe: '/usr/bin/time', package: 'time' },
  { probe: 'mkfs.ext4', package: 'e2fsprogs' },
  { probe: 'gcc', package: 'gcc' },
  { probe: '/usr/include/stdlib.h', package: 'libc6-dev' },
  { probe: 'zstd', package: 'zstd' },
  { probe: 'openssl', package: 'openssl' },
  { probe: 'fsverity', package: 'fsverity' },
  { probe: 'igzip', package: 'isal' },
  { probe: 'debootstrap', package: 'debootstrap', optional: true },
  { probe: 'bsdtar', package: 'libarchive-tools', optional: true },
  { probe: 'umoci', package: 'umoci', optional: true },
  { probe: 'ostree', package: 'ostree', optional: true },
  { probe: 'skopeo', package: 'skopeo', optional: true },
  { probe: 'podman', package: 'podman', optional: true },
];

function isPresent(probe: string): boolean {
  if (probe.startsWith('/')) return existsSync(probe);
  const folders = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':');
  return folders.some((folder) => folder !== '' && existsSync(`${folder}/${probe}`));
}

/** The packages of `needs` that this machine lacks. */
export function missingPackages(needs: readonly HostNeed[]): string[] {
  return [...new Set(needs.filter(({ probe }) => !isPresent(probe)).map((need) => need.package))];
}

/**
 * Makes sure that everything in `needs` is there.
 * @throws Error naming what is missing, where it cannot be installed
 */
export async function ensureHostPackages(needs: readonly HostNeed[], say: (line: string) => void): Promise<void> {
  const missing = missingPackages(needs);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0 || !isPresent('apt-get')) {
    throw new Error(`Missing on this machine: ${missing.join(' ')} (Debian package names)`);
  }
  say(`Installing Debian packages: ${missing.join(' ')}`);
  // Another apt may be at work; without the timeout this one would fail at once.
  const options = ['-o', 'DPkg::Lock::Timeout=300', '-qq'];
  await run('apt-get', [...options, 'update']);
  await run('apt-get', [...options, 'install', '--yes', '--no-install-recommends', ...missing], {
    env: { DEBIAN_FRONTEND: 'noninteractive' },
  });
  const still = missingPackages(needs);
  if (still.length > 0) throw new Error(`Still missing after apt-get install: ${still.join(' ')}`);
}
