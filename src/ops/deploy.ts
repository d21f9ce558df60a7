/**
 * `deploy`: an image reference becomes the deployment that boots next. Everything that can be refused is refused
 * before the first write that anyone could see.
 */

import { readDeployments, type Deployments } from '../deploy/deployments.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { checkKarg, formatImageParameters } from '../format/cmdline.ts';
import { formatImageReference } from '../format/oci/reference.ts';
import type { ImageSource } from '../image/source.ts';
import type { ObjectCounts } from '../store/objects.ts';
import { openOrCreateRepository, type Repository } from '../store/repository.ts';
import { withObjectStore } from '../store/sweep.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { probeVerity } from '../sys/syscalls.ts';
import type { DirectoryNode, VerityAlgorithm, VerityDigest } from '../tree/node.ts';
import { openImage, storeBootableImage } from './build.ts';
import { bootFacts } from './boot-facts.ts';
import { carryEtc } from './carry-etc.ts';
import { publishDeployment, requireRoot } from './publish.ts';

export interface DeployOptions extends SysrootOptions {
  readonly image: string;
  /** Added to what the deployment that is replaced had. */
  readonly kargs: readonly string[];
  /** Hash of a new repository; an existing one must have the same. */
  readonly algorithm: VerityAlgorithm | undefined;
  readonly tries: number;
  readonly allowMissingVerity: boolean;
}

export interface DeployResult {
  /** False when the image boots next already: then nothing was written. */
  readonly changed: boolean;
  readonly id: number;
  readonly digest: VerityDigest;
  /** `v1-sha512-12` */
  readonly parameters: string;
  readonly manifestDigest: string;
  readonly entryFile: string;
  readonly objects: ObjectCounts;
}

const NO_OBJECTS: ObjectCounts = { writtenObjects: 0, writtenBytes: 0, reusedObjects: 0 };

export async function deploy(host: Host, options: DeployOptions): Promise<DeployResult> {
  requireRoot(host, 'deploy');
  checkUserKargs(options.kargs);
  const source = openImage(host, options.image);
  const sysroot = openSysroot(host, options);
  checkBoot(sysroot);
  checkVerity(host, sysroot, options.allowMissingVerity);
  return withSysrootLock(host, sysroot, () => deployLocked(host, sysroot, source, options));
}

/** Everything after the lock. `adjustTree` lets an installer look at what it deploys. */
export async function deployLocked(
  host: Host,
  sysroot: Sysroot,
  source: ImageSource,
  options: Omit<DeployOptions, 'image'>,
  inspect: (tree: DirectoryNode, repository: Repository, etc: string) => void = () => undefined,
): Promise<DeployResult> {
  const deployments = readDeployments(host, sysroot);
  const base = deployments.booted ?? deployments.next;
  const userKargs = mergeKargs(base?.origin?.userKargs ?? [], options.kargs);
  const repository = openOrCreateRepository(host, sysroot.repo, { algorithm: options.algorithm });
  const unchanged = findUnchanged(deployments, source, userKargs, repository);
  if (unchanged !== undefined) return unchanged;
  return withObjectStore(host, repository, async (store) => {
    const contentOf = repositoryContent(repository);
    const image = await storeBootableImage(host, repository, source, store);
    const facts = bootFacts(image, contentOf, host.architecture);
    const published = await publishDeployment(host, sysroot, repository, {
      origin: {
        digest: image.digest,
        parameters: image.parameters,
        verityRequired: repository.hasVerity,
        reference: formatImageReference(source.reference),
        manifestDigest: source.manifestDigest,
        title: facts.title,
        version: source.config.labels.get('org.opencontainers.image.version') ?? facts.version,
        created: source.config.created,
        imageKargs: facts.kargs,
        userKargs,
      },
      tree: image.tree,
      contentOf,
      kernel: facts.kernel,
      adjustEtc: (etc) => {
        carryEtc(host, { sysroot, repository, base, next: image.tree, etc });
        inspect(image.tree, repository, etc);
      },
      tries: options.tries,
    });
    if (!published.settled) {
      host.log.warn('The boot partition cannot be flushed for the boot loader; older kernels stay until the next boot');
    }
    return {
      changed: true,
      id: published.id,
      digest: image.digest,
      parameters: formatImageParameters(image.parameters),
      manifestDigest: source.manifestDigest,
      entryFile: published.entryFile,
      objects: image.objects,
    };
  });
}

/** The image that boots next is this very one, made the same way, with nothing wrong about it. */
function findUnchanged(
  { next }: Deployments,
  source: ImageSource,
  userKargs: readonly string[],
  repository: Repository,
): DeployResult | undefined {
  const entry = next?.entries[0];
  if (next?.origin === undefined || next.id === undefined || entry === undefined) return undefined;
  const { origin } = next;
  const same =
    origin.manifestDigest === source.manifestDigest &&
    origin.parameters.algorithm === repository.algorithm &&
    origin.verityRequired === repository.hasVerity &&
    origin.userKargs.join(' ') === userKargs.join(' ') &&
    next.problems.length === 0 &&
    next.state !== 'failed';
  if (!same) return undefined;
  return {
    changed: false,
    id: next.id,
    digest: origin.digest,
    parameters: formatImageParameters(origin.parameters),
    manifestDigest: origin.manifestDigest,
    entryFile: entry.file,
    objects: NO_OBJECTS,
  };
}

function checkUserKargs(kargs: readonly string[]): void {
  try {
    kargs.forEach(checkKarg);
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    throw new HostctlError('usage', error.message, { ...(error.hint === undefined ? {} : { hint: error.hint }) });
  }
}

/** What the replaced deployment had, then what is new; the very same argument is not repeated. */
function mergeKargs(inherited: readonly string[], added: readonly string[]): string[] {
  return [...inherited, ...added.filter((arg) => !inherited.includes(arg))];
}

function checkBoot({ boot }: Sysroot): void {
  if (!boot.isReadOnly) return;
  throw new HostctlError('read-only', `The boot partition at "${boot.path}" is read-only`, {
    hint: 'Remount it writable, or name another place with --boot DIR',
  });
}

/** Before anything is written: a host that cannot verify is refused unless the user accepts it. */
function checkVerity(host: Host, { path, repo }: Sysroot, allowMissing: boolean): void {
  if (probeVerity(host.syscalls, isDirectory(repo) ? repo : path)) return;
  if (!allowMissing) {
    throw new HostctlError('verity-unsupported', `The file system of "${repo}" has no fs-verity`, {
      hint: 'Use ext4 made with "-O verity" or btrfs; --allow-missing-verity deploys without any verification',
    });
  }
  host.log.warn(`The file system of "${repo}" has no fs-verity: nothing will be verified at boot`);
}
