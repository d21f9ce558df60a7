/**
 * GRUB out of the modules that the image ships: one core image for each firmware that the target can be started by, with
 * everything in it that finds the boot partition, reads it, counts tries and starts Linux; on the boot partition nothing
 * but two scripts and the environment block. The core image is put together by the host's grub-mkimage.
 */

import * as fs from 'node:fs';
import { GRUB, GRUB_SCRIPT } from '../deploy/grub.ts';
import { materializeTree } from '../deploy/materialize.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { planBiosBoot } from '../format/grub/bios-boot.ts';
import { MENU_SCRIPT } from '../format/grub/menu-script.ts';
import { createFile, deviceOf, fsyncPath, makeDirectories, readSmallFile, split, temporaryName } from '../sys/files.ts';
import type { DiskPartition } from '../sys/block-facts.ts';
import type { Host } from '../sys/host.ts';
import { readSectors, SECTOR_BYTES, writeSectors } from '../sys/sectors.ts';
import { lookupDirectory } from '../tree/lookup.ts';
import type { DirectoryNode } from '../tree/node.ts';
import type { ContentOf } from './boot-facts.ts';
import type { InstallPlaces } from './install-onto.ts';
import type { Undo } from './undo.ts';

/** GPT type, lower case, of the partition that GRUB's core image lies in where the firmware is a BIOS. */
export const BIOS_BOOT_TYPE = '21686148-6449-6e6f-744e-656564454649';

/** GRUB's names of the firmware by Go's of the architecture. */
const EFI_TARGETS: ReadonlyMap<string, string> = new Map([
  ['amd64', 'x86_64-efi'],
  ['arm64', 'arm64-efi'],
  ['riscv64', 'riscv64-efi'],
]);
const BIOS_TARGET = 'i386-pc';
const MODULES = [
  ...['part_gpt', 'part_msdos', 'fat', 'ext2', 'xfs', 'btrfs', 'lvm', 'mdraid09', 'mdraid1x', 'search_fs_uuid'],
  ...['normal', 'configfile', 'loadenv', 'test', 'regexp', 'true', 'echo', 'linux', 'boot', 'reboot', 'halt'],
  ...['ls', 'cat', 'help', 'sleep', 'serial', 'terminal'],
];
const CONFIG = `# Made by "hostctl install" and never changed by it again.
set timeout=3
source "$prefix/hostctl.cfg"
`;
/** What the image ships of GRUB that no core image is made of. */
const LEFT_OUT = 'monolithic';

/** What an installation makes on the boot partition for GRUB. */
export const GRUB_FILES = [GRUB_SCRIPT, `${GRUB}/grub.cfg`, `${GRUB}/grubenv`];

interface CoreImage {
  readonly target: string;
  /** Modules, as the image has them. */
  readonly modules: DirectoryNode;
}

/** Installs what the image ships for the firmware this target is for. Throws where that is nothing. */
export function installGrub(
  host: Host,
  undo: Undo,
  places: InstallPlaces,
  efiProgram: string,
  tree: DirectoryNode,
  contentOf: ContentOf,
): void {
  const { boot, esp, bootFileSystem, biosBoot } = places;
  const coreOf = (target: string | undefined): CoreImage | undefined => {
    const modules = target === undefined ? undefined : lookupDirectory(tree, `usr/lib/grub/${target}`);
    return target === undefined || modules === undefined ? undefined : { target, modules };
  };
  const efi = esp === undefined ? undefined : coreOf(EFI_TARGETS.get(host.architecture));
  const bios = biosBoot === undefined ? undefined : coreOf(BIOS_TARGET);
  const { uuid } = bootFileSystem;
  if (uuid === undefined) {
    throw new HostctlError('host-unsupported', `GRUB cannot find "${boot}" again: its file system has no UUID`);
  }
  if (efi === undefined && bios === undefined) {
    throw new HostctlError('image-not-bootable', 'The image has no GRUB for the firmware that this target is for', {
      hint: 'It needs the modules, such as in grub-efi-amd64-bin; for a BIOS those of grub-pc-bin, and a BIOS boot partition',
    });
  }
  withScratch((scratch) => {
    const make = (core: CoreImage): string => makeCore(host, scratch, core, contentOf, places, uuid);
    if (efi !== undefined && esp !== undefined) {
      create(undo, esp, `EFI/BOOT/${efiProgram}`, fs.readFileSync(make(efi)));
    }
    if (bios !== undefined && biosBoot !== undefined) {
      const core = fs.readFileSync(make(bios));
      const boot = readSmallFile(`${scratch}/${bios.target}/boot.img`) ?? Buffer.alloc(0);
      embed(undo, biosBoot, boot, core);
    }
  });
  create(undo, boot, `${GRUB}/grub.cfg`, CONFIG);
  // By this file the boot partition is one of GRUB.
  create(undo, boot, GRUB_SCRIPT, MENU_SCRIPT);
  undo.add("remove GRUB's environment block again", () => fs.rmSync(`${boot}/${GRUB}/grubenv`, { force: true }));
}

function create(undo: Undo, base: string, file: string, content: string | Uint8Array): void {
  const path = `${base}/${file}`;
  const directory = makeDirectories(base, split(file).directory);
  undo.add(`remove "${path}" again`, () => fs.rmSync(path, { force: true }));
  createFile(path, content, 0o644);
  fsyncPath(directory);
}

function withScratch(body: (scratch: string) => void): void {
  const scratch = makeDirectories('/run', `hostctl/${temporaryName('grub')}`, 0o700);
  try {
    body(scratch);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

/** Path of the core image, which finds the boot partition by its UUID and goes on with what lies there. */
function makeCore(
  host: Host,
  scratch: string,
  { target, modules }: CoreImage,
  contentOf: ContentOf,
  { root, boot }: InstallPlaces,
  bootUuid: string,
): string {
  const directory = `${scratch}/${target}`;
  const entries = new Map([...modules.entries].filter(([name]) => name !== LEFT_OUT));
  materializeTree(host, { ...modules, entries }, directory, contentOf);
  const inFileSystem = deviceOf(boot) === deviceOf(root) ? boot.slice(root.length) : '';
  const early = `${scratch}/${target}.cfg`;
  const script = `search.fs_uuid ${bootUuid} root\nset prefix=($root)${inFileSystem}/${GRUB}\n`;
  createFile(early, script, 0o600);
  const core = `${scratch}/${target}.img`;
  const firmware = target === BIOS_TARGET ? ['biosdisk'] : ['all_video', 'efifwsetup'];
  const options = ['-O', target, '-d', directory, '-p', `/${GRUB}`, '-c', early, '-o', core];
  mkimage(host, [...options, ...firmware, ...MODULES]);
  return core;
}

/** Fedora and its kin call it by another name. */
function mkimage(host: Host, args: readonly string[]): void {
  try {
    host.exec.runSync('grub-mkimage', args);
  } catch (error) {
    if (!isHostctlError(error, 'tool-missing')) throw error;
    try {
      host.exec.runSync('grub2-mkimage', args);
    } catch (second) {
      if (!isHostctlError(second, 'tool-missing')) throw second;
      throw new HostctlError('tool-missing', 'Cannot install GRUB without "grub-mkimage"', {
        hint: 'Install grub-common (grub2-tools-minimal on Fedora)',
        cause: error,
      });
    }
  }
}

function embed(undo: Undo, { disk, startSector, sectors }: DiskPartition, boot: Uint8Array, core: Uint8Array): void {
  if (core.length > sectors * SECTOR_BYTES) {
    throw new HostctlError('no-space', `GRUB's core image has ${core.length} bytes, its partition on "${disk}" fewer`);
  }
  const before = readSectors(disk, 0, 1);
  const plan = planBiosBoot(before, boot, core, startSector);
  undo.add(`put the first sector of "${disk}" back`, () => writeSectors(disk, 0, before));
  writeSectors(disk, startSector, plan.core);
  writeSectors(disk, 0, plan.first);
}
