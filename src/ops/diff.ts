/**
 * `diff`: what differs between two deployments or images: files, kernel, kernel arguments, packages. Read from the
 * images themselves; nothing is mounted, stored or changed.
 */

import { isUnified, type FoundEntry } from '../deploy/boot-entries.ts';
import { entryOf, readDeployments, type Deployment } from '../deploy/deployments.ts';
import { findDeployment } from '../deploy/find-deployment.ts';
import { isOwnKarg } from '../deploy/kargs.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { parseDpkgStatus } from '../format/dpkg-status.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { findBootFiles, type BootFiles } from '../image/boot-files.ts';
import { bootableTree } from '../image/build.ts';
import { measuringSink } from '../image/ingest.ts';
import { readImage } from '../store/images.ts';
import { openRepository, requireRepository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { diffTrees, isSameContent, type TreeDifference } from '../tree/diff.ts';
import { lookup } from '../tree/lookup.ts';
import type { DirectoryNode, FileNode, VerityDigest } from '../tree/node.ts';
import { imageKargs, isKargsFile } from './boot-facts.ts';
import { flattenImage } from './build.ts';
import { requireImage } from './find-image.ts';
import { withImage } from './with-image.ts';

export interface DiffOptions extends SysrootOptions {
  /** Deployment, image in the repository, or image reference; undefined: what runs. */
  readonly from?: string | undefined;
  /** Undefined: what boots next. */
  readonly to?: string | undefined;
}

export interface DiffResult {
  readonly from: string;
  readonly to: string;
  readonly kernel: {
    /** Its version; undefined where an image has none or several. */
    readonly from: string | undefined;
    readonly to: string | undefined;
    readonly changed: readonly ('version' | 'kernel' | 'initramfs' | 'unified kernel image')[];
  };
  readonly kargs: { readonly added: readonly string[]; readonly removed: readonly string[] };
  /** Undefined where the packages of one side are not known. */
  readonly packages: PackageDifferences | undefined;
  readonly files: Iterable<TreeDifference>;
}

export interface PackageDifferences {
  readonly added: readonly { readonly name: string; readonly version: string }[];
  readonly removed: readonly { readonly name: string; readonly version: string }[];
  readonly changed: readonly { readonly name: string; readonly from: string; readonly to: string }[];
}

interface Side {
  readonly name: string;
  readonly tree: DirectoryNode;
  readonly bootFiles: BootFiles | undefined;
  /** The unified kernel image that it boots by, in a form that tells two of a kind apart; null where it boots by none. */
  readonly unified: { readonly kind: 'files' | 'entry'; readonly identity: string } | null | undefined;
  /** Those of the image. */
  readonly imageKargs: readonly string[];
  /** All but hostctl's own; undefined for what is no deployment. */
  readonly kargs: readonly string[] | undefined;
  readonly packages: ReadonlyMap<string, string> | undefined;
}

type ContentOf = (file: FileNode) => Iterable<Uint8Array>;

const DPKG_STATUS = 'var/lib/dpkg/status';

export async function diff(host: Host, options: DiffOptions): Promise<DiffResult> {
  const open = sideOpener(host, options);
  const [a, b] = [await open.from(), await open.to()];
  const onlyImages = a.kargs === undefined || b.kargs === undefined;
  return {
    from: a.name,
    to: b.name,
    kernel: kernelDifference(a, b),
    kargs: listDifference(...(onlyImages ? [a.imageKargs, b.imageKargs] : [a.kargs, b.kargs])),
    packages: a.packages && b.packages && packageDifferences(a.packages, b.packages),
    files: diffTrees(a.tree, b.tree),
  };
}

/** Images need no host: deployments are only read when one is meant. */
function sideOpener(host: Host, options: DiffOptions): Record<'from' | 'to', () => Promise<Side>> {
  const isReference = (name: string | undefined): name is string => name !== undefined && /[:/]/.test(name);
  const needsHost = !isReference(options.from) || !isReference(options.to);
  const sysroot = needsHost ? openSysroot(host, options) : undefined;
  const deployments = sysroot && readDeployments(host, sysroot);
  const repo = sysroot?.repo ?? options.repo;
  const opened = (name: string | undefined, usual: Deployment | undefined) => async (): Promise<Side> => {
    if (isReference(name)) return readReference(host, name, repo);
    if (deployments === undefined || repo === undefined) throw new HostctlError('internal', 'No host was opened');
    if (name === undefined) {
      if (usual === undefined) {
        throw new HostctlError('deployment-not-found', 'There are no two deployments to compare', {
          hint: 'Name two deployments or image references; see "hostctl status"',
        });
      }
      return readDeployed(host, repo, usual);
    }
    const found = findNamed(deployments.list, name);
    return found === undefined ? readStored(host, repo, name) : readDeployed(host, repo, found);
  };
  const to = deployments?.staged ?? deployments?.next;
  const running = deployments?.booted ?? deployments?.next;
  // Where nothing waits for the next boot, what came before it is of interest.
  const from = running === to && options.to === undefined ? deployments?.rollback : running;
  return { from: opened(options.from, from), to: opened(options.to, to) };
}

function findNamed(list: readonly Deployment[], name: string): Deployment | undefined {
  try {
    return findDeployment(list, name);
  } catch (error) {
    // It may still be an image that is not deployed.
    if (isHostctlError(error, 'deployment-not-found')) return undefined;
    throw error;
  }
}

function readDeployed(host: Host, repo: string, deployment: Deployment): Side {
  const entry = entryOf(deployment);
  const digest = deployment.origin?.digest ?? entry?.pinned?.digest;
  const name = `deployment ${deployment.id ?? deployment.name}`;
  if (digest === undefined) {
    throw new HostctlError('state-invalid', `Cannot compare ${name}: its origin is lost`);
  }
  const kargs = entry?.kargs.filter((arg) => !isOwnKarg(arg));
  return {
    ...readDigest(host, repo, digest),
    name,
    kargs,
    unified: entry === undefined ? undefined : startedBy(entry),
  };
}

/** The name of its directory tells the content. */
function startedBy(entry: FoundEntry): Side['unified'] {
  return isUnified(entry) && entry.efi !== undefined ? { kind: 'entry', identity: entry.efi } : null;
}

function readStored(host: Host, repo: string, name: string): Side {
  const digest = requireImage(host, requireRepository(host, repo), { repo, image: name });
  return readDigest(host, repo, digest);
}

function readDigest(host: Host, repo: string, digest: VerityDigest): Side {
  const repository = requireRepository(host, repo);
  const tree = readComposefsImage(readImage(repository, digest));
  return side(host, digest, tree, repositoryContent(repository));
}

/** In the form that is booted, if it can be, so that it compares with what is deployed. */
async function readReference(host: Host, reference: string, repo: string | undefined): Promise<Side> {
  const algorithm = (repo === undefined ? undefined : openRepository(host, repo)?.algorithm) ?? 'sha512';
  const isWanted = (path: string): boolean => path === DPKG_STATUS || isKargsFile(path);
  const flat = await withImage(host, reference, undefined, (source) =>
    flattenImage(host, source, measuringSink(algorithm), isWanted),
  );
  const found = bootFilesOf(flat);
  const image = side(host, reference, bootableOr(flat), keptContent);
  return { ...image, bootFiles: image.bootFiles ?? found, unified: found && unifiedIn(found) };
}

function unifiedIn(found: BootFiles): Side['unified'] {
  if (found.kind === 'split') return null;
  const files = [{ name: '', file: found.uki }, ...found.addons];
  const contents = files.map(({ name, file: { content } }) => [
    name,
    content.kind === 'inline' ? Buffer.from(content.bytes).toString('latin1') : content.digest,
  ]);
  return { kind: 'files', identity: JSON.stringify(contents) };
}

function bootableOr(flat: DirectoryNode): DirectoryNode {
  try {
    return bootableTree(flat).tree;
  } catch (error) {
    if (isHostctlError(error, 'image-not-bootable', 'image-unsupported')) return flat;
    throw error;
  }
}

function keptContent({ content }: FileNode): Iterable<Uint8Array> {
  if (content.bytes !== undefined) return [content.bytes];
  throw new HostctlError('image-unsupported', 'A file of packages or kernel arguments is too large to be compared');
}

function side(host: Host, name: string, tree: DirectoryNode, contentOf: ContentOf): Side {
  const status = lookup(tree, DPKG_STATUS);
  return {
    name,
    tree,
    bootFiles: bootFilesOf(tree),
    unified: undefined,
    imageKargs: imageKargs(tree, contentOf, host.architecture).flatMap(({ kargs }) => kargs),
    kargs: undefined,
    packages:
      status?.kind === 'file'
        ? parseDpkgStatus(Buffer.concat([...contentOf(status)].map((piece) => Uint8Array.from(piece))).toString('utf8'))
        : undefined,
  };
}

function bootFilesOf(tree: DirectoryNode): BootFiles | undefined {
  try {
    return findBootFiles(tree);
  } catch (error) {
    if (isHostctlError(error, 'image-not-bootable', 'image-unsupported')) return undefined;
    throw error;
  }
}

function kernelDifference(
  { bootFiles: a, unified: before }: Side,
  { bootFiles: b, unified: after }: Side,
): DiffResult['kernel'] {
  const versions = { from: a?.kernelVersion, to: b?.kernelVersion };
  const changed: DiffResult['kernel']['changed'][number][] = versions.from === versions.to ? [] : ['version'];
  if (a?.kind === 'split' && b?.kind === 'split') {
    if (!isSameContent(a.kernel.content, b.kernel.content)) changed.push('kernel');
    if (!isSameContent(a.initramfs.content, b.initramfs.content)) changed.push('initramfs');
  }
  // What a deployment and what an image says of it cannot be compared.
  const isComparable = before === null || after === null || before?.kind === after?.kind;
  if (before !== undefined && after !== undefined && isComparable && before?.identity !== after?.identity) {
    changed.push('unified kernel image');
  }
  return { ...versions, changed };
}

function listDifference(
  before: readonly string[] = [],
  after: readonly string[] = [],
): { readonly added: readonly string[]; readonly removed: readonly string[] } {
  return {
    added: after.filter((arg) => !before.includes(arg)),
    removed: before.filter((arg) => !after.includes(arg)),
  };
}

function packageDifferences(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): PackageDifferences {
  const only = (these: ReadonlyMap<string, string>, those: ReadonlyMap<string, string>) =>
    [...these].filter(([name]) => !those.has(name)).map(([name, version]) => ({ name, version }));
  return {
    added: only(b, a),
    removed: only(a, b),
    changed: [...a].flatMap(([name, from]) => {
      const to = b.get(name);
      return to === undefined || to === from ? [] : [{ name, from, to }];
    }),
  };
}
