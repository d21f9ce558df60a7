/** Signatures of cosign beside an image: both places where its versions put them, and the rules of the policy. */

import { assertNever, HostctlError, isHostctlError } from '../errors.ts';
import { formatImageReference, type ImageReference } from '../format/oci/reference.ts';
import type { SignedIdentity } from '../format/policy.ts';
import type { PublicKey } from '../format/seal/key.ts';
import {
  BUNDLE_TYPE,
  COSIGN_PAYLOAD_TYPE,
  COSIGN_SIGNATURE_ANNOTATION,
  readBundle,
  readPayload,
  type SignedStatement,
} from '../format/sigstore.ts';
import type { ImageSource } from '../image/source.ts';

type Source = Pick<ImageSource, 'referrers' | 'manifestDigest' | 'reference'>;

/**
 * The id of a key that signed this manifest under a name that fits. Throws 'image-unsigned' where there is no
 * signature, 'signature-invalid' where none holds.
 */
export async function checkSigstore(
  source: Source,
  keys: readonly PublicKey[],
  identity: SignedIdentity,
): Promise<string> {
  const what = formatImageReference(source.reference);
  const { statements, count } = await signedStatements(source, keys);
  const reasons: string[] = [];
  for (const { keyId, manifestDigests, reference } of statements) {
    if (!manifestDigests.includes(source.manifestDigest)) reasons.push(`it is for ${manifestDigests.join(', ')}`);
    else if (!isNameFitting(identity, reference, source.reference)) {
      reasons.push(`it names "${reference ?? 'nothing'}", which does not fit "${identity.type}"`);
    } else return keyId;
  }
  if (count === 0) {
    throw new HostctlError('image-unsigned', `The image "${what}" has no signature of cosign`, {
      hint: 'The policy asks for one; the publisher makes it with "cosign sign --key"',
    });
  }
  const why = reasons.length > 0 ? reasons.join('; ') : 'no key of the policy made it';
  throw new HostctlError('signature-invalid', `No signature of "${what}" can be accepted: ${why}`);
}

/** Everything that one of the keys signed, of as many signatures as there were. */
async function signedStatements(
  { referrers, manifestDigest }: Source,
  keys: readonly PublicKey[],
): Promise<{ readonly statements: readonly SignedStatement[]; readonly count: number }> {
  const tagged = await referrers.tagged(`${manifestDigest.replace(':', '-')}.sig`);
  const payloads = (tagged?.parts ?? []).filter(({ mediaType }) => mediaType === COSIGN_PAYLOAD_TYPE);
  const bundles = (await referrers.ofType(BUNDLE_TYPE)).flatMap(({ parts }) => parts);
  const statements = [
    ...payloads.map(
      ({ bytes, annotations }) =>
        () =>
          readPayload(bytes, annotations.get(COSIGN_SIGNATURE_ANNOTATION) ?? '', keys),
    ),
    ...bundles.map(
      ({ bytes }) =>
        () =>
          readBundle(bytes, keys),
    ),
  ].flatMap((read) => {
    try {
      return read() ?? [];
    } catch (error) {
      // One that is no JSON does not stand in the way of another.
      if (isHostctlError(error, 'image-invalid', 'image-unsupported')) return [];
      throw error;
    }
  });
  return { statements, count: payloads.length + bundles.length };
}

/** The rules of containers-policy.json(5), "signedIdentity". A bundle has no name, and fits where none is asked for. */
function isNameFitting(identity: SignedIdentity, signed: string | undefined, reference: ImageReference): boolean {
  if (identity.type === 'hostctlDigestOnly') return true;
  if (signed === undefined) return false;
  switch (identity.type) {
    case 'exactReference':
      return signed === identity.name;
    case 'exactRepository':
      return repositoryOf(signed) === identity.name;
    case 'matchRepository':
      return reference.transport === 'docker' && repositoryOf(signed) === reference.name;
    case 'matchExact':
      return reference.transport === 'docker' && signed === nameWithTag(reference);
    case 'matchRepoDigestOrExact':
      if (reference.transport !== 'docker') return false;
      return reference.digest === undefined
        ? signed === nameWithTag(reference)
        : repositoryOf(signed) === reference.name;
    default:
      return assertNever(identity);
  }
}

function nameWithTag({ name, tag }: Extract<ImageReference, { transport: 'docker' }>): string {
  return `${name}:${tag ?? 'latest'}`;
}

/** Without tag and digest. */
function repositoryOf(reference: string): string {
  const [name = ''] = reference.split('@');
  const colon = name.lastIndexOf(':');
  return colon > name.lastIndexOf('/') ? name.slice(0, colon) : name;
}
