/** Where what a deployment was made of can be had once more. */

import type { Origin } from '../deploy/origin.ts';
import { HostctlError } from '../errors.ts';
import { parseOciDigest } from '../format/oci/digest.ts';
import { formatImageReference, parseImageReference } from '../format/oci/reference.ts';
import type { ImageSource } from '../image/source.ts';

type MadeFrom = Pick<Origin, 'reference'> & { readonly manifestDigest: string | undefined };

/** By digest where that can be asked for; else what the reference leads to now. */
export function referenceAgain({ reference, manifestDigest }: MadeFrom): string {
  const parsed = parseImageReference(reference);
  if (parsed.transport !== 'docker' || manifestDigest === undefined) return reference;
  const digest = parseOciDigest(manifestDigest, 'Origin');
  return formatImageReference({ transport: 'docker', name: parsed.name, digest });
}

/** Throws 'digest-mismatch' where the reference leads to something else by now. */
export function requireSameManifest({ reference, manifestDigest }: MadeFrom, source: ImageSource): void {
  if (manifestDigest === undefined || source.manifestDigest === manifestDigest) return;
  throw new HostctlError(
    'digest-mismatch',
    `"${reference}" now leads to ${source.manifestDigest}, not to ${manifestDigest} it was made from`,
  );
}
