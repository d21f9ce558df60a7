/** systemd-boot on the ESP: where its copies lie, and which of them are older than the one that the image ships. */

import { compareVersions } from '../format/bls/version.ts';
import { systemdBootVersion } from '../format/loader-version.ts';
import { readSmallFile } from '../sys/files.ts';

/** Where images have systemd-boot. */
export const SHIPPED_LOADERS = '/usr/lib/systemd/boot/efi';

/** Go's names of architectures, and systemd's in EFI programs. */
const EFI_NAMES: ReadonlyMap<string, string> = new Map([
  ['amd64', 'x64'],
  ['arm64', 'aa64'],
  ['riscv64', 'riscv64'],
]);

const MAX_LOADER_BYTES = 16 * 2 ** 20;

/** Systemd's name of an architecture; undefined where no boot loader is known for it. */
export function efiName(architecture: string): string | undefined {
  return EFI_NAMES.get(architecture);
}

/** Its own place on an ESP, and the one that firmware looks at without being told. */
export function loaderFiles(efi: string): (readonly [directory: string, name: string])[] {
  return [
    ['EFI/systemd', `systemd-boot${efi}.efi`],
    ['EFI/BOOT', `BOOT${efi.toUpperCase()}.EFI`],
  ];
}

export interface OldLoader {
  readonly path: string;
  readonly installed: string;
  readonly shipped: string;
}

/** Copies of systemd-boot below `esps` that are older than the one in `shippedIn`. Programs of others are none. */
export function oldLoaders(efi: string, esps: readonly string[], shippedIn = SHIPPED_LOADERS): OldLoader[] {
  const shipped = versionOf(`${shippedIn}/systemd-boot${efi}.efi`);
  if (shipped === undefined) return [];
  return esps
    .flatMap((esp) => loaderFiles(efi).map(([directory, name]) => `${esp}/${directory}/${name}`))
    .flatMap((path) => {
      const installed = versionOf(path);
      return installed !== undefined && compareVersions(installed, shipped) < 0 ? [{ path, installed, shipped }] : [];
    });
}

function versionOf(path: string): string | undefined {
  const program = readSmallFile(path, MAX_LOADER_BYTES);
  return program === undefined ? undefined : systemdBootVersion(program);
}
