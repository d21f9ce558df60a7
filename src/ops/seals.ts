/** Seals as they are published beside an image: finding them, and whether one holds for this image and these keys. */

import { HostctlError, isHostctlError } from '../errors.ts';
import type { OciDigest } from '../format/oci/digest.ts';
import type { ImageReference } from '../format/oci/reference.ts';
import type { SignedIdentity } from '../format/policy.ts';
import type { PublicKey } from '../format/seal/key.ts';
import { parseSeal, type Seal } from '../format/seal/seal.ts';
import { parseSignatures, signersOf, type Signature } from '../format/seal/signatures.ts';
import type { ImageSource } from '../image/source.ts';
import type { SealFiles } from '../store/seals.ts';

export const SEAL_TYPE = 'application/vnd.hostctl.seal.v1';
export const SEAL_TEXT_TYPE = 'application/vnd.hostctl.seal.v1.text';
export const SEAL_SIGNATURES_TYPE = 'application/vnd.hostctl.seal.v1.signatures';

/** A seal that nobody has looked into yet: its text is parsed only once a signature was found good. */
export interface PublishedSeal extends SealFiles {
  readonly lines: readonly Signature[];
}

export interface AcceptedSeal {
  readonly files: SealFiles;
  readonly seal: Seal;
  /** Ids of the trusted keys that signed it. */
  readonly keys: readonly string[];
}

/** The tag of a seal in a registry that does not list it: by the digest of the image's manifest. */
export function sealTag(manifestDigest: OciDigest): string {
  return `${manifestDigest.replace(':', '-')}.seal`;
}

/** Every seal beside an image, and why others were passed over. */
export interface FoundSeals {
  readonly published: readonly PublishedSeal[];
  readonly broken: readonly string[];
}

/** Looks for seals where the image comes from. Throws 'registry' where that cannot be asked. */
export async function readSeals({
  referrers,
  manifestDigest,
}: Pick<ImageSource, 'referrers' | 'manifestDigest'>): Promise<FoundSeals> {
  const published: PublishedSeal[] = [];
  const broken: string[] = [];
  const listed = await referrers.ofType(SEAL_TYPE);
  const tagged = listed.length > 0 ? undefined : await referrers.tagged(sealTag(manifestDigest));
  for (const { digest, parts } of tagged === undefined ? listed : [tagged]) {
    const part = (type: string): Uint8Array | undefined => parts.find(({ mediaType }) => mediaType === type)?.bytes;
    const bytes = part(SEAL_TEXT_TYPE);
    const signatures = part(SEAL_SIGNATURES_TYPE);
    try {
      if (bytes === undefined || signatures === undefined) throw new HostctlError('format-invalid', 'it is not whole');
      published.push({ bytes, signatures, lines: parseSignatures(signatures) });
    } catch (error) {
      if (!isHostctlError(error)) throw error;
      broken.push(`the seal in ${digest} cannot be used: ${error.message}`);
    }
  }
  return { published, broken };
}

export interface SealCheck {
  readonly keys: readonly PublicKey[];
  /** Undefined where the name does not matter. */
  readonly identity: SignedIdentity | undefined;
  readonly source: Pick<ImageSource, 'manifestDigest' | 'reference'>;
  /** Milliseconds since 1970; undefined where expiry does not matter. */
  readonly now: number | undefined;
}

/** Whether a seal holds, or why not. Bytes are verified first and parsed then. */
export function checkSeal(
  published: PublishedSeal,
  { keys, identity, source, now }: SealCheck,
): AcceptedSeal | { readonly reason: string } {
  const { bytes, signatures, lines } = published;
  const signers = signersOf(bytes, lines, keys);
  if (signers.length === 0) return { reason: noSigner(lines, keys) };
  const seal = parseSeal(bytes);
  if (seal.manifest !== source.manifestDigest) {
    return { reason: `the seal is for the manifest ${seal.manifest}, not for ${source.manifestDigest}` };
  }
  const name = wantedName(identity, source.reference);
  if (name !== undefined && seal.name !== name) {
    return { reason: `the seal names "${seal.name ?? 'nothing'}", not "${name}"` };
  }
  if (seal.expires !== undefined && now !== undefined && Date.parse(seal.expires) <= now) {
    return { reason: `the seal has expired on ${seal.expires}` };
  }
  return { files: { bytes, signatures }, seal, keys: signers.map(({ id }) => id) };
}

function noSigner(lines: readonly Signature[], keys: readonly PublicKey[]): string {
  if (keys.length === 0) return 'there is no key to check the seal with';
  const known = lines.filter(({ keyId }) => keys.some(({ id }) => id === keyId));
  if (known.length > 0) return `the signature by key ${known[0]?.keyId} is wrong`;
  return `the seal is signed by unknown keys only (${lines.map(({ keyId }) => keyId).join(', ')})`;
}

/** The repository that a seal must name; undefined where the image comes from a place without a name. */
function wantedName(identity: SignedIdentity | undefined, reference: ImageReference): string | undefined {
  if (identity?.type === 'exactRepository') return identity.name;
  return identity?.type === 'matchRepository' && reference.transport === 'docker' ? reference.name : undefined;
}
