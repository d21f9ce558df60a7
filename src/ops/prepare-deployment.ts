/**
 * What a deployment is to be and everything about it, found out before anything of it can be seen: the image is built
 * and judged, its arguments, its `/etc` and its kernel are known, and what can be refused is refused.
 */

import { baseDeployment, readDeployments, type Deployment, type Deployments } from '../deploy/deployments.ts';
import type { EtcMergePolicy } from '../deploy/etc-merge.ts';
import { mergeKargs, NO_KARGS, type KargSources } from '../deploy/kargs.ts';
import { readFloor } from '../deploy/floor.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import { directoryIn } from '../deploy/state.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import { bootableTree, type BootableTree } from '../image/build.ts';
import type { ImageSource } from '../image/source.ts';
import type { ObjectStore } from '../store/objects.ts';
import { openOrCreateRepository, type Repository } from '../store/repository.ts';
import { exists } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, FileNode, VerityAlgorithm } from '../tree/node.ts';
import type { StoredImage } from './build.ts';
import { bootcKargs } from './bootc-kargs.ts';
import { checkBuilt, type DeploymentSeal } from './check-built.ts';
import { bootFacts, type BootFacts } from './boot-facts.ts';
import { boundReferences, storeBoundImages } from './bound-images.ts';
import { checkImageRoom } from './image-room.ts';
import { planCarryEtc, type CarryEtcPlan } from './carry-etc.ts';
import type { NewDeployment } from './publish.ts';
import { judgeImage, refuseRevoked, revokedLists, type JudgeOptions, type Judgement } from './judge-image.ts';
import { judgeStatedDigests, refuseForeignDigests, type JudgedDigest } from './stated-digests.ts';
import { readHostKargs } from './host-kargs.ts';
import { refuseUnbootable } from './lint-image.ts';
import {
  bootFilesForGrub,
  readUnifiedKernel,
  refuseOtherDigest,
  refuseUnified,
  type UnifiedCmdline,
} from './unified-kernel.ts';
import { storeBootableImage } from './store-bootable-image.ts';
import { judgeUnusedKargs } from './unused-kargs.ts';

/** How a deployment is to be made of an image. */
export interface WantedRequest extends JudgeOptions {
  /** Added to what the deployment that is replaced had. */
  readonly kargs: readonly string[];
  /** Further arguments that depend on the image, of which a unified kernel image takes none. */
  readonly kargsFor?: (tree: DirectoryNode) => readonly string[];
  /** Whether GRUB will start what is in the image, although it is not here yet. */
  readonly isForGrub?: (tree: DirectoryNode) => boolean;
  /** Takes an image whose verification is optional, or impossible here. */
  readonly allowMissingVerity: boolean;
  /** Hash of a new repository; an existing one must have the same. */
  readonly algorithm: VerityAlgorithm | undefined;
  /** Takes an image below the floor too. */
  readonly allowDowngrade?: boolean;
  /** Whose version counts where local changes in `/etc` and the new image exclude each other; nobody's by default. */
  readonly etcPolicy?: EtcMergePolicy;
}

/** What is to be made, out of which state of the host. */
export interface Wanted {
  readonly deployments: Deployments;
  readonly source: ImageSource;
  /** What the host's policy says to it. */
  readonly judgement: Judgement;
  readonly allowDowngrade: boolean;
  readonly request: WantedRequest;
  readonly repository: Repository;
  /** Whose `/etc` is carried over. */
  readonly base: Deployment | undefined;
  readonly etcPolicy: EtcMergePolicy;
  /** All arguments, given those of the image; and those that depend on what is in it. */
  readonly kargsWith: (image: KargSources['image'], bootable?: BootableTree) => KargSources;
  /** Those if the image has the same as the one before. */
  readonly sameImageKargs: KargSources;
}

/** Reads the host as it is now; the caller holds the sysroot lock. Throws where the policy does not let the image in. */
export async function wantedDeployment(
  host: Host,
  sysroot: Sysroot,
  source: ImageSource,
  request: WantedRequest,
): Promise<Wanted> {
  const deployments = readDeployments(host, sysroot);
  const base = baseDeployment(deployments);
  // What was changed last counts, whether it runs already or not.
  const previous = deployments.staged ?? deployments.next ?? base;
  const judgement = await judgeImage(host, sysroot, { deployments, base }, source, request);
  const repository = openOrCreateRepository(host, sysroot.repo, { algorithm: request.algorithm });
  const previousKargs =
    previous === undefined ? NO_KARGS : (previous.origin?.kargs ?? bootcKargs(host, repository, previous));
  const hostKargs = readHostKargs(host, sysroot, base);
  const kargsWith = (image: KargSources['image'], bootable?: BootableTree): KargSources => {
    const more = bootable === undefined ? [] : (request.kargsFor?.(bootable.tree) ?? []);
    return mergeKargs(previousKargs, { image, host: hostKargs, added: [...more, ...request.kargs] });
  };
  return {
    deployments,
    source,
    judgement,
    allowDowngrade: request.allowDowngrade === true,
    request,
    repository,
    base,
    etcPolicy: request.etcPolicy ?? {},
    kargsWith,
    sameImageKargs: kargsWith(previousKargs.image),
  };
}

/** Everything about a deployment that is known before anything of it can be seen. */
export interface Prepared {
  readonly image: StoredImage & { readonly tree: DirectoryNode };
  readonly facts: BootFacts;
  readonly contentOf: NewDeployment['contentOf'];
  readonly kargs: KargSources;
  readonly carried: CarryEtcPlan;
  readonly origin: NewDeployment['origin'];
  readonly stated: readonly JudgedDigest[];
  readonly seal: DeploymentSeal;
}

/** Puts the image into the repository and finds out what it means here; `/etc` conflicts are in the result. */
export async function prepareDeployment(
  host: Host,
  sysroot: Sysroot,
  wanted: Wanted,
  store: ObjectStore,
): Promise<Prepared> {
  const { source, judgement, repository, base, etcPolicy, kargsWith } = wanted;
  refuseBelowFloor(host, sysroot, wanted);
  const contentOf = repositoryContent(repository);
  await checkImageRoom(host, repository, { source, objects: store }, (flattened) => {
    const { tree } = bootableTree(flattened);
    return {
      tree,
      copied: [directoryIn(tree, 'etc'), exists(sysroot.sharedVar) ? undefined : directoryIn(tree, 'var')],
    };
  });
  let stated: readonly JudgedDigest[] = [];
  const { algorithm } = repository;
  let unified: UnifiedCmdline | undefined;
  const image = await storeBootableImage(host, repository, source, store, async (tree, found) => {
    const read = (file: FileNode) => Promise.resolve(contentOf(file));
    const judged = await judgeStatedDigests(host, source, { tree, algorithm, contentOf: read });
    refuseForeignDigests(host, judged);
    stated = judged.stated;
    const { kargs, allowMissingVerity, isForGrub } = wanted.request;
    const isGrub = sysroot.boot.isGrub || isForGrub?.(tree) === true;
    const bootFiles = isGrub ? bootFilesForGrub(tree, found) : found;
    if (bootFiles.kind === 'split') return { bootFiles, formatVersion: undefined };
    unified = readUnifiedKernel(bootFiles, contentOf);
    refuseUnified(unified, { repository, kargs, allowMissingVerity, machine: host.machine });
    return { bootFiles, formatVersion: unified.pinned.parameters.formatVersion };
  });
  if (unified !== undefined) refuseOtherDigest(unified, image);
  refuseRevoked(revokedLists(sysroot, judgement.trust), image.digest, formatImageReference(source.reference));
  const seal = await checkBuilt(host, judgement, source, { image, contentOf, repository });
  const facts = bootFacts(image, contentOf, host.architecture);
  await refuseUnbootable(host, image, source.config.labels, contentOf);
  const bound = await storeBoundImages(host, repository, boundReferences(image.tree, contentOf), store);
  const kargs = kargsWith(facts.kargs, image);
  if (unified !== undefined) await judgeUnusedKargs(host, sysroot, unified, kargs);
  const next = directoryIn(image.tree, 'etc');
  return {
    image,
    facts,
    contentOf,
    kargs,
    stated,
    carried: planCarryEtc(host, { sysroot, repository, base, next, policy: etcPolicy }),
    origin: {
      digest: image.digest,
      parameters: image.parameters,
      verityRequired: unified?.pinned.verityRequired ?? repository.hasVerity,
      reference: formatImageReference(source.reference),
      manifestDigest: source.manifestDigest,
      title: facts.title,
      version: source.config.labels.get('org.opencontainers.image.version') ?? facts.version,
      created: source.config.created,
      kargs,
      bound,
      securityVersion: seal.securityVersion,
      seal: seal.origin,
      signedBy: judgement.signedBy,
    },
    seal,
  };
}

/** Before a layer is read. Where several seals are accepted, the lowest of them is what a host would fall back to. */
function refuseBelowFloor(host: Host, sysroot: Sysroot, { judgement, deployments, allowDowngrade }: Wanted): void {
  const sealed = judgement.accepted.map(({ seal }) => seal.securityVersion);
  const version = sealed.length > 0 ? Math.min(...sealed) : judgement.labelled;
  const floor = readFloor(sysroot, deployments);
  if (version >= floor) return;
  const what = `The image has the security version ${version}, and ${floor} was good here already`;
  if (!allowDowngrade) {
    throw new HostctlError('downgrade-refused', what, { hint: 'Pass --allow-downgrade to deploy it nevertheless' });
  }
  host.log.warn(`${what}: deployed nevertheless`);
}
