/**
 * Finds what a bootable image boots: exactly one unified kernel image, or else exactly one kernel with its initramfs
 * beside it. Where there is a unified one it is what boots, whatever it was made of lies beside it.
 */

import { HostctlError } from '../errors.ts';
import { lookup, lookupDirectory } from '../tree/lookup.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { contentSize, inodeOf, type DirectoryNode, type FileNode } from '../tree/node.ts';

const MODULES = 'usr/lib/modules';
const MAX_KERNEL_BYTES = 256 << 20;
const MAX_INITRAMFS_BYTES = 2 ** 30;
const MAX_ADDON_BYTES = 1 << 20;
const MAX_ADDONS = 16;
export const UKI_DIRECTORY = 'boot/EFI/Linux';

export type BootFiles = SplitKernel | UnifiedKernel;

export interface SplitKernel {
  readonly kind: 'split';
  /** The directory below `/usr/lib/modules`. */
  readonly kernelVersion: string;
  readonly kernel: FileNode;
  readonly initramfs: FileNode;
}

/** A unified kernel image, which lies in `/boot` and so is no part of the tree that it boots. */
export interface UnifiedKernel {
  readonly kind: 'unified';
  /** Told by the only directory below `/usr/lib/modules` that has a kernel too, or is there at all. */
  readonly kernelVersion: string | undefined;
  /** In the image, with a slash. */
  readonly path: string;
  readonly uki: FileNode;
  /** What systemd-stub adds to this one, in the order in which it does. */
  readonly addons: readonly Addon[];
}

export interface Addon {
  /** `NAME.addon.efi` */
  readonly name: string;
  readonly file: FileNode;
}

/**
 * What an image boots. To be called before `/boot` is emptied. Throws 'image-not-bootable' when there is none, more than
 * one, or a kernel without initramfs.
 */
export function findBootFiles(root: DirectoryNode): BootFiles {
  return findUnifiedKernel(root) ?? findSplitKernel(root);
}

/** The unified kernel images of a tree that still has its `/boot`. */
export function unifiedKernels(
  root: DirectoryNode,
): { readonly name: RawName; readonly path: string; readonly file: FileNode }[] {
  const directory = lookupDirectory(root, UKI_DIRECTORY);
  return [...(directory?.entries ?? [])].flatMap(([name, entry]) => {
    const file = inodeOf(entry);
    return file.kind === 'file' && /\.efi$/i.test(name)
      ? [{ name, path: `/${UKI_DIRECTORY}/${displayRaw(name)}`, file }]
      : [];
  });
}

function findUnifiedKernel(root: DirectoryNode): UnifiedKernel | undefined {
  const [found, ...others] = unifiedKernels(root);
  if (found === undefined) return undefined;
  if (others.length > 0) {
    const shown = [found, ...others].map(({ path }) => `"${path}"`).join(', ');
    throw new HostctlError('image-not-bootable', `Image has ${others.length + 1} unified kernel images: ${shown}`, {
      hint: 'Remove all but one of them from the image',
    });
  }
  const { name, path, file: uki } = found;
  checkSize(path, uki, MAX_INITRAMFS_BYTES);
  return {
    kind: 'unified',
    kernelVersion: onlyVersion(root),
    path,
    uki,
    addons: addonsOf(root, name, path),
  };
}

function onlyVersion(root: DirectoryNode): string | undefined {
  const directories = [...(lookupDirectory(root, MODULES)?.entries ?? [])].flatMap(([name, entry]) =>
    inodeOf(entry).kind === 'directory' ? [name] : [],
  );
  const versions = [kernelVersions(root), directories].find(({ length }) => length === 1);
  return versions?.[0] === undefined ? undefined : displayRaw(versions[0]);
}

/** They lie beside it, in `NAME.efi.extra.d`, and get their names on a file system that knows no case. */
function addonsOf(root: DirectoryNode, uki: RawName, path: string): Addon[] {
  const entry = lookupDirectory(root, UKI_DIRECTORY)?.entries.get(`${uki}.extra.d` as RawName);
  const directory = entry === undefined ? undefined : inodeOf(entry);
  const addons = [...(directory?.kind === 'directory' ? directory.entries : [])]
    .flatMap(([raw, entry]) => {
      const file = inodeOf(entry);
      return file.kind === 'file' && /\.addon\.efi$/i.test(raw) ? [{ name: displayRaw(raw), file }] : [];
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name, file } of addons) {
    checkSize(`${path}.extra.d/${name}`, file, MAX_ADDON_BYTES);
    if (/^[a-z0-9][a-z0-9._+-]*\.addon\.efi$/.test(name)) continue;
    throw new HostctlError(
      'image-not-bootable',
      `"${path}.extra.d/${name}" has a name that no boot partition may hold`,
      {
        hint: 'Name it with small letters, digits and ._+- only',
      },
    );
  }
  if (addons.length <= MAX_ADDONS) return addons;
  throw new HostctlError('image-not-bootable', `"${path}" has ${addons.length} add-ons, more than ${MAX_ADDONS}`);
}

/** The kernel and the initramfs beside it, also of a tree whose `/boot` is empty. Throws 'image-not-bootable'. */
export function findSplitKernel(root: DirectoryNode): SplitKernel {
  const versions = kernelVersions(root);
  const [version] = versions;
  if (version === undefined) {
    throw new HostctlError('image-not-bootable', `Image has no kernel "/${MODULES}/VERSION/vmlinuz"`, {
      hint: `Install one, or put a unified kernel image into "/${UKI_DIRECTORY}"`,
    });
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
    kind: 'split',
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
  checkSize(`/${path}`, node, maxBytes);
  return node;
}

function checkSize(path: string, { content }: FileNode, maxBytes: number): void {
  const size = contentSize(content);
  if (size > 0 && size <= maxBytes) return;
  throw new HostctlError('image-not-bootable', `"${path}" has ${size} bytes, allowed are 1 to ${maxBytes}`);
}
