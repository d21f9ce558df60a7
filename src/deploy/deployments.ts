/**
 * What is deployed, read from three places that a crash or a person may have changed one by one: state directories,
 * boot entries, images. Every record is read for itself; what is broken or missing is a problem of that deployment and
 * never stops the others from being seen.
 */

import { HostctlError, isShortage } from '../errors.ts';
import { findDigestArguments, findKargs, splitCmdline } from '../format/cmdline.ts';
import { hasImage, linkTarget } from '../store/images.ts';
import { requireStoredSeal } from '../store/seals.ts';
import { openRepository, type Repository } from '../store/repository.ts';
import { isDirectory, listNames, readSmallText, TEMPORARY_NAME } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { isRegularFile } from '../sys/files.ts';
import { listEntries, type FoundEntry } from './boot-entries.ts';
import { readStagedEntry } from './publish-entry.ts';
import { readBootFailure } from './boot-failures.ts';
import { parseBootcOrigin, type BootcOrigin } from './bootc.ts';
import { fileOnBoot, type BootPartition } from './boot-partition.ts';
import { bootLoader, type BootLoader } from './loader.ts';
import { parseOrigin, type Origin } from './origin.ts';
import { readPins } from './pins.ts';
import { readStaged, type StagedRecord } from './staged.ts';
import { VAR_LINK } from './state.ts';
import type { Sysroot } from './sysroot.ts';
import { readTrial, type BootFailure, type Trial } from './trials.ts';

export type DeploymentState = 'good' | 'trying' | 'failed' | 'staged' | 'unknown';

export interface Problem {
  readonly code: string;
  readonly message: string;
}

export interface Deployment {
  /** Directory below `state/deploy`; for an entry without one, what it names. */
  readonly name: string;
  /** Undefined when its origin is lost and no entry tells it. */
  readonly id: number | undefined;
  readonly origin: Origin | undefined;
  /** That of a deployment which bootc made; it then has none of ours. */
  readonly bootc: BootcOrigin | undefined;
  /** Entries that boot it, highest sequence number first, but for those of one boot. */
  readonly entries: readonly FoundEntry[];
  /** Entries that boot it once, with other arguments. */
  readonly onceEntries: readonly FoundEntry[];
  /** The inert entry of a staged one. */
  readonly stagedEntry: FoundEntry | undefined;
  readonly state: DeploymentState;
  readonly triesLeft: number | undefined;
  /** Nothing drops it by itself. */
  readonly pinned: boolean;
  /** What is broken about it now. */
  readonly problems: readonly Problem[];
  /** Why it did not come up when it was last started, if it has not since. */
  readonly bootFailure: BootFailure | undefined;
  /** How its boots went as long as it has not been good. */
  readonly trial: Trial | undefined;
}

export interface Deployments {
  /** Highest id first; those without one last. */
  readonly list: readonly Deployment[];
  /** The deployment this machine runs, of a running sysroot. */
  readonly booted: Deployment | undefined;
  /** What the boot loader would start now; undefined when that is nothing of ours. */
  readonly next: Deployment | undefined;
  /** What `rollback` without an id goes to. */
  readonly rollback: Deployment | undefined;
  readonly defaultEntry: FoundEntry | undefined;
  /** Every entry, ours and foreign, in the order of systemd-boot's menu; also those that it leaves out. */
  readonly entries: readonly FoundEntry[];
  /** What becomes the default at the end of this boot. */
  readonly staged: Deployment | undefined;
  readonly stagedRecord: StagedRecord | undefined;
  readonly warnings: readonly Problem[];
}

/** Reads everything. Never throws for a broken record. */
export function readDeployments(host: Host, sysroot: Sysroot): Deployments {
  const warnings: Problem[] = [];
  const loader = bootLoader(host, sysroot);
  const repository = tolerant(() => openRepository(host, sysroot.repo), 'repository-unreadable', warnings);
  const listing = tolerant(() => listEntries(sysroot.boot), 'boot-unreadable', warnings);
  const entries = listing?.entries ?? [];
  for (const { file, message } of listing?.problems ?? []) {
    warnings.push({ code: 'entry-unreadable', message: `The boot entry "${file}" cannot be read: ${message}` });
  }
  for (const { file, sequence, skipped } of entries) {
    // What others make is theirs to look after.
    if (skipped === undefined || sequence === undefined) continue;
    warnings.push({
      code: 'entry-skipped',
      message: `The boot loader leaves out the boot entry "${file}": ${skipped}`,
    });
  }
  const pins = tolerant(() => readPins(sysroot), 'pins-unreadable', warnings) ?? new Set();
  const stagedRecord = tolerant(() => currentStaged(sysroot, entries), 'staged-unreadable', warnings);
  const names = new Set(stateNames(sysroot, warnings));
  if (stagedRecord !== undefined) names.add(stagedRecord.stateName);
  for (const { stateName } of entries) if (stateName !== undefined) names.add(stateName);
  const list = [...names]
    .map((name) =>
      readDeployment(sysroot, loader, {
        name,
        repository,
        entries: listing === undefined ? undefined : entries,
        staged: stagedRecord?.stateName === name ? stagedRecord : undefined,
      }),
    )
    .map((item) => ({ ...item, pinned: item.id !== undefined && pins.has(item.id) }))
    .sort((a, b) => (b.id ?? 0) - (a.id ?? 0) || (a.name < b.name ? -1 : 1));
  const defaultEntry = loader.defaultOf(entries);
  const byName = (name: string | undefined): Deployment | undefined => list.find((item) => item.name === name);
  const booted = sysroot.isRunning ? byName(bootedName(host)) : undefined;
  const next = byName(defaultEntry?.stateName);
  return {
    list,
    booted,
    next,
    rollback: rollbackTarget(list, next),
    defaultEntry,
    entries,
    staged: byName(stagedRecord?.stateName),
    stagedRecord,
    warnings,
  };
}

/**
 * Whose `/etc` and kernel arguments a new deployment goes on with. Where the loader can start nothing any more, that is
 * what would stand first in its menu if it could.
 */
export function baseDeployment({ booted, next, defaultEntry, entries, list }: Deployments): Deployment | undefined {
  if (booted !== undefined || next !== undefined || defaultEntry !== undefined) return booted ?? next;
  const first = entries.find(({ sequence }) => sequence !== undefined);
  return list.find(({ name }) => name === first?.stateName);
}

/** What boots a deployment by itself, or will once it is finalized; undefined where nothing does. */
export function entryOf({ entries, stagedEntry }: Pick<Deployment, 'entries' | 'stagedEntry'>): FoundEntry | undefined {
  return entries[0] ?? stagedEntry;
}

/** Where an entry with this number or a higher one has its name, the record is one that a crash left: it is done with. */
function currentStaged(sysroot: Sysroot, entries: readonly FoundEntry[]): StagedRecord | undefined {
  const record = readStaged(sysroot);
  return record === undefined || entries.some(({ sequence }) => (sequence ?? 0) >= record.id) ? undefined : record;
}

/** The origin of the deployment this machine runs, of a running sysroot. Nothing else is read. */
export function bootedOrigin(host: Host, { isRunning, deployments }: Sysroot): Origin | undefined {
  const name = isRunning ? bootedName(host) : undefined;
  return name === undefined ? undefined : findOrigin(`${deployments}/${name}`, name).origin;
}

/** The state directory the running kernel was told to use; undefined when hostctl did not boot it. */
function bootedName(host: Host): string | undefined {
  const args = splitCmdline(host.kernelCmdline());
  try {
    const [pinned] = findDigestArguments(args);
    return pinned === undefined ? undefined : (findKargs(args, 'hostctl.state').at(-1) ?? pinned.digest);
  } catch (error) {
    // Another system's argument of the same name: then we did not boot this.
    if (error instanceof HostctlError) return undefined;
    throw error;
  }
}

function stateNames(sysroot: Sysroot, warnings: Problem[]): string[] {
  const names = tolerant(() => listNames(sysroot.deployments), 'state-unreadable', warnings) ?? [];
  return names.filter((name) => !TEMPORARY_NAME.test(name));
}

interface Known {
  readonly name: string;
  readonly repository: Repository | undefined;
  /** Of all deployments; undefined when the boot partition cannot be read. */
  readonly entries: readonly FoundEntry[] | undefined;
  readonly staged: StagedRecord | undefined;
}

function readDeployment(
  sysroot: Sysroot,
  loader: BootLoader,
  { name, repository, entries: all, staged }: Known,
): Omit<Deployment, 'pinned'> {
  const problems: Problem[] = [];
  const directory = `${sysroot.deployments}/${name}`;
  const { origin, bootc } = tolerant(() => findOrigin(directory, name), 'origin-unreadable', problems) ?? {};
  const own = (all ?? [])
    .filter(({ stateName }) => stateName === name)
    .sort((a, b) => (b.sequence ?? 0) - (a.sequence ?? 0));
  const entries = own.filter(({ isOnce }) => !isOnce);
  const stagedEntry =
    staged === undefined
      ? undefined
      : tolerant(() => readStagedEntry(sysroot.boot, staged.entryFile)?.entry, 'staged-entry-unreadable', problems);
  const digest = origin?.digest ?? bootc?.digest ?? entryOf({ entries, stagedEntry })?.pinned?.digest;
  if (!isDirectory(directory)) problems.push({ code: 'state-missing', message: `"${directory}" is missing` });
  // That of a staged one is made anew where it is missing: killed in a second attempt, `finalize-staged` leaves none.
  else if (staged === undefined && !isDirectory(`${directory}/etc`)) {
    problems.push({ code: 'etc-missing', message: `"${directory}/etc" is missing` });
  }
  // Another tool's state directory is as that tool makes it.
  if (
    isDirectory(directory) &&
    bootc === undefined &&
    (origin !== undefined || own.some(({ sequence }) => sequence !== undefined))
  ) {
    if (origin === undefined && !problems.some(({ code }) => code === 'origin-unreadable')) {
      problems.push({ code: 'origin-missing', message: `"${directory}" has no origin` });
    }
    if (linkTarget(`${directory}/var`) !== VAR_LINK) {
      problems.push({ code: 'var-link-wrong', message: `"${directory}/var" does not lead to the shared /var` });
    }
  }
  if (digest !== undefined && (repository === undefined || !hasImage(repository, digest))) {
    problems.push({ code: 'image-missing', message: `The image ${digest} is not in "${sysroot.repo}"` });
  }
  for (const bound of origin?.bound ?? []) {
    if (repository !== undefined && hasImage(repository, bound.digest)) continue;
    const message = `The image ${bound.digest} of "${bound.reference}", which it is bound to, is not in "${sysroot.repo}"`;
    problems.push({ code: 'bound-image-missing', message });
  }
  if (origin?.seal !== undefined && repository !== undefined) {
    tolerant(() => requireStoredSeal(repository, origin.digest), 'seal-broken', problems);
  }
  if (all !== undefined && entries.length === 0 && stagedEntry === undefined && bootc?.isUki !== true) {
    const message = staged === undefined ? 'No boot entry starts it' : 'Its staged boot entry is missing';
    problems.push({ code: 'entry-missing', message });
  }
  for (const entry of stagedEntry === undefined ? entries : [...entries, stagedEntry])
    problems.push(...missingKernelFiles(sysroot.boot, entry));
  const trial = tolerant(() => readTrial(sysroot, name), 'trial-unreadable', problems);
  const refused =
    digest === undefined
      ? undefined
      : tolerant(() => readBootFailure(sysroot, digest), 'boot-failure-unreadable', problems);
  const sequences = entries.flatMap(({ sequence }) => sequence ?? []);
  return {
    name,
    id: origin?.id ?? staged?.id ?? (sequences.length > 0 ? Math.min(...sequences) : undefined),
    origin,
    bootc,
    entries,
    onceEntries: own.filter(({ isOnce }) => isOnce),
    stagedEntry,
    ...(staged !== undefined && entries.length === 0
      ? { state: 'staged' as const, triesLeft: undefined }
      : assess(entries, loader, trial)),
    problems,
    bootFailure: refused ?? trial?.failure,
    trial,
  };
}

interface FoundOrigin {
  readonly origin?: Origin;
  readonly bootc?: BootcOrigin;
}

function findOrigin(directory: string, name: string): FoundOrigin {
  for (const file of listNames(directory)) {
    if (!file.endsWith('.origin')) continue;
    const text = readSmallText(`${directory}/${file}`);
    if (text === undefined) continue;
    const bootc = parseBootcOrigin(name, text);
    return bootc === undefined ? { origin: parseOrigin(text) } : { bootc };
  }
  return {};
}

function missingKernelFiles(boot: BootPartition, entry: FoundEntry): Problem[] {
  const isMissing = (path: string): boolean => {
    const file = fileOnBoot(boot, path);
    return file !== undefined && !isRegularFile(file);
  };
  return [entry.linux, ...entry.initrd, entry.efi]
    .filter((path) => path !== undefined)
    .filter(isMissing)
    .map((path) => ({ code: 'kernel-missing', message: `"${path}" of the entry "${entry.file}" is missing` }));
}

/** One entry without counter has been good; a deployment that was good once stays so. */
function assess(
  entries: readonly FoundEntry[],
  loader: BootLoader,
  trial: Trial | undefined,
): { state: DeploymentState; triesLeft: number | undefined } {
  if (entries.length === 0) return { state: 'unknown', triesLeft: undefined };
  const counters = entries.map((entry) => loader.counterOf(entry));
  if (counters.includes(undefined)) return { state: 'good', triesLeft: undefined };
  const left = Math.max(...counters.map((counter) => counter?.left ?? 0));
  return { state: left > 0 && trial?.isFailed !== true ? 'trying' : 'failed', triesLeft: left };
}

/** The newest good deployment besides the one that would boot now. */
function rollbackTarget(list: readonly Deployment[], next: Deployment | undefined): Deployment | undefined {
  const rank = (item: Deployment): number => item.entries[0]?.sequence ?? 0;
  return list
    .filter((item) => item !== next && item.state === 'good' && (item.origin ?? item.bootc) !== undefined)
    .filter(({ problems }) => problems.length === 0)
    .sort((a, b) => rank(b) - rank(a))[0];
}

/** What `read` returns; where it throws, a problem of this code instead. Descriptors or memory running out are thrown. */
export function tolerant<T>(read: () => T, code: string, problems: Problem[]): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isShortage(error)) throw error;
    problems.push({ code, message: error instanceof Error ? error.message : String(error) });
    return undefined;
  }
}
