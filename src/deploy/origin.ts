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
import type { KargsOfFile } from '../format/kargs-d.ts';
import { withChecksum } from '../format/checksum.ts';
import { formatKeyfile, keyfileValue, parseKeyfile, type Keyfile } from '../format/keyfile.ts';
import { parseSecurityVersion } from '../format/seal/seal.ts';
import type { VerityDigest } from '../tree/node.ts';
import type { KargSources } from './kargs.ts';

/** An application image that the deployment needs. */
export interface BoundImage {
  readonly reference: string;
  readonly digest: VerityDigest;
}

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
  readonly kargs: KargSources;
  readonly bound: readonly BoundImage[];
  /** Of its seal, or as the image says itself; compared with the floor. */
  readonly securityVersion: number;
  readonly seal: OriginSeal | undefined;
  /** Keys by which the manifest was found signed, by their ids. */
  readonly signedBy: readonly string[];
}

/** The seal that the image was deployed with, which lies in the repository. */
export interface OriginSeal {
  /** Ids of the keys that were trusted and signed it. */
  readonly keys: readonly string[];
  /** Whether the image's own initramfs asks for it at each boot. */
  readonly isForBoot: boolean;
}

/** File name of a deployment's origin. */
export function originFile(digest: VerityDigest): string {
  return `${digest}.origin`;
}

export function formatOrigin(origin: Origin): string {
  const optional = (key: string, value: string | undefined): [string, string][] =>
    value === undefined || value === '' ? [] : [[key, value]];
  const text = formatKeyfile(
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
          ...filesFields('image', origin.kargs.image).flatMap(([key, value]) => optional(key, value)),
          ...filesFields('host', origin.kargs.host).flatMap(([key, value]) => optional(key, value)),
          ...optional('kargs-user', joinCmdline(origin.kargs.user)),
          ...optional('kargs-removed', joinCmdline(origin.kargs.removed)),
          ...optional('security-version', origin.securityVersion === 0 ? undefined : String(origin.securityVersion)),
          ...optional('sealed-by', origin.seal?.keys.join(' ')),
          ...optional('seal-at-boot', origin.seal?.isForBoot === true ? 'yes' : undefined),
          ...optional('signed-by', origin.signedBy.join(' ')),
        ]),
      ],
      ...boundSection(origin.bound),
    ]),
  );
  return withChecksum(text, ';');
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
    kargs: {
      image: readFiles(file, 'image'),
      host: readFiles(file, 'host'),
      user: splitCmdline(keyfileValue(file, 'hostctl', 'kargs-user') ?? ''),
      removed: splitCmdline(keyfileValue(file, 'hostctl', 'kargs-removed') ?? ''),
    },
    bound: [...(file.get('bound')?.values() ?? [])].map(readBound),
    securityVersion: parseSecurityVersion(keyfileValue(file, 'hostctl', 'security-version') ?? '0'),
    seal: readSeal(file),
    signedBy: readWords(file, 'signed-by'),
  };
}

/** One numbered line for each: a reference is no key. */
function boundSection(bound: Origin['bound']): [string, Map<string, string>][] {
  if (bound.length === 0) return [];
  return [
    ['bound', new Map(bound.map(({ digest, reference }, index) => [String(index + 1), `${digest} ${reference}`]))],
  ];
}

function readBound(text: string): BoundImage {
  const [, digest, reference] = /^([0-9a-f]{64}|[0-9a-f]{128}) (.+)$/.exec(text) ?? [];
  if (digest === undefined || reference === undefined) {
    throw new HostctlError('state-invalid', 'The origin has a bad line in section "bound"');
  }
  return { digest: digest as VerityDigest, reference };
}

function readSeal(file: Keyfile): OriginSeal | undefined {
  const keys = readWords(file, 'sealed-by');
  return keys.length === 0 ? undefined : { keys, isForBoot: keyfileValue(file, 'hostctl', 'seal-at-boot') === 'yes' };
}

function readWords(file: Keyfile, key: string): string[] {
  return (keyfileValue(file, 'hostctl', key) ?? '').split(' ').filter((word) => word !== '');
}

/** All arguments in one field; in another, for people who ask, how many of them each file brought. */
function filesFields(of: 'image' | 'host', files: readonly KargsOfFile[]): [string, string][] {
  const counts = files.flatMap(({ file, kargs }) =>
    file === undefined ? [] : `${encodeURIComponent(file)}:${kargs.length}`,
  );
  return [
    [`kargs-${of}`, joinCmdline(files.flatMap(({ kargs }) => kargs))],
    [`kargs-${of}-files`, counts.length === files.length ? counts.join(' ') : ''],
  ];
}

/** Counts that do not fit the arguments, or are not there, leave them without file names. */
function readFiles(file: Keyfile, of: 'image' | 'host'): KargsOfFile[] {
  const kargs = splitCmdline(keyfileValue(file, 'hostctl', `kargs-${of}`) ?? '');
  if (kargs.length === 0) return [];
  const files: KargsOfFile[] = [];
  let from = 0;
  for (const field of (keyfileValue(file, 'hostctl', `kargs-${of}-files`) ?? '').split(' ')) {
    const [, name = '', count = ''] = /^([^:]+):([1-9]\d{0,4})$/.exec(field) ?? [];
    files.push({ file: decoded(name), kargs: kargs.slice(from, from + Number(count)) });
    from += Number(count);
  }
  return from === kargs.length ? files : [{ file: undefined, kargs }];
}

function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    // Not our encoding: shown as it stands.
    return name;
  }
}

function required(file: Keyfile, section: string, key: string): string {
  const value = keyfileValue(file, section, key);
  if (value === undefined) {
    throw new HostctlError('state-invalid', `The origin lacks "${key}" in section "${section}"`);
  }
  return value;
}
