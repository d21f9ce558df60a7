/**
 * What `install to-filesystem` makes of the file systems it was given: where entries and loader go, and which kernel
 * arguments find root and `/var` again. Decided from what the mount table and the devices say. Pure.
 */

import { HostctlError } from '../errors.ts';
import { findKargs } from '../format/cmdline.ts';
import type { DiskPartition } from '../sys/block-facts.ts';
import type { InstallPlaces } from './install-onto.ts';
import { ESP_TYPE } from './root-partition.ts';
import { kargsMountVar } from './var-mount.ts';

/** One mounted file system. */
export interface MountFacts {
  readonly mountPoint: string;
  readonly type: string;
  /** Path inside the file system that is mounted: `/`, or a subvolume. */
  readonly subvolume: string;
  readonly isReadOnly: boolean;
  /** Undefined where the source is no block device. */
  readonly uuid: string | undefined;
  /** GPT type of its partition, lower case. */
  readonly partitionType: string | undefined;
  /** UUIDs of the LUKS devices below it, outermost first. */
  readonly luks: readonly string[];
}

export interface FilesystemFacts {
  readonly root: string;
  /** The mounts at `root` and below it. */
  readonly mounts: readonly MountFacts[];
  /** Whether the ESP has a driver by which systemd-boot reads other file systems than FAT. */
  readonly hasLoaderDriver: (esp: string) => boolean;
  readonly biosBoot: DiskPartition | undefined;
  readonly kargs: readonly string[];
}

const XBOOTLDR_TYPE = 'bc13c2ff-59e6-4262-a352-b275fd6f7172';
const ROOT_FILE_SYSTEMS = ['ext4', 'btrfs', 'xfs'];
const ESP_PLACES = ['/efi', '/boot/efi', '/boot'];

/** Throws 'host-unsupported' naming what is missing; nothing has been touched then. */
export function planFilesystem(facts: FilesystemFacts): InstallPlaces {
  const { root, mounts, hasLoaderDriver, biosBoot, kargs } = facts;
  const at = (place: string): MountFacts | undefined => mounts.find(({ mountPoint }) => mountPoint === root + place);
  const rootMount = at('');
  if (rootMount?.uuid === undefined) {
    throw refusal(`"${root}" is not where a file system of a block device is mounted`, 'Mount the new root there');
  }
  if (!ROOT_FILE_SYSTEMS.includes(rootMount.type)) {
    throw refusal(`The root is ${rootMount.type}`, `Use one of ${ROOT_FILE_SYSTEMS.join(', ')}`);
  }
  const esp = ESP_PLACES.map(at).find((mount) => mount?.type === 'vfat' && mount.partitionType === ESP_TYPE);
  const boot = at('/boot') ?? esp ?? rootMount;
  const systemdBootProblem = whyNotSystemdBoot(esp, boot, hasLoaderDriver);
  // Without either no other loader can be started.
  if (esp === undefined && biosBoot === undefined && systemdBootProblem !== undefined) throw systemdBootProblem;
  const ownVar = at('/var');
  const used = [rootMount, boot, ...(esp === undefined ? [] : [esp]), ...(ownVar === undefined ? [] : [ownVar])];
  const readOnly = used.find(({ isReadOnly }) => isReadOnly);
  if (readOnly !== undefined) throw refusal(`"${readOnly.mountPoint}" is mounted read-only`, 'Mount it writable');
  const luks = [...new Set(used.flatMap((mount) => mount.luks))].filter((uuid) => !namesLuks(kargs, uuid));
  return {
    root,
    boot: boot === rootMount ? `${root}/boot` : boot.mountPoint,
    esp: esp?.mountPoint,
    var: ownVar?.mountPoint,
    bootFileSystem: { uuid: boot.uuid, type: boot.type },
    biosBoot,
    systemdBootProblem,
    foundKargs: [
      ...(findKargs(kargs, 'root').length > 0 ? [] : rootKargs(rootMount, rootMount.uuid)),
      ...luks.map((uuid) => `rd.luks.uuid=${uuid}`),
      ...(ownVar === undefined || kargsMountVar(kargs) ? [] : [varKarg(ownVar)]),
    ],
  };
}

function refusal(message: string, hint: string): HostctlError {
  return new HostctlError('host-unsupported', `${message}; nothing was changed`, { hint });
}

/** systemd-boot reads entries from the ESP and from one XBOOTLDR partition, and nothing but FAT by itself. */
function whyNotSystemdBoot(
  esp: MountFacts | undefined,
  boot: MountFacts,
  hasDriver: (esp: string) => boolean,
): HostctlError | undefined {
  if (esp === undefined) {
    return refusal(
      'No ESP is mounted',
      'Mount a FAT partition of the type "EFI System" at ROOT/efi, or at ROOT/boot; for a BIOS the image needs GRUB',
    );
  }
  if (boot === esp) return undefined;
  if (boot.partitionType !== XBOOTLDR_TYPE) {
    return refusal(
      `systemd-boot will not look at "${boot.mountPoint}": its partition has another type than XBOOTLDR`,
      'Give it the type "Linux extended boot", or unmount it: the ESP is used then',
    );
  }
  if (boot.type !== 'vfat' && !hasDriver(esp.mountPoint)) {
    return refusal(
      `systemd-boot cannot read "${boot.mountPoint}", which is ${boot.type}`,
      'Use FAT, put a driver into EFI/systemd/drivers of the ESP, or unmount it: the ESP is used then',
    );
  }
  return undefined;
}

function rootKargs({ type, subvolume }: MountFacts, uuid: string): string[] {
  const isSubvolume = type === 'btrfs' && subvolume !== '/';
  return [`root=UUID=${uuid}`, ...(isSubvolume ? [`rootflags=subvol=${subvolume}`] : []), 'rw'];
}

function varKarg({ mountPoint, uuid, type, subvolume }: MountFacts): string {
  if (uuid === undefined) {
    throw refusal(
      `"${mountPoint}" is not a file system of a block device`,
      'Say by --karg systemd.mount-extra=SOURCE:/var how to mount it',
    );
  }
  const options = type === 'btrfs' && subvolume !== '/' ? `:subvol=${subvolume}` : '';
  return `systemd.mount-extra=UUID=${uuid}:/var:${type}${options}`;
}

/** Whether an argument has a LUKS device of this UUID unlocked. */
export function namesLuks(kargs: readonly string[], uuid: string): boolean {
  const named = ['rd.luks.uuid', 'luks.uuid', 'rd.luks.name', 'luks.name'].flatMap((key) => findKargs(kargs, key));
  return named.some((value) => value?.replace(/^luks-/, '').startsWith(uuid));
}

/** The LUKS UUID in a device-mapper UUID such as `CRYPT-LUKS2-<32 hex digits>-name`; undefined for another. */
export function luksUuid(dmUuid: string): string | undefined {
  const hex = /^CRYPT-LUKS\d-([0-9a-f]{32})-/.exec(dmUuid)?.[1];
  return hex?.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
