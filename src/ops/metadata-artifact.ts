/**
 * Digests of an image in the form of composefs-rs, signed with PKCS#7: made for a publisher whose images other tools
 * verify too, and verified on request. A host's decisions go by seals and never by these.
 */

import { HostctlError } from '../errors.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import type { NewArtifact } from '../format/oci/artifact.ts';
import {
  formatSignedThing,
  METADATA_TYPE,
  parseSignedThing,
  PKCS7_TYPE,
  signedThings,
  type SignedThing,
} from '../format/oci/composefs-metadata.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { bootTransform } from '../image/build.ts';
import { measuringSink } from '../image/ingest.ts';
import type { Referrer } from '../image/referrers.ts';
import type { ImageSource } from '../image/source.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import { flattenImage } from './build.ts';
import { isDigestSigned, readCertificate, signDigest, type Pkcs7Signer } from './pkcs7.ts';
import { withImage } from './with-image.ts';

/** The artifact about an image, signed for each hash. */
export async function makeMetadataArtifact(
  host: Host,
  source: ImageSource,
  algorithms: readonly VerityAlgorithm[],
  signer: Pkcs7Signer,
): Promise<NewArtifact> {
  const parts: NewArtifact['parts'][number][] = [];
  for (const [name, digest] of await digestsOf(host, source, signedThings(algorithms))) {
    const bytes = await signDigest(host, digest, signer);
    if (!(await isDigestSigned(host, digest, bytes, signer.certificate))) {
      throw new HostctlError('internal', 'A signature does not hold that was just made');
    }
    parts.push({ mediaType: PKCS7_TYPE, bytes, annotations: { [name]: digest } });
  }
  return {
    artifactType: METADATA_TYPE,
    subject: { mediaType: source.manifestType, digest: source.manifestDigest, size: source.manifestBytes.length },
    parts,
  };
}

export interface VerifiedMetadata {
  readonly manifestDigest: string;
  /** What the certificate's key signed, and is so: `NAME DIGEST`. */
  readonly signed: readonly { readonly name: string; readonly digest: string }[];
}

/**
 * Finds an artifact all of whose signatures are by the key of this certificate, and whose digests are those of the image
 * by its documents and layers. Throws 'image-unsigned', 'signature-invalid' or 'digest-mismatch'.
 */
export async function verifyMetadata(
  host: Host,
  { image, certificate }: { readonly image: string; readonly certificate: string },
): Promise<VerifiedMetadata> {
  readCertificate(certificate);
  return withImage(host, image, undefined, async (source) => {
    const what = formatImageReference(source.reference);
    const found = (await source.referrers.ofType(METADATA_TYPE))
      .map(claimsIn)
      .filter(({ claims }) => claims.length > 0);
    if (found.length === 0) throw new HostctlError('image-unsigned', `Nothing of "${what}" is signed with PKCS#7`);
    const reasons: string[] = [];
    for (const { artifact, claims } of found) {
      const wrong = await firstUnsigned(host, claims, certificate);
      if (wrong === undefined) {
        await compareClaims(host, source, claims);
        return {
          manifestDigest: source.manifestDigest,
          signed: claims.map(({ name, digest }) => ({ name, digest })),
        };
      }
      reasons.push(`"${wrong.name}" in ${artifact} is not signed by the key of "${certificate}"`);
    }
    throw new HostctlError('signature-invalid', `No signatures of "${what}" can be accepted: ${reasons.join('; ')}`);
  });
}

interface Claim {
  readonly name: string;
  readonly thing: SignedThing;
  readonly digest: VerityDigest;
  readonly signature: Uint8Array;
}

/** What is of a kind that is not known here claims nothing. */
function claimsIn({ digest: artifact, parts }: Referrer): {
  readonly artifact: string;
  readonly claims: readonly Claim[];
} {
  const claims = parts.flatMap(({ mediaType, annotations, bytes }) =>
    [...annotations].flatMap(([name, digest]): readonly Claim[] => {
      const thing = mediaType === PKCS7_TYPE ? parseSignedThing(name) : undefined;
      const isDigest = thing !== undefined && DIGEST[thing.algorithm].test(digest);
      return isDigest ? [{ name, thing, digest: digest as VerityDigest, signature: bytes }] : [];
    }),
  );
  return { artifact, claims };
}

const DIGEST: Readonly<Record<VerityAlgorithm, RegExp>> = { sha256: /^[0-9a-f]{64}$/, sha512: /^[0-9a-f]{128}$/ };

async function firstUnsigned(host: Host, claims: readonly Claim[], certificate: string): Promise<Claim | undefined> {
  for (const claim of claims) {
    if (!(await isDigestSigned(host, claim.digest, claim.signature, certificate))) return claim;
  }
  return undefined;
}

async function compareClaims(host: Host, source: ImageSource, claims: readonly Claim[]): Promise<void> {
  const digests = await digestsOf(
    host,
    source,
    claims.map(({ thing }) => thing),
  );
  for (const { name, digest } of claims) {
    const made = digests.get(name);
    if (made === digest) continue;
    throw new HostctlError(
      'digest-mismatch',
      `A signature of "${formatImageReference(source.reference)}" states ${name} ${digest}, but the image has ${made}`,
    );
  }
}

/** By their names, in their order. The layers are read once for each hash. */
async function digestsOf(
  host: Host,
  source: ImageSource,
  things: readonly SignedThing[],
): Promise<ReadonlyMap<string, VerityDigest>> {
  const trees = new Map<VerityAlgorithm, DirectoryNode>();
  const digests = new Map<string, VerityDigest>();
  for (const thing of things) {
    const { role, algorithm } = thing;
    let bytes: Uint8Array;
    if ('formatVersion' in thing) {
      const flat = trees.get(algorithm) ?? (await flattenImage(host, source, measuringSink(algorithm)));
      trees.set(algorithm, flat);
      const tree = role === 'merged' ? flat : bootTransform(flat);
      const { formatVersion: version } = thing;
      bytes = writeComposefsImage(tree, { algorithm, minVersion: version, maxVersion: version }).bytes;
    } else {
      bytes = role === 'manifest' ? source.manifestBytes : source.configBytes;
    }
    digests.set(formatSignedThing(thing), fsverityDigest(algorithm, bytes));
  }
  return digests;
}
