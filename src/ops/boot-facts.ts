/**
 * What a boot needs to know from the image itself: kernel and initrd, kernel arguments, and the name for the menu.
 * Read from the flattened tree and the objects it names, never from a mounted or unpacked image.
 */

import { HostctlError } from '../errors.ts';
import type { ContentSource, KernelFiles } from '../deploy/kernels.ts';
import { kargsFromFiles, rustArchitecture } from '../format/kargs-d.ts';
import { parseOsRelease } from '../format/os-release.ts';
import { lookup, resolve } from '../tree/lookup.ts';
import { displayRaw, type RawName } from '../tree/name.ts';
import { inodeOf, type DirectoryNode, type FileNode, type TreeNode } from '../tree/node.ts';

export interface BootFacts {
  readonly kernel: KernelFiles;
  readonly kernelVersion: string;
  readonly kargs: readonly string[];
  readonly title: string;
  readonly version: string | undefined;
}

type ContentOf = (file: FileNode) => Iterable<Uint8Array>;

const KERNEL_MAX_BYTES = 256 * 2 ** 20;
const INITRD_MAX_BYTES = 2 ** 30;
const SMALL_FILE_MAX_BYTES = 65536;
const MODULES = '/usr/lib/modules';
const KARGS_D = '/usr/lib/bootc/kargs.d';

/** Throws 'image-not-bootable' naming what is missing, or doubled. */
export function bootFacts(tree: DirectoryNode, contentOf: ContentOf, architecture: string): BootFacts {
  const { version, linux, initrd } = findKernel(tree);
  const osRelease = parseOsRelease(
    smallText(resolve(tree, '/etc/os-release'), contentOf) ??
      smallText(resolve(tree, '/usr/lib/os-release'), contentOf) ??
      '',
  );
  return {
    kernel: { linux: source(linux, contentOf), initrd: source(initrd, contentOf) },
    kernelVersion: version,
    kargs: kargsFromFiles(kargsFiles(tree, contentOf), rustArchitecture(architecture)),
    title: osRelease.prettyName,
    version: osRelease.imageVersion ?? osRelease.version ?? osRelease.versionId,
  };
}

function findKernel(tree: DirectoryNode): { version: string; linux: FileNode; initrd: FileNode } {
  const modules = lookup(tree, MODULES);
  const found: { version: string; linux: FileNode; directory: DirectoryNode }[] = [];
  for (const [name, entry] of modules?.kind === 'directory' ? modules.entries : []) {
    const directory = inodeOf(entry);
    const linux = directory.kind === 'directory' ? fileIn(directory, 'vmlinuz') : undefined;
    if (directory.kind === 'directory' && linux !== undefined) {
      found.push({ version: displayRaw(name), linux, directory });
    }
  }
  const [kernel] = found;
  if (kernel === undefined) {
    throw new HostctlError('image-not-bootable', `The image has no kernel: no "${MODULES}/VERSION/vmlinuz"`, {
      hint: 'Install a kernel in the image; a bootable image has exactly one',
    });
  }
  if (found.length > 1) {
    const versions = found.map(({ version }) => `"${version}"`).sort();
    throw new HostctlError('image-not-bootable', `The image has ${found.length} kernels: ${versions.join(', ')}`, {
      hint: 'Remove all but one from the image',
    });
  }
  const { version, linux, directory } = kernel;
  const initrd = fileIn(directory, 'initramfs.img');
  if (initrd === undefined) {
    throw new HostctlError('image-not-bootable', `The image has no "${MODULES}/${version}/initramfs.img"`, {
      hint: 'Run dracut with the hostctl module when the image is built',
    });
  }
  checkSize(linux, KERNEL_MAX_BYTES, 'kernel');
  checkSize(initrd, INITRD_MAX_BYTES, 'initrd');
  return { version, linux, initrd };
}

function fileIn(directory: DirectoryNode, name: string): FileNode | undefined {
  const entry = directory.entries.get(name as RawName);
  const node = entry === undefined ? undefined : inodeOf(entry);
  return node?.kind === 'file' ? node : undefined;
}

function checkSize(file: FileNode, maxBytes: number, what: string): void {
  const size = sizeOf(file);
  if (size > 0 && size <= maxBytes) return;
  throw new HostctlError('image-not-bootable', `The image's ${what} has ${size} bytes; 1 to ${maxBytes} are allowed`);
}

function sizeOf({ content }: FileNode): number {
  return content.kind === 'inline' ? content.bytes.length : content.size;
}

function source(file: FileNode, contentOf: ContentOf): ContentSource {
  return { sizeBytes: sizeOf(file), chunks: () => contentOf(file) };
}

function kargsFiles(tree: DirectoryNode, contentOf: ContentOf): Map<string, string> {
  const directory = lookup(tree, KARGS_D);
  const files = new Map<string, string>();
  if (directory?.kind !== 'directory') return files;
  for (const [name, entry] of directory.entries) {
    const text = smallText(inodeOf(entry), contentOf);
    if (text !== undefined) files.set(displayRaw(name), text);
  }
  return files;
}

function smallText(node: TreeNode | undefined, contentOf: ContentOf): string | undefined {
  if (node?.kind !== 'file' || sizeOf(node) > SMALL_FILE_MAX_BYTES) return undefined;
  return Buffer.concat([...contentOf(node)].map((chunk) => Uint8Array.from(chunk))).toString('utf8');
}
