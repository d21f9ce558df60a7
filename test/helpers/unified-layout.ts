/** A small image that boots by a unified kernel image, whose command line pins what the image is without it. */

import { digestImage } from '../../src/ops/digest-image.ts';
import type { VerityDigest } from '../../src/tree/node.ts';
import { bootableLayout, INITRD, KERNEL, type BootableOptions } from './bootable-layout.ts';
import type { BuiltLayout } from './oci-builder.ts';
import { peFile } from './pe-builder.ts';
import { tarDir, tarFile } from './tar-builder.ts';
import { testHost } from './test-host.ts';

export interface UnifiedOptions extends BootableOptions {
  /** Its command lines, given the digest of the image. */
  readonly cmdlines?: (digest: VerityDigest) => readonly string[];
  /** Command lines of add-ons by their names. */
  readonly addons?: Readonly<Record<string, string>>;
  readonly initrd?: Uint8Array;
  /** Of the format that the digest is of. */
  readonly formatVersion?: 1 | 2;
}

export const UKI_PATH = 'boot/EFI/Linux/example.efi';

export async function unifiedLayout(
  options: UnifiedOptions = {},
): Promise<BuiltLayout & { readonly reference: string; readonly digest: VerityDigest; readonly uki: Buffer }> {
  const {
    initrd = INITRD,
    cmdlines = (digest) => [`quiet composefs.digest=v1-sha512-12:${digest}`],
    addons = {},
  } = options;
  const withUki = (bytes: Uint8Array, more: readonly Uint8Array[] = []) =>
    bootableLayout({
      ...options,
      more: [...(options.more ?? []), tarDir('boot/EFI'), tarDir('boot/EFI/Linux'), tarFile(UKI_PATH, bytes), ...more],
    });
  const { digest } = await digestImage(testHost(), {
    ...{ image: withUki(Buffer.from('any')).reference, algorithm: 'sha512', bootable: true },
    formatVersion: options.formatVersion ?? 1,
  });
  const uki = peFile([
    ...cmdlines(digest).map((content) => ({ name: '.cmdline', content: `${content}\0` })),
    { name: '.initrd', content: initrd },
    { name: '.linux', content: KERNEL },
  ]);
  const layout = withUki(
    uki,
    Object.entries(addons).map(([name, content]) =>
      tarFile(`${UKI_PATH}.extra.d/${name}`, peFile([{ name: '.cmdline', content }])),
    ),
  );
  return { ...layout, digest, uki };
}
