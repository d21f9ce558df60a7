/**
 * `gc`: drops deployments beyond the retention policy and removes what nothing needs any more, boot partition first,
 * each thing in the reverse order of its making. Killed at any point it leaves a valid host, and the next run goes on.
 */

import { removeEntries } from '../deploy/publish-entry.ts';
import { readHostSnapshot, type HostSnapshot } from '../deploy/host-snapshot.ts';
import type { Deployment, Problem } from '../deploy/deployments.ts';
import { planRetention } from '../deploy/retention.ts';
import { openSysroot, withSysrootLock, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { clearWaiting, readWaiting, writeWaiting } from '../deploy/waiting.ts';
import { HostctlError } from '../errors.ts';
import { openRepository, withRepositoryLock, type Repository } from '../store/repository.ts';
import { deviceOf } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { planGc, type EntryItem, type GcItem } from './gc-plan.ts';
import { removeItem } from './gc-remove.ts';
import { requireRoot } from './require-root.ts';

export interface GcOptions extends SysrootOptions {
  /** How many deployments stay. */
  readonly keep: number;
  readonly dryRun: boolean;
}

export interface GcResult {
  /** True when nothing was removed and `items` is what would go. */
  readonly dryRun: boolean;
  /** Ids of the deployments that went. */
  readonly deployments: readonly (number | null)[];
  readonly items: readonly GcItem[];
  /** What waits for the next boot, since the boot loader may still see the entries that went. */
  readonly waiting: readonly GcItem[];
  readonly freed: readonly { readonly fileSystem: string; readonly bytes: number }[];
  readonly notes: readonly Problem[];
}

export function gc(host: Host, options: GcOptions): Promise<GcResult> {
  requireRoot(host, 'collect garbage');
  const sysroot = openSysroot(host, options);
  return withSysrootLock(host, sysroot, () =>
    collectGarbage(host, sysroot, byRetention(options, options.dryRun, false)),
  );
}

/**
 * Drops the deployments beyond `keep` after a new one was published, and everything that nothing needs any more. The
 * caller holds the sysroot lock and not the repository's. What was published stands: nothing here fails the command.
 */
export async function pruneDeployments(
  host: Host,
  sysroot: Sysroot,
  options: SysrootOptions & { readonly keep: number },
): Promise<GcResult | undefined> {
  try {
    return await collectGarbage(host, sysroot, byRetention(options, false, true));
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    host.log.warn(`Old deployments were not cleaned up: ${error.message}`);
    return undefined;
  }
}

/** What goes by the policy alone. */
function byRetention(
  options: SysrootOptions & { readonly keep: number },
  dryRun: boolean,
  keepsUsedBlobs: boolean,
): CollectOptions {
  return {
    choose: ({ deployments }) => planRetention(deployments, options),
    dryRun,
    isBootNamed: options.boot !== undefined,
    ownsRepository: options.repo === undefined,
    toleratesDamage: false,
    keepsUsedBlobs,
    isBootOnly: false,
  };
}

export interface CollectOptions {
  /** Which deployments go although they are whole; may refuse. */
  readonly choose: (snapshot: HostSnapshot) => readonly Deployment[];
  readonly dryRun: boolean;
  readonly isBootNamed: boolean;
  readonly ownsRepository: boolean;
  readonly toleratesDamage: boolean;
  /** Whether blobs stay in the cache that a deployment which stays was made from. */
  readonly keepsUsedBlobs: boolean;
  /** Leaves `state/` and the repository as they are. */
  readonly isBootOnly: boolean;
}

/** Plans and, unless it is a dry run, removes. The caller holds the sysroot lock. */
export async function collectGarbage(host: Host, sysroot: Sysroot, options: CollectOptions): Promise<GcResult> {
  const repository = options.isBootOnly ? undefined : openRepository(host, sysroot.repo);
  const collect = (): Promise<GcResult> => collectLocked(host, sysroot, repository, options);
  if (repository === undefined) return collect();
  return withRepositoryLock(host, repository.path, options.dryRun ? 'shared' : 'exclusive', collect);
}

async function collectLocked(
  host: Host,
  sysroot: Sysroot,
  repository: Repository | undefined,
  options: CollectOptions,
): Promise<GcResult> {
  const remove = (items: readonly Exclude<GcItem, EntryItem>[]): void => {
    for (const item of items) {
      stopBetweenItems(host);
      removeItem(host, sysroot, repository, item);
    }
  };
  const waited = options.dryRun ? [] : planWaited(host, sysroot, repository, options);
  remove(waited);
  if (waited.length > 0) clearWaiting(sysroot);
  const snapshot = readHostSnapshot(host, sysroot, options.isBootNamed);
  const {
    items: all,
    deployments,
    notes,
  } = planGc(host, sysroot, repository, snapshot, { ...options, dropped: options.choose(snapshot) });
  const items = all.filter(({ place }) => isWanted(place, options));
  const result = (gone: readonly GcItem[], waiting: readonly GcItem[]): GcResult => ({
    dryRun: options.dryRun,
    deployments,
    items: [...waited, ...gone],
    waiting,
    freed: freedBy(sysroot, [...waited, ...gone]),
    notes,
  });
  if (options.dryRun || items.length === 0) return result(items, []);
  const entries = items.filter(isEntry);
  const others = items.filter((item) => !isEntry(item));
  stopBetweenItems(host);
  for (const { path } of entries) host.log.debug(`Remove entry "${path}"`);
  // Also when no entry goes now: a run that was killed may have removed one and no more.
  const isSettled = await removeEntries(
    host,
    sysroot.boot,
    entries.map(({ name }) => name),
  );
  if (!isSettled && others.length > 0) {
    writeWaiting(sysroot, host.bootId());
    return result(entries, others);
  }
  remove(others);
  clearWaiting(sysroot);
  return result(items, []);
}

/** What an earlier run left until the next boot, if that has been; entries that go now start anew. */
function planWaited(
  host: Host,
  sysroot: Sysroot,
  repository: Repository | undefined,
  options: CollectOptions,
): readonly Exclude<GcItem, EntryItem>[] {
  const waitsFor = readWaiting(sysroot);
  if (waitsFor === undefined || waitsFor === host.bootId()) return [];
  const snapshot = readHostSnapshot(host, sysroot, options.isBootNamed);
  const { items } = planGc(host, sysroot, repository, snapshot, { ...options, dropped: [] });
  return items.filter((item) => !isEntry(item)).filter(({ place }) => isWanted(place, options));
}

function isEntry(item: GcItem): item is EntryItem {
  return item.place === 'boot' && item.kind === 'entry';
}

function isWanted(place: GcItem['place'], { isBootOnly }: CollectOptions): boolean {
  return place === 'boot' || !isBootOnly;
}

function stopBetweenItems(host: Host): void {
  if (!host.signal.aborted) return;
  throw new HostctlError('interrupted', 'Stopped; what was removed so far is gone, and the next run goes on');
}

/** Bytes by file system, each named by the first of our places on it. */
function freedBy({ boot, path, repo }: Sysroot, items: readonly GcItem[]): GcResult['freed'] {
  const places: Record<GcItem['place'], string> = { boot: boot.path, state: path, repository: repo };
  const freed = new Map<number, { fileSystem: string; bytes: number }>();
  for (const { place, bytes } of items) {
    const device = deviceOf(places[place]);
    const sum = freed.get(device) ?? { fileSystem: places[place], bytes: 0 };
    freed.set(device, { ...sum, bytes: sum.bytes + bytes });
  }
  return [...freed.values()];
}
