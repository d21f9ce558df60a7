/** Finds what a bootable image boots: exactly one kernel with its initramfs beside it. */

import { HostctlError } from '../errors.ts';
import { lookup, lookupDirectory } from '../tree/lookup.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { contentSize, inodeOf, type DirectoryNode, type FileNode } from '../tree/node.ts';

const MODULES = 'usr/lib/modules';
const MAX_KERNEL_BYTES = 256 << 20;
const MAX_INITRAMFS_BYTES = 2 ** 30;
export const UKI_DIRECTORY = 'boot/EFI/Linux';

export interface BootFiles {
  /** The directory below `/usr/lib/modules`. */
  readonly kernelVersion: string;
  readonly kernel: FileNode;
  readonly initramfs: FileNode;
}

/**
 * The kernel and initramfs of an image. To be called before `/boot` is emptied. Throws 'image-not-bootable' when there
 * is none, more than one, or one without initramfs.
 */
export function findBootFiles(root: DirectoryNode): BootFiles {
  const versions = kernelVersions(root);
  const [version] = versions;
  if (version === undefined) {
    const uki = lookupDirectory(root, UKI_DIRECTORY);
    if (uki !== undefined && [...uki.entries.keys()].some((name) => name.endsWith('.efi'))) {
      throw new HostctlError('image-unsupported', `Image boots by a unified kernel image in "/${UKI_DIRECTORY}"`, {
        hint: 'Put kernel and initramfs into "/usr/lib/modules/VERSION".',
      });
    }
    throw new HostctlError('image-not-bootable', `Image has no kernel "/${MODULES}/VERSION/vmlinuz"`);
  }
  if (versions.length > 1) {
    const shown = versions.map((name) => `"${displayRaw(name)}"`).join(', ');
    throw new HostctlError('image-not-bootable', `Image has ${versions.length} kernels: ${shown}`, {
      hint: 'Remove all but one of them from the image.',
    });
  }
  // The version becomes part of file names and boot entries.
  if (!/^[A-Za-z0-9][A-Za-z0-9._+~-]*$/.test(version)) {
    throw new HostctlError(
      'image-not-bootable',
      `Kernel version "${displayRaw(version)}" has characters that no boot entry may hold`,
    );
  }
  const directory = `${MODULES}/${version}`;
  return {
    kernelVersion: version,
    kernel: bootFile(root, `${directory}/vmlinuz`, MAX_KERNEL_BYTES),
    initramfs: bootFile(root, `${directory}/initramfs.img`, MAX_INITRAMFS_BYTES),
  };
}

function kernelVersions(root: DirectoryNode): RawName[] {
  const modules = lookupDirectory(root, MODULES);
  if (modules === undefined) return [];
  const found: RawName[] = [];
  for (const [name, entry] of modules.entries) {
    const node = inodeOf(entry);
    if (node.kind === 'directory' && node.entries.has('vmlinuz' as RawName)) found.push(name);
  }
  return found.sort();
}

function bootFile(root: DirectoryNode, path: string, maxBytes: number): FileNode {
  const node = lookup(root, path);
  if (node === undefined) throw new HostctlError('image-not-bootable', `Image has no file "/${path}"`);
  if (node.kind !== 'file')
    throw new HostctlError('image-not-bootable', `"/${path}" is a ${node.kind} instead of a file`);
  const size = contentSize(node.content);
  if (size === 0 || size > maxBytes) {
    throw new HostctlError('image-not-bootable', `"/${path}" has ${size} bytes, allowed are 1 to ${maxBytes}`);
  }
  return node;
}
