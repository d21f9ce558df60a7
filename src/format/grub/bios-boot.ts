/**
 * How a PC without EFI starts GRUB: the first sector of the disk loads the first sector of GRUB's core image, which
 * loads the rest of it. Both are told where the next lies. Offsets: GRUB's i386/pc/boot.h. Pure.
 */

import { HostctlError } from '../../errors.ts';

const SECTOR_BYTES = 512;
/** What is the disk's own in its first sector: a file system's parameters, and serial number and partition table. */
const KEPT: readonly (readonly [from: number, to: number])[] = [
  [0x03, 0x5a],
  [0x1b8, 0x1fe],
];
const CORE_SECTOR = 0x5c;
/** Where boot.img asks whether the BIOS told the drive, which some do wrongly; two no-operations in its place. */
const DRIVE_CHECK = 0x66;
const NO_OPERATIONS = 0x9090;
/** Last in the first sector of the core image: where the rest of it starts, and how many sectors it has. */
const REST = SECTOR_BYTES - 12;
const MAX_REST_SECTORS = 0xffff;

export interface BiosBoot {
  /** The first sector of the disk. */
  readonly first: Uint8Array;
  /** What goes to `coreSector` and after. */
  readonly core: Uint8Array;
}

/**
 * @param first - the disk's first sector as it is
 * @param boot - GRUB's boot.img
 * @param core - a core image for `i386-pc`
 * @param coreSector - the first of the sectors in a row that it goes to
 */
export function planBiosBoot(first: Uint8Array, boot: Uint8Array, core: Uint8Array, coreSector: number): BiosBoot {
  const restSectors = Math.ceil(core.length / SECTOR_BYTES) - 1;
  if (first.length !== SECTOR_BYTES || boot.length !== SECTOR_BYTES || restSectors < 1) {
    throw new HostctlError('format-invalid', `Cannot use a boot sector of ${boot.length} bytes of GRUB`);
  }
  if (restSectors > MAX_REST_SECTORS) {
    throw new HostctlError('format-invalid', `Cannot use a core image of GRUB of ${core.length} bytes`);
  }
  const sector = Buffer.from(boot);
  for (const [from, to] of KEPT) sector.set(first.subarray(from, to), from);
  sector.writeBigUInt64LE(BigInt(coreSector), CORE_SECTOR);
  sector.writeUInt16LE(NO_OPERATIONS, DRIVE_CHECK);
  const image = Buffer.from(core);
  image.writeBigUInt64LE(BigInt(coreSector + 1), REST);
  image.writeUInt16LE(restSectors, REST + 8);
  return { first: sector, core: image };
}
