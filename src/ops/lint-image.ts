/**
 * `image lint`: whether an image can be deployed, and every reason why not. The layers are read once for the tree, and
 * once more for the initramfs, which nothing keeps.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { findBootFiles } from '../image/boot-files.ts';
import { findInInitramfs } from '../image/initramfs.ts';
import { measuringSink } from '../image/ingest.ts';
import type { ImageSource } from '../image/source.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, FileNode } from '../tree/node.ts';
import { flattenImage } from './build.ts';
import { capturingSink } from './capture.ts';
import type { ContentOf } from './boot-facts.ts';
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
  const initramfs = await lookIntoInitramfs(host, tree, async ({ content }) => {
    if (content.kind === 'inline') return [content.bytes];
    const capture = capturingSink('sha512', content);
    await flattenImage(host, source, capture.sink);
    return capture.chunks();
  });
  const findings = lintTree({
    tree,
    contentOf: keptContent,
    architecture: host.architecture,
    labels: source.config.labels,
    initramfs,
  });
  const deployable = findings.every(({ severity }) => severity !== 'fatal');
  return { manifestDigest: source.manifestDigest, deployable, findings };
}

/** Of what was kept while the layers passed; anything else is too large for what the rules read. */
const keptContent: ContentOf = ({ content }) => [content.bytes ?? new Uint8Array()];

/** Throws 'image-not-bootable' for what is fatal in an image that is about to be deployed. */
export async function refuseUnbootable(
  host: Host,
  tree: DirectoryNode,
  labels: ReadonlyMap<string, string>,
  contentOf: ContentOf,
): Promise<void> {
  const initramfs = await lookIntoInitramfs(host, tree, (file) => Promise.resolve(contentOf(file)));
  const findings = lintTree({ tree, contentOf, architecture: host.architecture, labels, initramfs });
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
  tree: DirectoryNode,
  contentOf: (file: FileNode) => Promise<Iterable<Uint8Array>>,
): Promise<InitramfsLook | undefined> {
  try {
    const { initramfs } = findBootFiles(tree);
    const names = await findInInitramfs(await contentOf(initramfs), isHookName, (program, args) =>
      host.exec.filter(program, args),
    );
    return { names };
  } catch (error) {
    if (isHostctlError(error, 'image-not-bootable', 'image-unsupported')) return undefined;
    if (isHostctlError(error, 'format-invalid', 'tool-missing')) return { unreadable: error.message };
    throw error;
  }
}
