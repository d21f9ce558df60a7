/** A small image that can be deployed: everything a host needs, in two layers, a few kilobytes. */

import { ociLayout, type BuiltLayout, type LayoutSpec } from './oci-builder.ts';
import { scratchDir } from './scratch-dir.ts';
import { tar, tarDir, tarFile, tarSymlink } from './tar-builder.ts';

export const KERNEL = Buffer.alloc(5000, 'kernel');
export const INITRD = Buffer.alloc(9000, 'initrd');

export interface BootableOptions {
  readonly version?: string;
  /** Kernel versions, each with a kernel; default one. */
  readonly kernels?: readonly string[];
  readonly withInitrd?: boolean;
  readonly kargs?: readonly string[];
  /** More tar entries, in a third layer. */
  readonly more?: readonly Uint8Array[];
  readonly layout?: Partial<LayoutSpec>;
  readonly directory?: string;
}

export function bootableLayout(options: BootableOptions = {}): BuiltLayout & { readonly reference: string } {
  const { version = '1', kernels = ['6.12.0'], withInitrd = true, kargs = ['console=ttyS0'], more = [] } = options;
  const directories = ['boot', 'dev', 'etc', 'proc', 'root', 'run', 'sys', 'sysroot', 'tmp', 'usr', 'var'];
  const base = tar([
    ...directories.map((name) => tarDir(name)),
    tarDir('etc/ssh'),
    tarFile('etc/hostname', 'example\n'),
    tarFile('etc/machine-id', ''),
    tarFile('etc/motd', 'The default message of the day, long enough to be an object of its own in the store.\n'),
    tarDir('usr/lib'),
    tarDir('usr/bin'),
    tarFile('usr/bin/true', Buffer.alloc(3000, 'true'), { mode: 0o755 }),
    tarDir('usr/lib/systemd/boot/efi'),
    tarFile('usr/lib/systemd/boot/efi/systemd-bootx64.efi', Buffer.alloc(2000, 'efi')),
    tarSymlink('etc/os-release', '../usr/lib/os-release'),
    tarFile('usr/lib/os-release', `ID=example\nPRETTY_NAME="Example OS ${version}"\nVERSION_ID=${version}\n`),
    tarDir('var/lib'),
    tarFile('var/lib/shipped', 'from the image'),
    tarDir('usr/lib/bootc/kargs.d'),
    tarFile('usr/lib/bootc/kargs.d/10-console.toml', `kargs = ${JSON.stringify(kargs)}\n`),
  ]);
  const kernel = tar(
    kernels.flatMap((name) => [
      tarFile(`usr/lib/modules/${name}/vmlinuz`, KERNEL),
      ...(withInitrd ? [tarFile(`usr/lib/modules/${name}/initramfs.img`, INITRD)] : []),
    ]),
  );
  const directory = options.directory ?? scratchDir();
  const built = ociLayout(directory, {
    layers: [
      { tar: base, compression: 'gzip' },
      { tar: kernel, compression: 'zstd' },
      ...(more.length > 0 ? [{ tar: tar(more), compression: 'none' as const }] : []),
    ],
    labels: { 'containers.bootc': '1', 'org.opencontainers.image.version': version },
    ...options.layout,
  });
  return { ...built, reference: `oci:${directory}` };
}
