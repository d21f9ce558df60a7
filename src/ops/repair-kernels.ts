/**
 * Damaged kernels: written again from the image under names of their own, since nothing on the boot partition is ever
 * rewritten, and named by new entries. New entries have higher numbers; so that the order of the menu stays as it was,
 * everything that stood before gets a new entry too, the first of the menu first: at no moment is another one default.
 */

import { isUnified, programOf, type FoundEntry } from '../deploy/boot-entries.ts';
import { commitEntry, removeEntries, writeInertEntry } from '../deploy/publish-entry.ts';
import { readDeployments, type Deployment, type Deployments } from '../deploy/deployments.ts';
import { deploymentImage } from '../deploy/find-deployment.ts';
import { planKernel, writeKernel, type KernelFiles, type PlannedKernel } from '../deploy/kernels.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { entryValue } from '../format/bls/entry.ts';
import type { BootCounter } from '../format/bls/name.ts';
import { joinCmdline } from '../format/cmdline.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { findBootFiles, findSplitKernel } from '../image/boot-files.ts';
import { readImage } from '../store/images.ts';
import { ObjectStore } from '../store/objects.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { kernelFilesOf, splitFilesOf } from './boot-facts.ts';
import { flattenImage } from './build.ts';
import { damagedKernels, kernelDirectoryOf } from './fsck-host.ts';
import { referenceAgain, requireSameManifest } from './made-from.ts';
import { nextSequence, sortKeyOn } from './publish.ts';
import { withImage } from './with-image.ts';

/** An entry that is made anew, under a higher number. */
export interface Republished {
  readonly sequence: number;
  readonly deployment: Deployment;
  readonly entry: FoundEntry;
  readonly counter: BootCounter | undefined;
}

/**
 * The caller holds both locks; the images are whole. Throws for the first kernel that cannot be had.
 * @param distrusted - objects that are not what their names say
 */
export async function repairKernels(
  host: Host,
  sysroot: Sysroot,
  repository: Repository,
  distrusted: ReadonlySet<string>,
): Promise<void> {
  const deployments = readDeployments(host, sysroot);
  if (deployments.staged !== undefined) {
    throw new HostctlError('deployment-in-use', 'A staged deployment would be published below the repaired ones', {
      hint: 'Drop it with "hostctl unstage"',
    });
  }
  const damaged = damagedKernels(sysroot, deployments);
  const fresh = new Map<string, PlannedKernel>();
  for (const [directory, [user]] of damaged) {
    if (user !== undefined)
      fresh.set(directory, await writeAgain(host, sysroot, { repository, distrusted }, user, directory));
  }
  const replaced = (entry: FoundEntry): PlannedKernel | undefined => {
    const directory = kernelDirectoryOf(sysroot, entry);
    const kernel = fresh.get(directory ?? '');
    // One that was missing is back under its own name.
    return kernel?.directory === directory ? undefined : kernel;
  };
  for (const item of planRepublish(deployments, nextSequence(sysroot, deployments), replaced)) {
    const { sequence, counter, entry } = item;
    const program = replaced(entry)?.program ?? programOf(entry);
    if (program === undefined) {
      throw new HostctlError('state-invalid', `The boot entry "${entry.file}" names nothing to start`);
    }
    const inert = await writeInertEntry(host, sysroot.boot, {
      sequence,
      counter,
      title: entryValue(entry.content, 'title') ?? 'Linux',
      sortKey: sortKeyOn(deployments),
      program,
      options: joinCmdline(entry.kargs),
    });
    await commitEntry(host, sysroot.boot, inert);
  }
  const worthless = deployments.list.flatMap(({ entries }) => entries).filter((entry) => replaced(entry) !== undefined);
  const files = worthless.flatMap(({ file, sequence }) => (sequence === undefined ? [] : file));
  await removeEntries(host, sysroot.boot, files);
}

/**
 * Which deployments get a new entry and by which number, highest first: those whose kernel was replaced and everything
 * that stands before one of them. Pure.
 */
export function planRepublish(
  { list, next }: Deployments,
  firstSequence: number,
  isReplaced: (entry: FoundEntry) => unknown,
): Republished[] {
  const ranked = list
    .flatMap((deployment) => {
      const entry = deployment.entries.find(({ sequence }) => sequence !== undefined);
      // What the loader has given up gets no new tries by this.
      return entry === undefined || deployment.state === 'failed' ? [] : [{ deployment, entry }];
    })
    .sort((a, b) => (b.entry.sequence ?? 0) - (a.entry.sequence ?? 0));
  const first = ranked.findIndex(({ deployment }) => deployment === next);
  const [top] = first > 0 ? ranked.splice(first, 1) : [];
  const menu = top === undefined ? ranked : [top, ...ranked];
  const last = menu.findLastIndex(({ entry }) => isReplaced(entry));
  return menu.slice(0, last + 1).map(({ deployment, entry }, at) => ({
    sequence: firstSequence + last - at,
    deployment,
    entry,
    counter: deployment.state === 'good' ? undefined : { left: deployment.triesLeft ?? 1, done: 0 },
  }));
}

/** Writes a kernel once more from the image of a deployment that uses it. */
async function writeAgain(
  host: Host,
  sysroot: Sysroot,
  { repository, distrusted }: { readonly repository: Repository; readonly distrusted: ReadonlySet<string> },
  user: Deployment,
  directory: string,
): Promise<PlannedKernel> {
  const digest = deploymentImage(user);
  if (digest === undefined) {
    throw new HostctlError('state-invalid', `Nothing tells the image of deployment ${user.id ?? user.name}`);
  }
  const write = (files: KernelFiles): PlannedKernel => {
    const kernel = planKernel(sysroot.boot, files);
    if (kernel.content !== directory.slice(0, kernel.content.length)) {
      throw new HostctlError('corrupt', `The image ${digest} has another kernel than "${directory}"`);
    }
    writeKernel(sysroot.boot, kernel);
    return kernel;
  };
  const contentOf = repositoryContent(repository);
  if (!user.entries.some(isUnified)) {
    const tree = readComposefsImage(readImage(repository, digest));
    return write(splitFilesOf(findSplitKernel(tree), contentOf));
  }
  const { origin } = user;
  if (origin === undefined) {
    throw new HostctlError('state-invalid', `The origin of deployment ${user.id ?? user.name} is lost`);
  }
  // A unified kernel image is no part of the stored image.
  return withImage(host, referenceAgain(origin), repository.path, async (source) => {
    requireSameManifest(origin, source);
    const store = new ObjectStore(host, repository, distrusted);
    try {
      const tree = await flattenImage(host, source, store);
      store.barrier();
      return write(kernelFilesOf(findBootFiles(tree), contentOf));
    } finally {
      store.close();
    }
  });
}
