/**
 * What a boot needs to know from the image itself: kernel and initrd, kernel arguments, the name for the menu, and which
 * places are writable. Read from the flattened tree and the objects it names, never from a mounted or unpacked image.
 */

import type { ContentSource, KernelFiles } from '../deploy/kernels.ts';
import type { BootConfig } from '../format/boot-config.ts';
import { kargsFromFiles, rustArchitecture, type KargsOfFile } from '../format/kargs-d.ts';
import { parseOsRelease } from '../format/os-release.ts';
import type { BootFiles, SplitKernel } from '../image/boot-files.ts';
import type { BootableTree } from '../image/build.ts';
import { lookup } from '../tree/lookup.ts';
import { displayRaw } from '../tree/name.ts';
import { contentSize, inodeOf, type DirectoryNode, type FileNode, type TreeNode } from '../tree/node.ts';
import { imageBootConfig } from './image-config.ts';
import { readUnifiedKernel } from './unified-kernel.ts';

export interface BootFacts {
  readonly kernel: KernelFiles;
  readonly kargs: readonly KargsOfFile[];
  readonly title: string;
  readonly version: string | undefined;
  readonly places: BootConfig;
}

export type ContentOf = (file: FileNode) => Iterable<Uint8Array>;

/** Of what was kept while the layers passed; anything else is too large for what is read of an image here. */
export const keptContent: ContentOf = ({ content }) => [content.bytes ?? new Uint8Array()];

const SMALL_FILE_MAX_BYTES = 65536;
const KARGS_D = '/usr/lib/bootc/kargs.d';

/** @param architecture - Go's name of it */
export function bootFacts({ tree, bootFiles }: BootableTree, contentOf: ContentOf, architecture: string): BootFacts {
  // Usually a link to the second, which is then not a file.
  const osRelease = parseOsRelease(
    smallText(lookup(tree, '/etc/os-release'), contentOf) ??
      smallText(lookup(tree, '/usr/lib/os-release'), contentOf) ??
      '',
  );
  return {
    kernel: kernelFilesOf(bootFiles, contentOf),
    kargs: imageKargs(tree, contentOf, architecture),
    title: osRelease.prettyName,
    version: osRelease.imageVersion ?? osRelease.version ?? osRelease.versionId,
    places: imageBootConfig(tree, contentOf),
  };
}

/** The arguments that an image brings, file by file. */
export function imageKargs(tree: DirectoryNode, contentOf: ContentOf, architecture: string): KargsOfFile[] {
  return kargsFromFiles(kargsFiles(tree, contentOf), rustArchitecture(architecture));
}

/** Whether a file, by its path in the image, brings arguments. */
export function isKargsFile(path: string): boolean {
  return `/${path}`.startsWith(`${KARGS_D}/`);
}

/** What is copied to the boot partition. */
export function kernelFilesOf(bootFiles: BootFiles, contentOf: ContentOf): KernelFiles {
  if (bootFiles.kind === 'split') return splitFilesOf(bootFiles, contentOf);
  const { uki, addons } = bootFiles;
  return {
    kind: 'unified',
    uki: source(uki, contentOf),
    addons: addons.map(({ name, file }) => ({ name, content: source(file, contentOf) })),
    kargs: readUnifiedKernel(bootFiles, contentOf).kargs,
  };
}

/** The same of a kernel with its initramfs. */
export function splitFilesOf({ kernel, initramfs }: SplitKernel, contentOf: ContentOf): KernelFiles {
  return { kind: 'split', linux: source(kernel, contentOf), initrd: source(initramfs, contentOf) };
}

function source(file: FileNode, contentOf: ContentOf): ContentSource {
  return { sizeBytes: contentSize(file.content), chunks: () => contentOf(file) };
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

/** A file as text; undefined for anything else, and for one too large to be a configuration. */
export function smallText(node: TreeNode | undefined, contentOf: ContentOf): string | undefined {
  if (node?.kind !== 'file' || contentSize(node.content) > SMALL_FILE_MAX_BYTES) return undefined;
  return Buffer.concat([...contentOf(node)].map((chunk) => Uint8Array.from(chunk))).toString('utf8');
}
