/**
 * `image seal` and `image sign`: the digest that an image's root will have on a host is computed from its layers, put
 * into a seal together with the manifest, and signed. The seal lies beside the image in its layout or its registry; the
 * image itself is not touched, and signing it once more changes nothing but the seal.
 */

import { HostctlError } from '../errors.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import type { NewArtifact } from '../format/oci/artifact.ts';
import type { OciDigest } from '../format/oci/digest.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { parsePrivateKey, signBytes, type PublicKey } from '../format/seal/key.ts';
import {
  formatSeal,
  formatSealedDigest,
  isSealTime,
  parseSeal,
  type Seal,
  type SealedDigest,
} from '../format/seal/seal.ts';
import { formatSignatures, signersOf, type Signature } from '../format/seal/signatures.ts';
import { bootableTree } from '../image/build.ts';
import { measuringSink } from '../image/ingest.ts';
import { writeLayoutArtifact } from '../image/layout-artifact.ts';
import { pushArtifact } from '../image/registry/push-artifact.ts';
import { openClient } from '../image/registry/reader.ts';
import type { ImageSource } from '../image/source.ts';
import { mergeSignatures } from '../store/seals.ts';
import { explainSystemError, readSmallText } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityAlgorithm } from '../tree/node.ts';
import { flattenImage, XATTR_MODE } from './build.ts';
import { makeUki, type UkiOptions, type UkiResult } from './make-uki.ts';
import { makeMetadataArtifact } from './metadata-artifact.ts';
import { checkSigner, type Pkcs7Signer } from './pkcs7.ts';
import { withImage } from './with-image.ts';
import { readSeals, SEAL_SIGNATURES_TYPE, SEAL_TEXT_TYPE, SEAL_TYPE, sealTag } from './seals.ts';

export interface SealImageOptions extends SignImageOptions {
  /** Repository that the seal claims, `HOST/NAME`; that of the image without, if it has one. */
  readonly name: string | undefined;
  readonly securityVersion: number;
  /** `2027-03-01T00:00:00Z` */
  readonly expires: string | undefined;
  /** Hashes to seal for; a host takes the one of its repository. */
  readonly algorithms: readonly VerityAlgorithm[];
  /** Puts a unified kernel image, for the first of them, into the image before; then no seal need follow. */
  readonly uki?: UkiOptions | undefined;
  /** Signs the same for tools that know no seals; then no seal need follow either. */
  readonly pkcs7?: Pkcs7Signer | undefined;
}

export interface SignImageOptions {
  readonly image: string;
  /** Files of private keys. */
  readonly keys: readonly string[];
}

export interface SealResult {
  readonly manifestDigest: string;
  /** As they stand in the seal, `v1-sha512-12:HEX`. */
  readonly digests: readonly string[];
  /** Ids of all keys whose signatures stand beside it. */
  readonly keys: readonly string[];
  /** Digest of the artifact's manifest; null where there is no seal. */
  readonly artifact: string | null;
}

export interface MadeSeal extends SealResult {
  readonly uki: UkiResult | null;
  /** Digest of the manifest of the artifact with PKCS#7 signatures. */
  readonly pkcs7: string | null;
}

export async function sealImage(host: Host, options: SealImageOptions): Promise<MadeSeal> {
  const { expires, name, algorithms, pkcs7: pkcs7Signer } = options;
  if (expires !== undefined && !isSealTime(expires)) {
    throw new HostctlError('usage', `--expires takes a time such as 2027-03-01T00:00:00Z, not "${expires}"`);
  }
  if (name !== undefined && !/^[\x21-\x7e]+$/.test(name)) throw new HostctlError('usage', `"${name}" is no name`);
  const signers = options.keys.map(readSigner);
  if (pkcs7Signer !== undefined) checkSigner(pkcs7Signer);
  else if (options.uki === undefined) requireSigner(signers);
  const [algorithm = 'sha512'] = algorithms;
  const uki =
    options.uki === undefined ? null : await makeUki(host, { ...options.uki, image: options.image, algorithm });
  return withImage(host, options.image, undefined, async (source) => {
    const isSealed = signers.length > 0 || pkcs7Signer !== undefined;
    const digests = await bootableDigests(host, source, isSealed ? algorithms : [algorithm]);
    const pkcs7 =
      pkcs7Signer === undefined
        ? null
        : await publishArtifact(host, source, await makeMetadataArtifact(host, source, algorithms, pkcs7Signer));
    const { manifestDigest: manifest, reference } = source;
    if (signers.length === 0) {
      const stated = digests.map(formatSealedDigest);
      return { ...{ manifestDigest: manifest, digests: stated, keys: [], artifact: null }, uki, pkcs7 };
    }
    const seal: Seal = {
      ...{ digests, manifest, expires, xattrs: XATTR_MODE, securityVersion: options.securityVersion },
      name: name ?? (reference.transport === 'docker' ? reference.name : undefined),
    };
    const bytes = formatSeal(seal);
    return { ...(await publishSeal(host, source, seal, bytes, signWith(bytes, signers))), uki, pkcs7 };
  });
}

/** Adds signatures to the seal that is there, once its digests were found to be those of the image. */
export async function signImage(host: Host, options: SignImageOptions): Promise<SealResult> {
  const signers = options.keys.map(readSigner);
  return withImage(host, options.image, undefined, async (source) => {
    const what = formatImageReference(source.reference);
    const { published } = await readSeals(source);
    // A registry may keep what came before each new signature.
    const texts = new Set(published.map(({ bytes }) => Buffer.from(bytes).toString('latin1')));
    const [there] = published;
    if (there === undefined || texts.size > 1) {
      throw new HostctlError('image-unsigned', `"${what}" has ${texts.size} seals instead of one to sign`, {
        hint: 'Make it with "hostctl image seal"',
      });
    }
    const lines = published.flatMap((each) => each.lines);
    const seal = parseSeal(there.bytes);
    await checkSealOfImage(host, source, seal);
    return publishSeal(host, source, seal, there.bytes, mergeSignatures(signWith(there.bytes, signers), lines));
  });
}

/** Computes the image again for each digest that the seal states. Throws 'digest-mismatch'. */
export async function checkSealOfImage(host: Host, source: ImageSource, seal: Seal): Promise<void> {
  const fail = (problem: string): HostctlError =>
    new HostctlError('digest-mismatch', `The seal of "${formatImageReference(source.reference)}" ${problem}`);
  if (seal.manifest !== source.manifestDigest) {
    throw fail(`is for the manifest ${seal.manifest}, not for ${source.manifestDigest}`);
  }
  if (seal.xattrs !== XATTR_MODE) throw fail(`is made with "xattrs ${seal.xattrs}", which hostctl cannot make`);
  for (const stated of seal.digests) {
    const [made] = await bootableDigests(host, source, [stated.parameters.algorithm], stated.parameters.formatVersion);
    if (made?.digest !== stated.digest) {
      const found = made === undefined ? 'nothing' : formatSealedDigest(made);
      throw fail(`states ${formatSealedDigest(stated)}, but the image has ${found}`);
    }
  }
}

/** The digests of the tree that is booted, one for each hash; the layers are read once for each. */
async function bootableDigests(
  host: Host,
  source: ImageSource,
  algorithms: readonly VerityAlgorithm[],
  formatVersion: 0 | 1 | 2 = 1,
): Promise<SealedDigest[]> {
  const digests: SealedDigest[] = [];
  for (const algorithm of algorithms) {
    const { tree } = bootableTree(await flattenImage(host, source, measuringSink(algorithm)));
    const options = { algorithm, minVersion: formatVersion, maxVersion: formatVersion };
    const { bytes, version } = writeComposefsImage(tree, options);
    digests.push({
      parameters: { formatVersion: version, algorithm, logBlockSize: 12 },
      digest: fsverityDigest(algorithm, bytes),
    });
  }
  return digests;
}

interface Signer {
  readonly key: Parameters<typeof signBytes>[1];
  readonly publicKey: PublicKey;
}

function readSigner(path: string): Signer {
  let pem: string | undefined;
  try {
    pem = readSmallText(path);
    if (pem !== undefined) return parsePrivateKey(pem);
  } catch (error) {
    const { message } = explainSystemError(error, 'Cannot read it');
    throw new HostctlError('usage', `Cannot use the key "${path}": ${message}`, {
      hint: 'Make one with "openssl genpkey -algorithm ed25519 -out FILE"',
      cause: error,
    });
  }
  throw new HostctlError('usage', `The key "${path}" does not exist`);
}

/** Signs with each, and checks what came of it: a signature that does not hold is found by the publisher. */
export function signWith(bytes: Uint8Array, signers: readonly Signer[]): Signature[] {
  requireSigner(signers);
  const signatures = signers.map(({ key, publicKey }) => ({ keyId: publicKey.id, bytes: signBytes(bytes, key) }));
  const good = signersOf(
    bytes,
    signatures,
    signers.map(({ publicKey }) => publicKey),
  );
  if (good.length === signers.length) return signatures;
  throw new HostctlError('internal', 'A signature does not hold that was just made');
}

function requireSigner(signers: readonly Signer[]): void {
  if (signers.length === 0) throw new HostctlError('usage', 'Name a key to sign with: --key FILE');
}

export function readSigners(paths: readonly string[]): Signer[] {
  return paths.map(readSigner);
}

async function publishSeal(
  host: Host,
  source: ImageSource,
  seal: Seal,
  bytes: Uint8Array,
  signatures: readonly Signature[],
): Promise<SealResult> {
  const { manifestDigest } = source;
  const made: NewArtifact = {
    artifactType: SEAL_TYPE,
    subject: { mediaType: source.manifestType, digest: manifestDigest, size: source.manifestBytes.length },
    parts: [
      { mediaType: SEAL_TEXT_TYPE, bytes },
      { mediaType: SEAL_SIGNATURES_TYPE, bytes: formatSignatures(signatures) },
    ],
  };
  const artifact = await publishArtifact(host, source, made, sealTag(manifestDigest));
  return {
    manifestDigest,
    digests: seal.digests.map(formatSealedDigest),
    keys: [...new Set(signatures.map(({ keyId }) => keyId))],
    artifact,
  };
}

/**
 * Puts an artifact where the image is. Returns the digest of its manifest.
 * @param tag - of a seal, where the registry lists nothing
 */
async function publishArtifact(
  host: Host,
  { reference }: ImageSource,
  artifact: NewArtifact,
  tag?: string,
): Promise<OciDigest> {
  switch (reference.transport) {
    case 'oci':
      return writeLayoutArtifact(reference.path, artifact);
    case 'docker':
      return pushArtifact(openClient(host, reference.name), artifact, tag);
    default:
      throw new HostctlError('image-unsupported', `Cannot put a seal beside "${formatImageReference(reference)}"`, {
        hint: 'Seal the image in an OCI layout, oci:DIR[:TAG], or in a registry',
      });
  }
}
