/**
 * `image lint`: whether an image can be deployed, and every reason why not. The layers are read once for the tree, and
 * once more for the initramfs, which nothing keeps.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { peSectionPieces } from '../format/pe.ts';
import { findBootFiles, type BootFiles } from '../image/boot-files.ts';
import type { BootableTree } from '../image/build.ts';
import { findInInitramfs } from '../image/initramfs.ts';
import { measuringSink } from '../image/ingest.ts';
import type { ImageSource } from '../image/source.ts';
import type { Host } from '../sys/host.ts';
import type { FileNode } from '../tree/node.ts';
import { flattenImage } from './build.ts';
import { capturingSink } from './capture.ts';
import { keptContent, type ContentOf } from './boot-facts.ts';
import { withImage } from './with-image.ts';
import { isHookName, isLintedFile, lintTree, type InitramfsLook, type LintFinding } from './lint-rules.ts';

export interface LintResult {
  readonly manifestDigest: string;
  /** False when `deploy` would refuse it. */
  readonly deployable: boolean;
  readonly findings: readonly LintFinding[];
}

export async function lintImage(host: Host, { image }: { readonly image: string }): Promise<LintResult> {
  return withImage(host, image, undefined, (source) => lintSource(host, source));
}

async function lintSource(host: Host, source: ImageSource): Promise<LintResult> {
  const tree = await flattenImage(host, source, measuringSink('sha512'), isLintedFile);
  const bootFiles = (): BootFiles => findBootFiles(tree);
  const initramfs = await lookIntoInitramfs(host, bootFiles, async ({ content }) => {
    if (content.kind === 'inline') return [content.bytes];
    const capture = capturingSink('sha512', content);
    await flattenImage(host, source, capture.sink);
    return capture.chunks();
  });
  const findings = lintTree({
    ...{ tree, bootFiles },
    contentOf: keptContent,
    architecture: host.architecture,
    labels: source.config.labels,
    initramfs,
  });
  const deployable = findings.every(({ severity }) => severity !== 'fatal');
  return { manifestDigest: source.manifestDigest, deployable, findings };
}

/** Throws 'image-not-bootable' for what is fatal in an image that is about to be deployed. */
export async function refuseUnbootable(
  host: Host,
  { tree, bootFiles: found }: BootableTree,
  labels: ReadonlyMap<string, string>,
  contentOf: ContentOf,
): Promise<void> {
  const bootFiles = (): BootFiles => found;
  const initramfs = await lookIntoInitramfs(host, bootFiles, (file) => Promise.resolve(contentOf(file)));
  const findings = lintTree({ tree, bootFiles, contentOf, architecture: host.architecture, labels, initramfs });
  const fatal = findings.filter(({ severity }) => severity === 'fatal');
  if (fatal.length === 0) return;
  throw new HostctlError(
    'image-not-bootable',
    `Image cannot be deployed: ${fatal.map(({ message }) => message).join('; ')}`,
    {
      hint: fatal.map(({ remedy }) => remedy).join('; '),
    },
  );
}

async function lookIntoInitramfs(
  host: Host,
  bootFiles: () => BootFiles,
  contentOf: (file: FileNode) => Promise<Iterable<Uint8Array>>,
): Promise<InitramfsLook | undefined> {
  try {
    const found = bootFiles();
    const chunks =
      found.kind === 'split'
        ? await contentOf(found.initramfs)
        : peSectionPieces(await contentOf(found.uki), '.initrd');
    const names = await findInInitramfs(chunks, isHookName, (program, args) => host.exec.filter(program, args));
    return { names };
  } catch (error) {
    if (isHostctlError(error, 'image-not-bootable', 'image-unsupported')) return undefined;
    if (isHostctlError(error, 'format-invalid', 'image-invalid', 'tool-missing')) return { unreadable: error.message };
    throw error;
  }
}
