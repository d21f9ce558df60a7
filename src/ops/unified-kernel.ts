/**
 * Deploying an image through the unified kernel image that it carries. Firmware verifies that file as a whole, so it is
 * used as it is: the image is built by the parameters that its command line states and must have that digest, nothing
 * is added to the arguments, and the state directory is the one that a command line without a name for it leads to.
 */

import { isUnified, UKI_OPTIONS, type FoundEntry } from '../deploy/boot-entries.ts';
import { entryOf, readDeployments, type Deployment } from '../deploy/deployments.ts';
import { planHostGarbage } from '../deploy/host-garbage.ts';
import { readHostSnapshot } from '../deploy/host-snapshot.ts';
import { kernelContent, type KernelFiles } from '../deploy/kernels.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { checkEntryValue } from '../format/bls/entry.ts';
import {
  checkCmdlineLength,
  findDigestArguments,
  findKargs,
  formatImageParameters,
  joinCmdline,
  splitCmdline,
  type DigestArgument,
} from '../format/cmdline.ts';
import { withContext } from '../format/error-context.ts';
import { readPeCmdlines } from '../format/pe.ts';
import { findSplitKernel, type BootFiles, type SplitKernel, type UnifiedKernel } from '../image/boot-files.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, FileNode, VerityDigest } from '../tree/node.ts';
import type { ContentOf } from './boot-facts.ts';
import type { StoredImage } from './build.ts';
import { kernelDirectoryOf } from './fsck-host.ts';

export interface UnifiedCmdline {
  /** In the image. */
  readonly path: string;
  /** All arguments, those of add-ons last. */
  readonly kargs: readonly string[];
  /** What is mounted as root. */
  readonly pinned: DigestArgument;
}

/**
 * By what a unified kernel image boots. Throws 'image-unsupported' for several profiles, 'image-invalid' for what is no
 * PE file, and as `checkUnifiedCmdline` does.
 */
export function readUnifiedKernel({ path, uki, addons }: UnifiedKernel, contentOf: ContentOf): UnifiedCmdline {
  const own = cmdlinesIn(path, uki, contentOf);
  if (own.length > 1) {
    throw new HostctlError('image-unsupported', `"${path}" has ${own.length} command lines: which one boots is open`, {
      hint: 'Make it without profiles',
    });
  }
  const added = addons.flatMap(({ name, file }) => {
    const addon = `${path}.extra.d/${name}`;
    const kargs = cmdlinesIn(addon, file, contentOf).flat();
    if (naming(addon, () => findDigestArguments(kargs)).length === 0) return kargs;
    throw new HostctlError('image-not-bootable', `The add-on "${addon}" names a composefs digest`, {
      hint: 'The root is for the unified kernel image alone to name',
    });
  });
  const kargs = [...own.flat(), ...added];
  return { path, kargs, pinned: checkUnifiedCmdline(path, kargs) };
}

/** What would be another deployment than the one that is made, or none, each with the reason. */
const NOT_IN_ONE: readonly (readonly [string, string])[] = [
  ['hostctl.state', 'a deployment by a unified kernel image has the state directory of its digest'],
  ['hostctl.once', 'it marks an entry that is for one boot'],
];

/**
 * The one image that a command line pins. Throws 'image-not-bootable' where that is none or the state directory would be
 * another one, 'image-unsupported' where it could be another image too, and 'format-invalid' for what no boot entry can
 * repeat.
 */
export function checkUnifiedCmdline(path: string, kargs: readonly string[]): DigestArgument {
  const [pinned, ...others] = naming(path, () => findDigestArguments(kargs));
  if (pinned === undefined) {
    throw new HostctlError('image-not-bootable', `The command line of "${path}" names no composefs digest`, {
      hint: 'Make it with "hostctl image seal --uki", or with "composefs.digest=" and what "image digest --bootable" prints',
    });
  }
  if (others.length > 0) {
    // At boot the first that is there is taken, which need not be the one that is judged here.
    throw new HostctlError(
      'image-unsupported',
      `The command line of "${path}" names ${others.length + 1} composefs digests: which one boots is open`,
      { hint: 'Make it with one, for the hash of the hosts that it is for' },
    );
  }
  for (const [key, why] of NOT_IN_ONE) {
    if (findKargs(kargs, key).length === 0) continue;
    throw new HostctlError('image-not-bootable', `The command line of "${path}" has "${key}="`, {
      hint: `Leave it out: ${why}`,
    });
  }
  naming(path, () => checkEntryValue(UKI_OPTIONS, joinCmdline(kargs)));
  return pinned;
}

function cmdlinesIn(path: string, file: FileNode, contentOf: ContentOf): string[][] {
  return naming(path, () => readPeCmdlines(contentOf(file)).map(splitCmdline));
}

/** What is wrong with a command line says in which file. */
function naming<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw withContext(`Cannot use "${path}"`, error);
  }
}

/** What a deployment by it is asked to be, and where. */
export interface UnifiedRequest {
  readonly repository: Repository;
  /** Named with the command. */
  readonly kargs: readonly string[];
  readonly allowMissingVerity: boolean;
  /** As `uname -m` says. */
  readonly machine: string;
}

/** Before the image is stored: what this host or this command cannot do with a unified kernel image. */
export function refuseUnified({ path, pinned, kargs: own }: UnifiedCmdline, request: UnifiedRequest): void {
  const { repository, kargs, allowMissingVerity, machine } = request;
  const refuse = (code: 'image-unsupported' | 'verity-unsupported', what: string, hint: string) =>
    new HostctlError(code, `Cannot boot by "${path}": ${what}`, { hint });
  if (kargs.length > 0) {
    throw refuse(
      'image-unsupported',
      `its command line is its own, and "${kargs.join(' ')}" cannot be added`,
      'The publisher adds arguments by a signed add-on, or with "hostctl image seal --uki --karg"',
    );
  }
  naming(path, () => checkCmdlineLength(joinCmdline(own), machine));
  const { algorithm } = pinned.parameters;
  if (algorithm !== repository.algorithm) {
    throw refuse(
      'image-unsupported',
      `it pins a ${algorithm} digest, and the repository "${repository.path}" is of ${repository.algorithm}`,
      `Have it made for ${repository.algorithm}; a host without deployments takes --hash ${algorithm}`,
    );
  }
  if (pinned.verityRequired && !repository.hasVerity) {
    throw refuse(
      'verity-unsupported',
      `it boots only what is verified, and "${repository.path}" has no fs-verity`,
      'Use ext4 made with "-O verity" or btrfs',
    );
  }
  if (!pinned.verityRequired && !allowMissingVerity) {
    throw refuse(
      'verity-unsupported',
      'its command line makes verification optional ("?")',
      'Have it made without "?"; --allow-missing-verity deploys it, and nothing is sure to be verified at boot',
    );
  }
}

/** Throws 'image-unsupported' where the arguments of what boots cannot be changed. */
export function refuseUnifiedKargs(entry: FoundEntry): void {
  if (!isUnified(entry)) return;
  throw new HostctlError(
    'image-unsupported',
    `"${entry.file}" boots by a unified kernel image, whose command line is its own and cannot be changed here`,
    { hint: 'The publisher adds arguments by a signed add-on, or with "hostctl image seal --uki --karg"' },
  );
}

/** GRUB's script starts kernels: there the kernel beside a unified one is what boots. Throws 'host-unsupported' without. */
export function bootFilesForGrub(tree: DirectoryNode, found: BootFiles): SplitKernel {
  if (found.kind === 'split') return found;
  try {
    return findSplitKernel(tree);
  } catch (error) {
    if (!isHostctlError(error, 'image-not-bootable')) throw error;
    throw new HostctlError('host-unsupported', `Cannot boot by "${found.path}": GRUB starts this host`, {
      hint: 'Use a host with systemd-boot, or an image that has its kernel and initramfs in /usr/lib/modules too',
      cause: error,
    });
  }
}

/** Throws 'digest-mismatch', with both, unless the image that was built is the one that is pinned. */
export function refuseOtherDigest({ path, pinned }: UnifiedCmdline, { digest, parameters }: StoredImage): void {
  if (pinned.digest === digest) return;
  throw new HostctlError(
    'digest-mismatch',
    `The command line of "${path}" pins ${formatImageParameters(pinned.parameters)}:${pinned.digest}, but the image has ${formatImageParameters(parameters)}:${digest}`,
    { hint: 'Made with other xattrs or of another tree: have it made by "hostctl image seal --uki"' },
  );
}

/** Whether a deployment is by this very unified kernel image, whatever it was made from, and whole. */
export function isBy(sysroot: Sysroot, deployment: Deployment, digest: VerityDigest, files: KernelFiles): boolean {
  const { name, problems, state } = deployment;
  const entry = entryOf(deployment);
  if (files.kind !== 'unified' || name !== digest || entry === undefined) return false;
  const content = kernelContent(files);
  return problems.length === 0 && state !== 'failed' && kernelDirectoryOf(sysroot, entry)?.startsWith(content) === true;
}

/**
 * The state directory has the name of the digest, and a second deployment of the image cannot have another one. Returns
 * what a command that died left there, which is what `gc` would remove too; undefined where nothing is there. Throws
 * 'deployment-in-use', and 'state-invalid' where nobody can tell. The caller holds the sysroot lock.
 */
export function leftoverState(host: Host, sysroot: Sysroot, digest: VerityDigest): Deployment | undefined {
  const { list, staged, next, booted } = readDeployments(host, sysroot);
  const there = list.find(({ name }) => name === digest);
  if (there === undefined) return undefined;
  const mayBeLeft = there.entries.length + there.onceEntries.length === 0 && there !== staged;
  // A boot partition that is not mounted, or another one, has no entry for it either: the snapshot refuses that.
  const garbage = mayBeLeft ? planHostGarbage(readHostSnapshot(host, sysroot, false), []).deployments : [];
  if (garbage.some(({ name }) => name === digest)) return there;
  const name = String(there.id ?? digest);
  throw new HostctlError('deployment-in-use', `Deployment ${name} is of this image already, and it can be only one`, {
    hint: hintFor(name, there, there === staged, there === next || there === booted),
  });
}

function hintFor(name: string, { entries }: Deployment, isStaged: boolean, isUsed: boolean): string {
  if (isStaged) return 'It is staged: reboot, or drop it with "hostctl unstage"';
  const isByOther = entries.length > 0 && !entries.some(isUnified);
  if (isUsed && isByOther) {
    return 'It boots this root by a kernel and an initramfs: have the unified kernel image made of the next release, which has another root';
  }
  if (isUsed) return 'It boots this root already: take the image when it has another one';
  const remove = `remove it with "hostctl delete ${name}"`;
  return entries.length === 0 || isByOther
    ? `First ${remove}`
    : `Go to it with "hostctl rollback --to ${name}", or ${remove}`;
}
