/**
 * What `fsck --repair` does. Nothing is invented and no digest changes: objects come from the image that a deployment
 * was made from, if the reference still leads to the very same manifest, and take their names by rename; an image is
 * built again and must have its digest; kernels come from the image and get names of their own.
 */

import * as fs from 'node:fs';
import { KERNELS } from '../deploy/kernels.ts';
import { deploymentImage } from '../deploy/find-deployment.ts';
import type { Deployment } from '../deploy/deployments.ts';
import type { Origin } from '../deploy/origin.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { bootableTree } from '../image/build.ts';
import { commitImage, linkTarget, setRef } from '../store/images.ts';
import { ObjectStore } from '../store/objects.ts';
import { objectFile, type Repository } from '../store/repository.ts';
import { fsyncPath, split } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { flattenImage, openImage, XATTR_MODE } from './build.ts';
import type { Look } from './fsck-host.ts';
import { repairKernels } from './repair-kernels.ts';
import { ownerRef } from './image-refs.ts';

/** Repairs what it can. Returns why something could not be. The caller holds both locks. */
export async function repairAll(
  host: Host,
  sysroot: Sysroot,
  repository: Repository | undefined,
  look: Look,
): Promise<string[]> {
  const failures: string[] = [];
  const attempt = async (what: string, step: () => void | Promise<void>): Promise<void> => {
    try {
      await step();
    } catch (error) {
      if (!(error instanceof Error) || host.signal.aborted) throw error;
      failures.push(`Cannot repair ${what}: ${error.message}`);
    }
  };
  if (repository !== undefined) {
    for (const { digest, images } of look.objects) {
      if (images.length === 0) await attempt(`object ${digest}`, () => removeUnreferenced(repository, digest));
    }
    const distrusted = new Set(look.objects.map(({ digest }) => digest));
    for (const origin of originsToFetch(look)) {
      await attempt(`the image of deployment ${origin.id}`, () => fetchAgain(host, repository, origin, distrusted));
    }
    for (const { origin, entries } of look.deployments.list) {
      if (origin === undefined || entries.length === 0) continue;
      await attempt(`the ref of deployment ${origin.id}`, () =>
        setRef(repository, ownerRef({ kind: 'host', id: origin.id }), origin.digest),
      );
    }
    if (look.findings.some(({ code }) => code === 'kernel-corrupt')) {
      await attempt(`"${sysroot.boot.path}/${KERNELS}"`, () => repairKernels(host, sysroot, repository));
    }
  }
  return failures;
}

/** A damaged object that no image names holds nothing that anybody can want. */
function removeUnreferenced(repository: Repository, digest: string): void {
  const path = objectFile(repository, digest);
  fs.rmSync(path, { force: true, recursive: true });
  fsyncPath(split(path).directory);
}

/** One origin for each image that lacks something: an object, itself, or its link. */
function originsToFetch({ deployments, objects }: Look): Origin[] {
  const damaged = new Set<string>(objects.flatMap(({ images }) => images));
  const lacksImage = ({ problems }: Deployment): boolean => problems.some(({ code }) => code === 'image-missing');
  const origins = new Map<string, Origin>();
  for (const item of deployments.list) {
    const digest = deploymentImage(item);
    if (item.origin === undefined || digest === undefined) continue;
    if (damaged.has(digest) || lacksImage(item)) origins.set(digest, item.origin);
  }
  return [...origins.values()];
}

async function fetchAgain(
  host: Host,
  repository: Repository,
  origin: Origin,
  distrusted: ReadonlySet<string>,
): Promise<void> {
  const source = openImage(host, origin.reference);
  if (source.manifestDigest !== origin.manifestDigest) {
    throw new HostctlError(
      'digest-mismatch',
      `"${origin.reference}" now leads to ${source.manifestDigest}, not to ${origin.manifestDigest} it was made from`,
    );
  }
  const store = new ObjectStore(host, repository, distrusted);
  try {
    const { tree } = bootableTree(await flattenImage(host, source, store));
    const { algorithm } = repository;
    const image = writeComposefsImage(tree, { algorithm });
    const digest = fsverityDigest(algorithm, image.bytes);
    // Before the image itself is stored: what was fetched for the objects is as good with another one.
    if (digest !== origin.digest) {
      store.barrier();
      throw new HostctlError('digest-mismatch', `The image built again has the digest ${digest}, not ${origin.digest}`);
    }
    dropWrongLink(repository, digest);
    const parameters = { formatVersion: image.version, algorithm, logBlockSize: 12 } as const;
    commitImage(repository, store, image.bytes, { parameters, xattrs: XATTR_MODE, bootable: true });
    store.barrier();
  } finally {
    store.close();
  }
}

/** Something else than a link stands where the link of an image belongs: a link cannot be renamed over a directory. */
function dropWrongLink({ path }: Repository, digest: string): void {
  const link = `${path}/images/${digest}`;
  if (linkTarget(link) === undefined) fs.rmSync(link, { recursive: true, force: true });
}
