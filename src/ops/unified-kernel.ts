/**
 * Deploying an image through the unified kernel image that it carries. Firmware verifies that file as a whole, so it is
 * used as it is: the image is built by the parameters that its command line states and must have that digest, nothing
 * is added to the arguments, and the state directory is the one that a command line without a name for it leads to.
 */

import { isUnified, type FoundEntry } from '../deploy/boot-entries.ts';
import type { Deployment, Deployments } from '../deploy/deployments.ts';
import { chosenKargs, type KargSources } from '../deploy/kargs.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import {
  findDigestArguments,
  findKargs,
  formatImageParameters,
  splitCmdline,
  type DigestArgument,
} from '../format/cmdline.ts';
import { readPeSections } from '../format/pe.ts';
import type { UnifiedKernel } from '../image/boot-files.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { FileNode, VerityDigest } from '../tree/node.ts';
import type { ContentOf } from './boot-facts.ts';
import type { StoredImage } from './build.ts';

export interface UnifiedCmdline {
  /** In the image. */
  readonly path: string;
  /** All arguments, those of add-ons last. */
  readonly kargs: readonly string[];
  /** What is mounted as root. */
  readonly pinned: DigestArgument;
}

/**
 * By what a unified kernel image boots. Throws 'image-not-bootable' where that is no image, or where the state directory
 * would be another one; 'image-unsupported' for several profiles, and 'image-invalid' for what is no PE file.
 */
export function readUnifiedKernel({ path, uki, addons }: UnifiedKernel, contentOf: ContentOf): UnifiedCmdline {
  const own = cmdlinesIn(path, uki, contentOf);
  const [cmdline] = own;
  if (own.length > 1) {
    throw new HostctlError('image-unsupported', `"${path}" has ${own.length} command lines: which one boots is open`, {
      hint: 'Make it without profiles',
    });
  }
  const [pinned] = findDigestArguments(cmdline ?? []);
  if (cmdline === undefined || pinned === undefined) {
    throw new HostctlError('image-not-bootable', `The command line of "${path}" names no composefs digest`, {
      hint: 'Make it with "hostctl image seal --uki", or with "composefs.digest=" and what "image digest --bootable" prints',
    });
  }
  const added = addons.flatMap(({ name, file }) => {
    const kargs = cmdlinesIn(`${path}.extra.d/${name}`, file, contentOf).flat();
    if (findDigestArguments(kargs).length === 0) return kargs;
    throw new HostctlError('image-not-bootable', `The add-on "${path}.extra.d/${name}" names a composefs digest`, {
      hint: 'The root is for the unified kernel image alone to name',
    });
  });
  const kargs = [...cmdline, ...added];
  if (findKargs(kargs, 'hostctl.state').length > 0) {
    throw new HostctlError('image-not-bootable', `The command line of "${path}" has "hostctl.state="`, {
      hint: 'Leave it out: a deployment by a unified kernel image has the state directory of its digest',
    });
  }
  return { path, kargs, pinned };
}

function cmdlinesIn(path: string, file: FileNode, contentOf: ContentOf): string[][] {
  try {
    return readPeSections(contentOf(file), '.cmdline').map(cmdlineOf);
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    throw new HostctlError(error.code, `Cannot read "${path}": ${error.message}`, { cause: error });
  }
}

/** As systemd-stub reads it: to the first NUL. */
function cmdlineOf(section: Uint8Array): string[] {
  return splitCmdline(Buffer.from(section).toString('utf8').replace(/\0.*$/s, ''));
}

/** What a deployment by it is asked to be, and where. */
export interface UnifiedRequest {
  readonly sysroot: Sysroot;
  readonly repository: Repository;
  /** Named with the command. */
  readonly kargs: readonly string[];
  readonly allowMissingVerity: boolean;
}

/** Before the image is stored: what this host or this command cannot do with a unified kernel image. */
export function refuseUnified({ path, pinned }: UnifiedCmdline, request: UnifiedRequest): void {
  const { sysroot, repository, kargs, allowMissingVerity } = request;
  const refuse = (code: 'host-unsupported' | 'image-unsupported' | 'verity-unsupported', what: string, hint: string) =>
    new HostctlError(code, `Cannot boot by "${path}": ${what}`, { hint });
  if (sysroot.boot.isGrub) throw refuseOnGrub(path);
  if (kargs.length > 0) {
    throw refuse(
      'image-unsupported',
      `its command line is its own, and "${kargs.join(' ')}" cannot be added`,
      'The publisher adds arguments by a signed add-on, or with "hostctl image seal --uki --karg"',
    );
  }
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

/** GRUB's script starts kernels. */
export function refuseOnGrub(path: string): HostctlError {
  return new HostctlError('host-unsupported', `Cannot boot by "${path}": GRUB starts this host`, {
    hint: 'Use a host with systemd-boot, or an image without a unified kernel image',
  });
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

/**
 * The state directory has the name of the digest, and a second deployment of the image cannot have another one. Throws
 * 'deployment-in-use'; undefined where nothing is there, else what a command that died left.
 */
export function leftoverState(
  { list, booted, staged, warnings }: Deployments,
  digest: VerityDigest,
): Deployment | undefined {
  const there = list.find(({ name }) => name === digest);
  if (there === undefined) return undefined;
  const isUnused =
    there.origin !== undefined && there.entries.length === 0 && there.onceEntries.length === 0 && !there.pinned;
  const isBlind = warnings.some(({ code }) =>
    ['boot-unreadable', 'entry-unreadable', 'staged-unreadable'].includes(code),
  );
  if (isUnused && !isBlind && there !== booted && there !== staged) return there;
  const name = String(there.id ?? digest);
  throw new HostctlError('deployment-in-use', `Deployment ${name} is of this image already, and it can be only one`, {
    hint:
      there === staged
        ? 'It is staged: reboot, or drop it with "hostctl unstage"'
        : `Go to it with "hostctl rollback --to ${name}", or remove it with "hostctl delete ${name}"`,
  });
}

/** Says which arguments of host and user have no effect. */
export function warnOfUnusedKargs(host: Host, { path, kargs }: UnifiedCmdline, wanted: KargSources): void {
  const unused = chosenKargs(wanted).filter(({ arg, origin }) => origin !== 'image' && !kargs.includes(arg));
  if (unused.length === 0) return;
  const shown = unused.map(({ arg }) => arg).join(' ');
  host.log.warn(`The unified kernel image "${path}" has its own command line, and these are not in it: ${shown}`);
}
