/**
 * `image verify`: whether an image is what a trusted key sealed. One that is published is computed again from its
 * layers; of one in the repository every byte is read. Nothing is written.
 */

import { HostctlError } from '../errors.ts';
import { baseDeployment, readDeployments } from '../deploy/deployments.ts';
import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { parsePublicKey, type PublicKey } from '../format/seal/key.ts';
import { formatSealedDigest, parseSeal, type Seal } from '../format/seal/seal.ts';
import { parseSignatures, signersOf } from '../format/seal/signatures.ts';
import { checkImage } from '../store/check.ts';
import { requireRepository } from '../store/repository.ts';
import { readSigned } from '../store/seals.ts';
import { readSmallText } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { repositoryPath, requireImage, type ImageToolOptions } from './find-image.ts';
import { hostTrust } from './judge-image.ts';
import { checkSealOfImage } from './seal-image.ts';
import { checkSeal, readSeals } from './seals.ts';
import { withImage } from './with-image.ts';

export interface VerifyImageOptions extends ImageToolOptions {
  /** Files of public keys; none stands for those of the host. */
  readonly keys: readonly string[];
}

export interface VerifiedImage {
  /** Ids of the trusted keys that signed the seal. */
  readonly keys: readonly string[];
  readonly manifestDigest: string;
  readonly digests: readonly string[];
  readonly name: string | null;
  readonly securityVersion: number;
  readonly expires: string | null;
}

/** Throws 'image-unsigned', 'signature-invalid', 'digest-mismatch' or 'corrupt'. */
export async function verifyImage(host: Host, options: VerifyImageOptions): Promise<VerifiedImage> {
  const keys = options.keys.length > 0 ? options.keys.map(readKey) : hostKeys(host, options);
  if (keys.length === 0) {
    throw new HostctlError('usage', 'There is no key to verify with', {
      hint: 'Name one with --key FILE, or put it into /etc/hostctl/keys.d',
    });
  }
  return /^[0-9a-f]+$/.test(options.image) ? verifyStored(host, options, keys) : verifyPublished(host, options, keys);
}

function verifyPublished(
  host: Host,
  { image }: VerifyImageOptions,
  keys: readonly PublicKey[],
): Promise<VerifiedImage> {
  return withImage(host, image, undefined, async (source) => {
    const { published, broken } = await readSeals(source);
    const results = published.map((each) =>
      checkSeal(each, { keys, identity: { type: 'matchRepository' }, source, now: host.now().getTime() }),
    );
    const good = results.find((result) => 'seal' in result);
    if (good === undefined) {
      const reasons = [...broken, ...results.flatMap((result) => ('reason' in result ? result.reason : []))];
      const what = formatImageReference(source.reference);
      if (reasons.length === 0) throw new HostctlError('image-unsigned', `The image "${what}" has no seal`);
      throw new HostctlError('signature-invalid', `No seal of "${what}" can be accepted: ${reasons.join('; ')}`);
    }
    await checkSealOfImage(host, source, good.seal);
    return resultOf(good.seal, good.keys);
  });
}

async function verifyStored(
  host: Host,
  options: VerifyImageOptions,
  keys: readonly PublicKey[],
): Promise<VerifiedImage> {
  const repository = requireRepository(host, repositoryPath(host, options));
  const digest = requireImage(host, repository, options);
  const files = readSigned(repository, digest);
  if (files === undefined) throw new HostctlError('image-unsigned', `There is no seal of image ${digest}`);
  const signers = signersOf(files.bytes, parseSignatures(files.signatures), keys);
  if (signers.length === 0) {
    throw new HostctlError('signature-invalid', `The seal of image ${digest} is not signed by a trusted key`);
  }
  const seal = parseSeal(files.bytes);
  if (!seal.digests.some((each) => each.digest === digest)) {
    throw new HostctlError('digest-mismatch', `The seal beside image ${digest} is that of another image`);
  }
  await checkImage(host, repository, digest);
  return resultOf(
    seal,
    signers.map(({ id }) => id),
  );
}

function resultOf(seal: Seal, keys: readonly string[]): VerifiedImage {
  const { manifest, digests, name, securityVersion, expires } = seal;
  return {
    keys,
    manifestDigest: manifest,
    digests: digests.map(formatSealedDigest),
    name: name ?? null,
    securityVersion,
    expires: expires ?? null,
  };
}

function readKey(path: string): PublicKey {
  const pem = readSmallText(path);
  if (pem === undefined) throw new HostctlError('usage', `The key "${path}" does not exist`);
  try {
    return parsePublicKey(pem);
  } catch (error) {
    throw new HostctlError('usage', `Cannot use the key "${path}": ${error instanceof Error ? error.message : ''}`, {
      cause: error,
    });
  }
}

function hostKeys(host: Host, options: SysrootOptions): readonly PublicKey[] {
  const sysroot = openSysroot(host, options);
  return hostTrust(sysroot, baseDeployment(readDeployments(host, sysroot))).keys;
}
