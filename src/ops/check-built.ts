/**
 * The image that was built, against everything that says what it should be: the seal, claims in the manifest, the keys
 * in the image's own `/etc`, which its initramfs will hold it to. All that exist must agree.
 */

import * as fs from 'node:fs';
import type { OriginSeal } from '../deploy/origin.ts';
import { KEYS_DIRECTORY } from '../deploy/trust.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { formatImageParameters } from '../format/cmdline.ts';
import { parsePublicKey, type PublicKey } from '../format/seal/key.ts';
import { formatSealedDigest } from '../format/seal/seal.ts';
import type { ImageSource } from '../image/source.ts';
import { objectFile, type Repository } from '../store/repository.ts';
import type { SealFiles } from '../store/seals.ts';
import type { Host } from '../sys/host.ts';
import { lookup } from '../tree/lookup.ts';
import { inodeOf, type DirectoryNode } from '../tree/node.ts';
import { smallText, type ContentOf } from './boot-facts.ts';
import { XATTR_MODE, type StoredImage } from './build.ts';
import type { Judgement } from './judge-image.ts';
import { checkSeal, type AcceptedSeal } from './seals.ts';

/** What goes along with a deployment. */
export interface DeploymentSeal {
  readonly origin: OriginSeal | undefined;
  /** For `seals/` in the repository. */
  readonly files: SealFiles | undefined;
  readonly securityVersion: number;
}

export interface Built {
  readonly image: StoredImage & { readonly tree: DirectoryNode };
  readonly contentOf: ContentOf;
  readonly repository: Repository;
}

/** Throws 'digest-mismatch', 'verity-mismatch', 'verity-unsupported', 'image-unsigned' or 'signature-invalid'. */
export async function checkBuilt(
  host: Host,
  judgement: Judgement,
  source: ImageSource,
  built: Built,
): Promise<DeploymentSeal> {
  const { image, repository } = built;
  checkMeasured(host, repository, image);
  checkClaims(source, image);
  const imageKeys = keysOfImage(built);
  const own = imageKeys === undefined ? undefined : await sealForBoot(judgement, source, built, imageKeys);
  const chosen = own ?? judgement.accepted.find(({ seal }) => holds(seal, image));
  const [first] = judgement.accepted;
  if (chosen === undefined && first !== undefined) throw mismatch(first, image);
  return {
    origin: chosen === undefined ? undefined : { keys: chosen.keys, isForBoot: own !== undefined },
    files: chosen?.files,
    securityVersion: chosen?.seal.securityVersion ?? judgement.labelled,
  };
}

function holds({ digests, xattrs }: AcceptedSeal['seal'], image: StoredImage): boolean {
  const wanted = formatSealedDigest(image);
  return xattrs === XATTR_MODE && digests.some((each) => formatSealedDigest(each) === wanted);
}

function mismatch({ seal }: AcceptedSeal, image: StoredImage): HostctlError {
  const sealed = seal.digests.map(formatSealedDigest).join(', ');
  const parameters = formatImageParameters(image.parameters);
  const isMade = seal.digests.some((each) => formatImageParameters(each.parameters) === parameters);
  const hint =
    isMade && seal.xattrs === XATTR_MODE
      ? 'Either the seal was made by another program, or the image is not what was sealed: do not deploy it'
      : `The seal has no digest for ${parameters} with "xattrs ${XATTR_MODE}": the publisher must add one`;
  return new HostctlError(
    'digest-mismatch',
    `The image has the digest ${formatSealedDigest(image)} here, but is sealed with ${sealed} (xattrs ${seal.xattrs})`,
    { hint },
  );
}

/** What the kernel will compare at boot is asked of the kernel. */
function checkMeasured(host: Host, repository: Repository, { digest }: StoredImage): void {
  if (!repository.hasVerity) return;
  const fd = fs.openSync(objectFile(repository, digest), fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
  try {
    const measured = host.syscalls.measureVerity(fd);
    if (measured.kind === 'enabled' && measured.digestHex === digest) return;
    const found = measured.kind === 'enabled' ? `measures ${measured.digestHex}` : 'has no fs-verity';
    throw new HostctlError('verity-mismatch', `The image ${digest} ${found} in the kernel`);
  } finally {
    fs.closeSync(fd);
  }
}

/** Digests that the manifest states in the way of composefs-rs: no proof of anything, but they must not be wrong. */
function checkClaims({ manifest }: ImageSource, { digest, parameters }: StoredImage): void {
  const { formatVersion, algorithm, logBlockSize } = parameters;
  const key = `composefs.merged.bootable.erofs.v${formatVersion}.fsverity-${algorithm}-${logBlockSize}`;
  const claimed = manifest.annotations.get(key);
  if (claimed === undefined || claimed === digest) return;
  throw new HostctlError(
    'digest-mismatch',
    `The manifest states the digest ${claimed} (${key}), but the image has ${digest}`,
  );
}

/** Undefined for an image without keys. One that cannot be read is left out: it could verify nothing at boot either. */
function keysOfImage({ image: { tree }, contentOf }: Built): readonly PublicKey[] | undefined {
  const directory = lookup(tree, `/etc/${KEYS_DIRECTORY}`);
  if (directory?.kind !== 'directory') return undefined;
  const files = [...directory.entries].filter(([name]) => name.endsWith('.pub'));
  if (files.length === 0) return undefined;
  return files.flatMap(([, entry]) => {
    try {
      return parsePublicKey(smallText(inodeOf(entry), contentOf) ?? '');
    } catch (error) {
      if (isHostctlError(error)) return [];
      throw error;
    }
  });
}

/** The seal that satisfies the image's own initramfs, besides the policy. */
async function sealForBoot(
  judgement: Judgement,
  source: ImageSource,
  { image, repository }: Built,
  keys: readonly PublicKey[],
): Promise<AcceptedSeal> {
  if (!repository.hasVerity) {
    throw new HostctlError('verity-unsupported', 'The image has keys for seals, and boots only where it is verified', {
      hint: 'Use ext4 made with "-O verity" or btrfs',
    });
  }
  const { accepted, isSealRequired } = judgement;
  const published = await judgement.published();
  const allowed = isSealRequired ? accepted.map(({ files }) => files.bytes) : published.map(({ bytes }) => bytes);
  const results = published
    .filter(({ bytes }) => allowed.includes(bytes))
    // The initramfs knows neither the name nor the time.
    .map((each) => checkSeal(each, { keys, identity: undefined, source, now: undefined }));
  const good = results.flatMap((result) => ('reason' in result ? [] : result));
  const found = good.find(({ seal }) => holds(seal, image));
  // Who signed it is told by the keys that this host trusts, where it has any.
  if (found !== undefined) return accepted.find(({ files }) => files.bytes === found.files.bytes) ?? found;
  const [other] = good;
  if (other !== undefined) throw mismatch(other, image);
  const reasons = results.flatMap((result) => ('reason' in result ? result.reason : []));
  throw new HostctlError(
    published.length === 0 ? 'image-unsigned' : 'signature-invalid',
    `The image would refuse to boot: it has keys in /etc/${KEYS_DIRECTORY}, and ${reasons.join('; ') || 'no seal'}`,
    { hint: 'The publisher seals it with "hostctl image seal", by one of those keys' },
  );
}
