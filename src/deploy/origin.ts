/**
 * The record of a deployment: `state/deploy/<name>/<digest>.origin`, a key file whose first three sections are bootc's
 * and whose `[hostctl]` section is ours. Written once with the deployment and never changed.
 */

import { HostctlError } from '../errors.ts';
import {
  formatImageParameters,
  joinCmdline,
  parseDigestArgument,
  splitCmdline,
  type ImageParameters,
} from '../format/cmdline.ts';
import { formatKeyfile, keyfileValue, parseKeyfile, type Keyfile } from '../format/keyfile.ts';
import type { VerityDigest } from '../tree/node.ts';

export interface Origin {
  /** Sequence number the deployment was made with; its name for life. */
  readonly id: number;
  readonly digest: VerityDigest;
  readonly parameters: ImageParameters;
  readonly verityRequired: boolean;
  /** Image reference that is tracked. */
  readonly reference: string;
  /** `sha256:…` of the OCI manifest. */
  readonly manifestDigest: string;
  /** Directory of kernel and initrd on the boot partition. */
  readonly kernel: string;
  /** Shown in the boot menu. */
  readonly title: string;
  readonly version: string | undefined;
  /** When the image was built, as it says itself. */
  readonly created: string | undefined;
  /** Arguments by where they come from. */
  readonly imageKargs: readonly string[];
  readonly userKargs: readonly string[];
}

/** File name of a deployment's origin. */
export function originFile(digest: VerityDigest): string {
  return `${digest}.origin`;
}

export function formatOrigin(origin: Origin): string {
  const optional = (key: string, value: string | undefined): [string, string][] =>
    value === undefined || value === '' ? [] : [[key, value]];
  return formatKeyfile(
    new Map<string, Map<string, string>>([
      ['origin', new Map([['container-image-reference', origin.reference]])],
      [
        'boot',
        new Map([
          ['boot_type', 'bls'],
          ['digest', origin.kernel],
        ]),
      ],
      ['image', new Map([['manifest_digest', origin.manifestDigest]])],
      [
        'hostctl',
        new Map([
          ['id', String(origin.id)],
          ['composefs-digest', `${formatImageParameters(origin.parameters)}:${origin.digest}`],
          ['verity', origin.verityRequired ? 'required' : 'optional'],
          ['title', origin.title],
          ...optional('version', origin.version),
          ...optional('created', origin.created),
          ...optional('kargs-image', joinCmdline(origin.imageKargs)),
          ...optional('kargs-user', joinCmdline(origin.userKargs)),
        ]),
      ],
    ]),
  );
}

/** Reads an origin of ours. Throws 'format-invalid' or 'state-invalid' naming what is missing. */
export function parseOrigin(text: string): Origin {
  const file = parseKeyfile(text);
  const id = Number(required(file, 'hostctl', 'id'));
  if (!Number.isSafeInteger(id) || id < 1) {
    throw new HostctlError('state-invalid', 'The origin has a bad "id"');
  }
  const stated = parseDigestArgument(`composefs.digest=${required(file, 'hostctl', 'composefs-digest')}`);
  if (stated === undefined) throw new HostctlError('state-invalid', 'The origin has a bad "composefs-digest"');
  return {
    id,
    digest: stated.digest,
    parameters: stated.parameters,
    verityRequired: required(file, 'hostctl', 'verity') === 'required',
    reference: required(file, 'origin', 'container-image-reference'),
    manifestDigest: required(file, 'image', 'manifest_digest'),
    kernel: required(file, 'boot', 'digest'),
    title: required(file, 'hostctl', 'title'),
    version: keyfileValue(file, 'hostctl', 'version'),
    created: keyfileValue(file, 'hostctl', 'created'),
    imageKargs: splitCmdline(keyfileValue(file, 'hostctl', 'kargs-image') ?? ''),
    userKargs: splitCmdline(keyfileValue(file, 'hostctl', 'kargs-user') ?? ''),
  };
}

function required(file: Keyfile, section: string, key: string): string {
  const value = keyfileValue(file, section, key);
  if (value === undefined) {
    throw new HostctlError('state-invalid', `The origin lacks "${key}" in section "${section}"`);
  }
  return value;
}
