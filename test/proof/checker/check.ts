/**
 * The checker: looks at a stopped host's file systems and says what would boot, and whether it would come up whole.
 * It knows hostctl's layout from the documentation alone and shares no code with `src/`: what it calls whole is what a
 * boot loader, a kernel and the boot hook need.
 */

import { createHash } from 'node:crypto';
import { defaultEntry, type LoaderEntry, programOf, readEntries, triesLeft } from './entries.ts';
import { type ImageEntry, readImage } from './erofs.ts';
import { Damage, type Files, join } from './files.ts';
import { grubDefault, isGrubHost } from './grub.ts';
import { peCommandLines } from './pe.ts';
import { sealProblem } from './seals.ts';
import { verityHex } from './verity.ts';

/** A stopped host, in one view of its disks. */
export interface Host {
  /** The file system that holds the boot directory, as the loader reads it. */
  readonly boot: Files;
  /** The boot directory in it: empty when it has its own partition. */
  readonly bootDir: string;
  /** The file system that holds `composefs/` and `state/`, as the kernel mounts it. */
  readonly root: Files;
}

export type Answer = 'OLD' | 'NEW' | 'BAD';

export interface Report {
  readonly answer: Answer;
  /** Why BAD. */
  readonly reason?: string;
  /** File names of the entries that would boot whole and have tries left. */
  readonly good: readonly string[];
  /** The state directories that these boot with. */
  readonly goodStates: ReadonlySet<string>;
  /** Entries of ours that would not, with the reason. */
  readonly broken: ReadonlyMap<string, string>;
  /** What the default entry boots, as in `Expectation`. */
  readonly options?: string;
}

/** What the default may be: a deployment's `identityOf`, or undefined for a host with none. */
export interface Expectation {
  readonly old: string | undefined;
  readonly new: string | undefined;
}

export function checkHost(host: Host, expected: Expectation): Report {
  const good: string[] = [];
  const goodStates = new Set<string>();
  const broken = new Map<string, string>();
  const bad = (reason: string, options?: string): Report => ({
    answer: 'BAD',
    reason,
    good,
    goodStates,
    broken,
    ...(options === undefined ? {} : { options }),
  });
  try {
    const entries = readEntries(host.boot, host.bootDir);
    for (const entry of entries) {
      if (digestArguments(optionsOf(entry)).length === 0) continue;
      const problem = entryProblem(host, entry);
      if (problem !== undefined) broken.set(entry.fileName, problem);
      else if (triesLeft(entry.fileName) !== 0) {
        good.push(entry.fileName);
        goodStates.add(stateOf(entry) ?? '');
      }
    }
    const isGrub = isGrubHost(host.boot, host.bootDir);
    const first = isGrub ? grubDefault(host.boot, host.bootDir, entries) : defaultEntry(entries);
    const options = first && identityOf(first);
    const problem = first && broken.get(first.fileName);
    if (problem !== undefined) return bad(`default ${first?.fileName ?? ''}: ${problem}`, options);
    const answer = options === expected.new ? 'NEW' : options === expected.old ? 'OLD' : undefined;
    if (!answer) return bad(`default ${first?.fileName ?? 'none'} is neither old nor new: ${options ?? ''}`, options);
    return { answer, good, goodStates, broken, ...(options === undefined ? {} : { options }) };
  } catch (error) {
    if (error instanceof Error) return bad(error.message);
    throw error;
  }
}

/** Name of the state directory; that of the image where the entry does not say. */
export function stateOf(entry: LoaderEntry): string | undefined {
  const options = optionsOf(entry);
  return /(?:^| )hostctl\.state=(\S+)/.exec(options)?.[1] ?? digestArguments(options)[0]?.digest;
}

/** A unified kernel image has its own; what its entry says of them is compared with it. */
function optionsOf({ keys }: LoaderEntry): string {
  return (keys.get('options') ?? keys.get('x-hostctl-options') ?? []).join(' ');
}

/**
 * What tells one deployment from another: its command line, but not the name of its state directory, which is another
 * one when a command is run again. Which state directory it names is checked for itself.
 */
export function identityOf(entry: LoaderEntry): string {
  return optionsOf(entry).replace(/(^| )hostctl\.state=\S+/, '');
}

const BOUND_REFS = 'composefs/images/refs/hostctl-bound';

interface Pinned {
  readonly algorithm: string;
  readonly digest: string;
}

function digestArguments(options: string): Pinned[] {
  const named = /(?:^| )composefs(?:\.digest=\??v1-(sha256|sha512)-12:|=\??)([0-9a-f]{64,128})(?= |$)/g;
  return [...options.matchAll(named)].map(([, algorithm, digest = '']) => ({
    // bootc's form leaves it to the length.
    algorithm: algorithm ?? (digest.length === 64 ? 'sha256' : 'sha512'),
    digest,
  }));
}

/** Why this entry would not come up whole; undefined when it would. */
function entryProblem(host: Host, entry: LoaderEntry): string | undefined {
  try {
    const problem = entry.keys.has('efi') ? unifiedProblem(host, entry) : kernelProblem(host, entry);
    if (problem !== undefined) return problem;
    const [pinned] = digestArguments(optionsOf(entry));
    if (!pinned) return 'no digest on the command line';
    const image = imageEntries(host.root, pinned);
    if (typeof image === 'string') return image;
    return (
      stateProblem(host.root, stateOf(entry) ?? '', pinned.digest, image) ??
      boundProblem(host.root, stateOf(entry) ?? '', pinned)
    );
  } catch (error) {
    if (error instanceof Damage) return error.message;
    throw error;
  }
}

function sha256(content: Buffer | string): Buffer {
  return createHash('sha256').update(content).digest();
}

/** What the directory of a kernel is named by, in a path below it. */
function recordedHash(path: string): string | undefined {
  return /\/([0-9a-f]{64})(-\d+)?\/[^/]+$/.exec(path)?.[1];
}

/** Kernel and initrd are there and are what the name of their directory says; that of bootc's says nothing of them. */
function kernelProblem({ boot }: Host, entry: LoaderEntry): string | undefined {
  const hashes: Buffer[] = [];
  const paths = [entry.keys.get('linux')?.at(-1) ?? '', ...(entry.keys.get('initrd') ?? [])];
  for (const path of paths) {
    const content = boot.read(path);
    if (content === undefined) return `${path} is missing`;
    hashes.push(sha256(content));
  }
  const recorded = recordedHash(paths[0] ?? '');
  if (recorded === undefined && paths[0]?.includes('/bootc_composefs-') === true) return undefined;
  if (recorded === undefined) return `${paths[0] ?? ''} is not below a content hash`;
  const actual = sha256(Buffer.concat(hashes)).toString('hex');
  return actual === recorded ? undefined : `kernel and initrd hash to ${actual}, not ${recorded}`;
}

/** The unified kernel image and its add-ons are what the name of their directory says, and boot by what the entry says. */
function unifiedProblem({ boot }: Host, entry: LoaderEntry): string | undefined {
  const path = programOf(entry);
  const addons = (boot.list(`${path}.extra.d`) ?? []).sort();
  const contents: Buffer[] = [];
  const hashes: Buffer[] = [];
  for (const file of [path, ...addons.map((name) => `${path}.extra.d/${name}`)]) {
    const content = boot.read(file);
    if (content === undefined) return `${file} is missing`;
    if (file !== path) hashes.push(sha256(file.slice(file.lastIndexOf('/') + 1)));
    hashes.push(sha256(content));
    contents.push(content);
  }
  const actual = sha256(Buffer.concat(hashes)).toString('hex');
  if (actual !== recordedHash(path)) return `${path} hashes to ${actual}`;
  const options = contents.flatMap(peCommandLines).join(' ');
  return options === optionsOf(entry) ? undefined : `${path} boots by "${options}"`;
}

/** The image under its pinned digest, every object of it checked; or what is wrong. */
function imageEntries(root: Files, { algorithm, digest }: Pinned): readonly ImageEntry[] | string {
  const link = root.readlink(`composefs/images/${digest}`);
  if (link === undefined) return `image link ${digest} is missing`;
  if (link !== `../objects/${digest.slice(0, 2)}/${digest.slice(2)}`) return `image link ${digest} leads to ${link}`;
  const entries: ImageEntry[] = [];
  for (const object of storedAs(root, digest)) {
    const image = readObject(root, algorithm, `${object.slice(0, 2)}/${object.slice(2)}`, object);
    if (typeof image === 'string') return image;
    entries.push(...readImage(image));
  }
  const checked = new Set<string>();
  for (const { path, size, object } of entries) {
    if (!object || checked.has(object.path)) continue;
    checked.add(object.path);
    const content = readObject(root, algorithm, object.path, object.digest);
    if (typeof content === 'string') return `/${path}: ${content}`;
    if (content.length !== size) return `/${path}: object of ${content.length} bytes for ${size}`;
  }
  return entries;
}

/** The objects that an image is mounted from: itself, or the delta and the base that its record names. */
export function storedAs(root: Files, digest: string): string[] {
  const record = root.read(`composefs/hostctl/${digest}`)?.toString('utf8') ?? '';
  const [delta, base] = ['delta', 'base'].map((key) => new RegExp(`^${key} = ([0-9a-f]+)$`, 'm').exec(record)?.[1]);
  return delta === undefined || base === undefined ? [digest] : [delta, base];
}

function readObject(root: Files, algorithm: string, path: string, digest: string): Buffer | string {
  const content = root.read(`composefs/objects/${path}`);
  if (content === undefined) return `object ${path} is missing`;
  const actual = verityHex(algorithm, content);
  return actual === digest ? content : `object ${path} has digest ${actual}`;
}

/** `/etc` has what the image's has, `/var` is there, the origin is readable. */
function stateProblem(root: Files, name: string, digest: string, image: readonly ImageEntry[]): string | undefined {
  const state = `state/deploy/${name}`;
  for (const { path, type } of image) {
    if (path !== 'etc' && !path.startsWith('etc/')) continue;
    const found = root.kind(join(state, path));
    if (found !== type) return `${state}/${path} is ${found ?? 'missing'}, not ${type}`;
  }
  const content = etcContentProblem(root, state, image);
  if (content !== undefined) return content;
  if (root.readlink(`${state}/var`) !== '../../os/default/var') return `${state}/var is not a link to the shared one`;
  if (root.kind('state/os/default/var') !== 'directory') return 'state/os/default/var is missing';
  const origin = root.read(`${state}/${digest}.origin`)?.toString('utf8');
  if (!origin?.includes('[origin]\n'))
    return `${state}/${digest}.origin is ${origin === undefined ? 'missing' : 'garbled'}`;
  return sealProblem(root, origin, digest);
}

/** Every application image that the origin says the deployment is bound to is there, and a ref keeps it. */
function boundProblem(root: Files, name: string, { algorithm, digest }: Pinned): string | undefined {
  const origin = root.read(`state/deploy/${name}/${digest}.origin`)?.toString('utf8') ?? '';
  const section = /^\[bound\]\n((?:.+\n)*)/m.exec(origin)?.[1] ?? '';
  const kept = (root.list(BOUND_REFS) ?? []).map((ref) => root.readlink(`${BOUND_REFS}/${ref}`)?.split('/').at(-1));
  for (const [, bound = ''] of section.matchAll(/^\d+ = ([0-9a-f]+) .+$/gm)) {
    const image = imageEntries(root, { algorithm, digest: bound });
    if (typeof image === 'string') return `bound image: ${image}`;
    if (!kept.includes(bound)) return `bound image ${bound} has no ref`;
  }
  return undefined;
}

/**
 * A file of /etc has the bytes of the image's, or those of another deployment's /etc where a local change was carried
 * over. Owners and modes are for the tests of the copy.
 */
function etcContentProblem(root: Files, state: string, image: readonly ImageEntry[]): string | undefined {
  const others = (root.list('state/deploy') ?? []).map((name) => `state/deploy/${name}`).filter((one) => one !== state);
  for (const entry of image) {
    if (!entry.path.startsWith('etc/') || (entry.type !== 'file' && entry.type !== 'symlink')) continue;
    const bytesIn = (deployment: string): Buffer | undefined =>
      entry.type === 'symlink'
        ? Buffer.from(root.readlink(join(deployment, entry.path)) ?? '', 'latin1')
        : root.read(join(deployment, entry.path));
    const actual = bytesIn(state);
    const wanted = entry.object ? root.read(`composefs/objects/${entry.object.path}`) : entry.content;
    const candidates = [wanted, ...others.map(bytesIn)];
    if (!actual || !candidates.some((candidate) => candidate?.equals(actual))) {
      return `${state}/${entry.path} differs from the image's`;
    }
  }
  return undefined;
}

/** For `image pull`: images the repository offers, each with what is wrong with it, if anything. */
export function repositoryImages(root: Files, algorithm: string): Map<string, string | undefined> {
  const images = new Map<string, string | undefined>();
  for (const digest of root.list('composefs/images') ?? []) {
    if (!/^[0-9a-f]{64}([0-9a-f]{64})?$/.test(digest)) continue;
    try {
      const entries = imageEntries(root, { algorithm, digest });
      images.set(digest, typeof entries === 'string' ? entries : undefined);
    } catch (error) {
      images.set(digest, error instanceof Error ? error.message : String(error));
    }
  }
  return images;
}

/** Objects whose content is not what their name says: what a command must not trust when it finds them. */
export function damagedObjects(root: Files, algorithm: string): string[] {
  const objects = 'composefs/objects';
  return (root.list(objects) ?? [])
    .flatMap((prefix) => (root.list(`${objects}/${prefix}`) ?? []).map((rest) => `${prefix}/${rest}`))
    .filter((path) => {
      const content = root.read(`${objects}/${path}`);
      return content !== undefined && verityHex(algorithm, content) !== path.replace('/', '');
    });
}
