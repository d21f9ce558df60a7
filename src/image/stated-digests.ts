/**
 * The composefs digests that an image states of itself: annotations of its manifest, a label of its config, and the
 * command lines of the unified kernel images in it. They are claims to be compared with what is computed, and never a
 * reason to trust anything.
 */

import { HostctlError, isHostctlError } from '../errors.ts';
import { findDigestArguments, splitCmdline } from '../format/cmdline.ts';
import { digestAlgorithm } from '../format/fsverity/digest.ts';
import { readPeCmdlines } from '../format/pe.ts';
import { displayRaw, rawFromText } from '../tree/name.ts';
import type { VerityDigest } from '../tree/node.ts';
import type { ImageSource } from './source.ts';

export interface StatedDigest {
  readonly kind: 'annotation' | 'label' | 'uki';
  /** The name of the annotation or label, or the path of the unified kernel image. */
  readonly name: string;
  readonly digest: VerityDigest;
}

const ANNOTATION = /^composefs\.merged(?:\.bootable)?\.(?:erofs\.v[0-9]+\.)?fsverity-[a-z0-9]+(?:-[0-9]+)?$/;
const LABEL = 'containers.composefs.fsverity';
const DIGEST = /^(?:[0-9a-f]{64}|[0-9a-f]{128})$/;

/** What manifest and config state. A value that is no digest states nothing. */
export function digestsOfDocuments({ manifest, config }: Pick<ImageSource, 'manifest' | 'config'>): StatedDigest[] {
  const annotations = [...manifest.annotations]
    .filter(([name]) => ANNOTATION.test(name))
    .map(([name, value]) => ({ kind: 'annotation' as const, name, value }));
  const label = config.labels.get(LABEL);
  const labels = label === undefined ? [] : [{ kind: 'label' as const, name: LABEL, value: label }];
  return [...annotations, ...labels].flatMap(({ value, ...rest }) =>
    DIGEST.test(value) ? [{ ...rest, digest: value as VerityDigest }] : [],
  );
}

/** What the command lines of a unified kernel image state. Errors name it. */
export function digestsOfUki(path: string, content: Iterable<Uint8Array>): StatedDigest[] {
  try {
    return readPeCmdlines(content)
      .flatMap((cmdline) => findDigestArguments(splitCmdline(cmdline.trim())))
      .map(({ digest }) => ({ kind: 'uki', name: path, digest }));
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    throw new HostctlError(error.code, `Cannot read "${path}": ${error.message}`, { cause: error });
  }
}

/** `annotation "NAME"`, `label "NAME"` or `command line of "PATH"`. */
export function describeSource({ kind, name }: StatedDigest): string {
  return `${kind === 'uki' ? 'command line of' : kind} "${displayRaw(rawFromText(name))}"`;
}

/** The hashes that the digests are made with. */
export function statedAlgorithms(stated: readonly StatedDigest[]): Set<'sha256' | 'sha512'> {
  return new Set(stated.map(({ digest }) => digestAlgorithm(digest)));
}
