/**
 * Deployments that bootc made with its composefs backend: the same places as ours, its own records. They are read and
 * can be booted and gone on from; nothing of theirs is ever changed. An origin without our section is bootc's. Pure.
 */

import { keyfileValue, parseKeyfile } from '../format/keyfile.ts';
import { DIGEST } from '../store/image-record.ts';
import type { VerityDigest } from '../tree/node.ts';

export interface BootcOrigin {
  /** bootc names state directories by it. */
  readonly digest: VerityDigest;
  /** Without the transport prefixes of ostree. */
  readonly reference: string;
  readonly manifestDigest: string | undefined;
  /** Started as an EFI program of its own, so that it needs no boot entry. */
  readonly isUki: boolean;
}

const OSTREE_PREFIX =
  /^ostree-(?:unverified-image|unverified-registry|image-signed|remote-image:[^:]*|remote-registry:[^:]*):/;

/** @param name - of the directory below `state/deploy`. Undefined where the origin is not bootc's. */
export function parseBootcOrigin(name: string, text: string): BootcOrigin | undefined {
  const file = parseKeyfile(text);
  const reference = keyfileValue(file, 'origin', 'container-image-reference');
  const bootType = keyfileValue(file, 'boot', 'boot_type');
  if (file.has('hostctl') || reference === undefined || bootType === undefined || !DIGEST.test(name)) return undefined;
  return {
    digest: name as VerityDigest,
    reference: reference.replace(OSTREE_PREFIX, ''),
    manifestDigest: keyfileValue(file, 'image', 'manifest_digest'),
    isUki: bootType === 'uki',
  };
}
