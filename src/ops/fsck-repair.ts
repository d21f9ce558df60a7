/**
 * What `fsck --repair` does. Nothing is invented and no digest changes: objects come from the image that a deployment
 * was made from, if the reference still leads to the very same manifest, and take their names by rename; an image is
 * built again and must have its digest; kernels come from the image and get names of their own.
 */

import * as fs from 'node:fs';
import { KERNELS } from '../deploy/kernels.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import type { ImageParameters } from '../format/cmdline.ts';
import { writeComposefsImage } from '../format/erofs/writer.ts';
import { fsverityDigest } from '../format/fsverity/digest.ts';
import { bootableTree } from '../image/build.ts';
import type { ImageSource } from '../image/source.ts';
import { commitImage, hasImage, linkTarget, setRef } from '../store/images.ts';
import { ObjectStore } from '../store/objects.ts';
import { objectFile, type Repository } from '../store/repository.ts';
import { fsyncPath, split } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';
import { exactly, flattenImage, XATTR_MODE } from './build.ts';
import { LAYER_RECORD_ALTERED, type Look } from './fsck-host.ts';
import { repairKernels } from './repair-kernels.ts';
import { refsOfOrigin } from './image-refs.ts';
import { referenceAgain, requireSameManifest } from './made-from.ts';
import { withImage } from './with-image.ts';

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
    const distrusted = new Set(look.objects.map(({ digest }) => digest));
    for (const { digest, images } of look.objects) {
      // A damaged object that no image names holds nothing that anybody can want.
      if (images.length > 0) continue;
      await attempt(`object ${digest}`, () => removeDurably(objectFile(repository, digest)));
    }
    for (const { object } of look.findings.filter(({ code }) => code === LAYER_RECORD_ALTERED)) {
      await attempt(`"${object}"`, () => removeDurably(object));
    }
    for (const made of imagesToFetch(repository, look)) {
      await attempt(made.name, () => fetchAgain(host, repository, made, distrusted));
    }
    for (const { origin, entries } of look.deployments.list) {
      if (origin === undefined || entries.length === 0) continue;
      await attempt(`the refs of deployment ${origin.id}`, () => {
        for (const [ref, digest] of refsOfOrigin(origin)) setRef(repository, ref, digest);
      });
    }
    if (look.findings.some(({ code }) => code === 'kernel-corrupt')) {
      await attempt(`"${sysroot.boot.path}/${KERNELS}"`, () => repairKernels(host, sysroot, repository, distrusted));
    }
  }
  return failures;
}

function removeDurably(path: string): void {
  fs.rmSync(path, { force: true, recursive: true });
  fsyncPath(split(path).directory);
}

/** An image as it was made. */
interface MadeImage {
  readonly name: string;
  readonly reference: string;
  readonly digest: VerityDigest;
  /** Of one that is booted; what a host image is bound to is told by its digest alone. */
  readonly manifestDigest: string | undefined;
  readonly formatVersion: ImageParameters['formatVersion'] | undefined;
}

/** Each image that lacks something once: an object, itself, or its link. */
function imagesToFetch(repository: Repository, { deployments, objects }: Look): MadeImage[] {
  const damaged = new Set<string>(objects.flatMap(({ images }) => images));
  const found = new Map<string, MadeImage>();
  for (const { origin, problems } of deployments.list) {
    if (origin === undefined) continue;
    const { id, reference, digest, manifestDigest, parameters } = origin;
    const { formatVersion } = parameters;
    if (damaged.has(digest) || problems.some(({ code }) => code === 'image-missing')) {
      found.set(digest, { name: `the image of deployment ${id}`, reference, digest, manifestDigest, formatVersion });
    }
    for (const bound of origin.bound) {
      if (!damaged.has(bound.digest) && hasImage(repository, bound.digest)) continue;
      found.set(bound.digest, {
        name: `"${bound.reference}" of deployment ${id}`,
        ...bound,
        manifestDigest: undefined,
        formatVersion: undefined,
      });
    }
  }
  return [...found.values()];
}

async function fetchAgain(
  host: Host,
  repository: Repository,
  made: MadeImage,
  distrusted: ReadonlySet<string>,
): Promise<void> {
  await withImage(host, referenceAgain(made), repository.path, (source) =>
    storeAgain(host, repository, { made, source, distrusted }),
  );
}

interface FetchAgain {
  readonly made: MadeImage;
  readonly source: ImageSource;
  readonly distrusted: ReadonlySet<string>;
}

async function storeAgain(host: Host, repository: Repository, { made, source, distrusted }: FetchAgain): Promise<void> {
  const isBooted = made.manifestDigest !== undefined;
  requireSameManifest(made, source);
  const store = new ObjectStore(host, repository, distrusted);
  try {
    const flattened = await flattenImage(host, source, store);
    const tree = isBooted ? bootableTree(flattened).tree : flattened;
    const { algorithm } = repository;
    const image = writeComposefsImage(tree, { algorithm, ...exactly(made.formatVersion) });
    const digest = fsverityDigest(algorithm, image.bytes);
    // Before the image itself is stored: what was fetched for the objects is as good with another one.
    if (digest !== made.digest) {
      store.barrier();
      throw new HostctlError('digest-mismatch', `The image built again has the digest ${digest}, not ${made.digest}`);
    }
    dropWrongLink(repository, digest);
    const parameters = { formatVersion: image.version, algorithm, logBlockSize: 12 } as const;
    commitImage(repository, store, image.bytes, { parameters, xattrs: XATTR_MODE, bootable: isBooted });
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
