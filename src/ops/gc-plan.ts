/**
 * The plan of `gc`: one list of everything that goes, in the order in which it goes, boot partition first. The same
 * plan is printed by `--dry-run`, carried out by `gc` and `delete`, and made before anything is removed: what cannot
 * be read stops it here.
 */

import { planHostGarbage, type HostGarbage } from '../deploy/host-garbage.ts';
import type { HostSnapshot } from '../deploy/host-snapshot.ts';
import type { Deployment, Problem } from '../deploy/deployments.ts';
import { deploymentImage } from '../deploy/find-deployment.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { parseDigestArgument, splitCmdline } from '../format/cmdline.ts';
import {
  planRepositoryGarbage,
  readRepositorySnapshot,
  type ImageRoot,
  type RepositoryItem,
  type RepositorySnapshot,
} from '../store/collect.ts';
import { blobsOfImage } from '../store/blob-cache.ts';
import { lastUse, readableRecord } from '../store/image-record.ts';
import { readImageUse } from '../store/images.ts';
import { layerName } from '../store/layer-records.ts';
import { ownerOfRef } from './image-refs.ts';
import { staleMarks } from './install-marks.ts';
import { mountedImages } from '../store/mounted.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import type { VerityDigest } from '../tree/node.ts';

/** One thing that goes. */
export type GcItem =
  | EntryItem
  | ({ readonly place: 'boot'; readonly kind: 'inert-entry' | 'kernel' | 'temporary' } & Named)
  | ({ readonly place: 'state'; readonly kind: 'state' | 'pin' | 'temporary' } & Named)
  | ({ readonly place: 'repository' } & RepositoryItem);

/** A boot entry, which goes before what it names. */
export type EntryItem = { readonly place: 'boot'; readonly kind: 'entry' } & Named;

interface Named {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

export interface GcPlan {
  readonly items: readonly GcItem[];
  /** Ids of the deployments that go; null for one without. */
  readonly deployments: readonly (number | null)[];
  /** Why something stays that looks unused. */
  readonly notes: readonly Problem[];
}

export interface GcPlanOptions {
  readonly dropped: readonly Deployment[];
  /** Whether the refs of deployments in the repository are this sysroot's. */
  readonly ownsRepository: boolean;
  /** Whether an image that cannot be read only keeps the repository as it is, instead of stopping everything. */
  readonly toleratesDamage: boolean;
  /** Whether blobs stay in the cache that a deployment which stays was made from, for the next upgrade. */
  readonly keepsUsedBlobs: boolean;
}

/** Plans over both snapshots. Throws 'corrupt' when what a root needs cannot be told. */
export function planGc(
  host: Host,
  sysroot: Sysroot,
  repository: Repository | undefined,
  snapshot: HostSnapshot,
  options: GcPlanOptions,
): GcPlan {
  const garbage = planHostGarbage(snapshot, options.dropped);
  const inRepository = planRepository(host, sysroot, repository, snapshot, garbage, options);
  const boot = (kind: 'inert-entry' | 'kernel' | 'temporary') => boxed('boot', kind);
  const state = (kind: 'state' | 'pin' | 'temporary') => boxed('state', kind);
  const places = { root: sysroot.path, boot: sysroot.boot.path };
  return {
    items: [
      ...garbage.entries.map(({ file, path, bytes }) => ({
        place: 'boot' as const,
        kind: 'entry' as const,
        name: file,
        path,
        bytes,
      })),
      ...garbage.inert.map(boot('inert-entry')),
      ...garbage.kernels.map(boot('kernel')),
      ...[...garbage.bootTemporaries, ...staleMarks(places.boot, places)].map(boot('temporary')),
      ...garbage.states.map(state('state')),
      ...[...garbage.stateTemporaries, ...staleMarks(places.root, places)].map(state('temporary')),
      ...garbage.pins.map(state('pin')),
      ...inRepository.items.map((item) => ({ place: 'repository' as const, ...item })),
    ],
    deployments: garbage.deployments.map(({ id }) => id ?? null),
    notes: [...garbage.notes, ...inRepository.notes],
  };
}

function boxed<P extends string, K extends string>(place: P, kind: K) {
  return ({ name, path, bytes }: Named) => ({ place, kind, name, path, bytes });
}

function planRepository(
  host: Host,
  sysroot: Sysroot,
  repository: Repository | undefined,
  snapshot: HostSnapshot,
  garbage: HostGarbage,
  { ownsRepository, toleratesDamage, keepsUsedBlobs }: GcPlanOptions,
): { readonly items: readonly RepositoryItem[]; readonly notes: readonly Problem[] } {
  if (repository === undefined) {
    if (garbage.kept.length === 0) return { items: [], notes: [] };
    const error = new HostctlError('corrupt', `There is no repository at "${sysroot.repo}"; nothing was removed`, {
      hint: 'Name it with --repo DIR',
    });
    if (!toleratesDamage) throw error;
    return { items: [], notes: [{ code: error.code, message: error.message }] };
  }
  const stored = readRepositorySnapshot(host, repository);
  const isBlind = snapshot.unreadableEntries.length > 0 || !snapshot.isStagedKnown;
  const droppedRefs = ownsRepository && !isBlind ? refsOfGone(stored, garbage) : new Set<string>();
  const keptBlobs = new Set(keepsUsedBlobs ? usedBlobs(repository, garbage) : []);
  const choice = { droppedRefs, keptBlobs };
  try {
    return planRepositoryGarbage(repository, stored, imageRoots(host, sysroot, garbage), choice, {
      useOf: (digest) => readImageUse(repository, digest),
      baseOf: (digest) => readableRecord(repository, digest).parts?.base,
      layersOf: (digest) => readableRecord(repository, digest).layers.map(layerName),
      lastUse: (digest) => lastUse(repository, digest),
    });
  } catch (error) {
    if (!toleratesDamage || !isHostctlError(error)) throw error;
    return {
      items: stored.refs
        .filter(({ name }) => droppedRefs.has(name))
        .map(({ name }) => ({ kind: 'ref', name, path: `${repository.path}/images/refs/${name}`, bytes: 0 })),
      notes: [{ code: error.code, message: `${error.message}: no image and no object is removed` }],
    };
  }
}

/** Names of the blobs that the images of deployments which stay were made from. */
function usedBlobs({ path }: Repository, { kept }: HostGarbage): string[] {
  return kept.flatMap(({ origin }) => (origin === undefined ? [] : blobsOfImage(path, origin.manifestDigest)));
}

/** Refs of deployments that go or are gone. One whose origin is lost still owns whatever number has its image. */
function refsOfGone({ refs }: RepositorySnapshot, { kept }: HostGarbage): Set<string> {
  const unknown = new Set(kept.filter(({ origin }) => origin === undefined).map(deploymentImage));
  const owned = refs.map(({ name, digest }) => ({ name, digest, owner: ownerOfRef(name) }));
  const ids = new Set(kept.map(({ id }) => id));
  for (const { owner, digest } of owned) {
    if (owner?.kind === 'host' && digest !== undefined && unknown.has(digest)) ids.add(owner.id);
  }
  return new Set(
    owned
      .filter(({ owner }) => owner !== undefined && owner.kind !== 'name' && !ids.has(owner.id))
      .map(({ name }) => name),
  );
}

/** Everything outside the repository that keeps an image. Refs are roots too; the repository knows them itself. */
function imageRoots(host: Host, sysroot: Sysroot, { kept, entryImages }: HostGarbage): ImageRoot[] {
  const roots: ImageRoot[] = [];
  for (const deployment of kept) {
    const digest = deploymentImage(deployment);
    if (digest === undefined) continue;
    const isOurs = deployment.origin !== undefined || deployment.entries.some(({ sequence }) => sequence !== undefined);
    roots.push({ digest, needed: `deployment ${deployment.id ?? deployment.name}`, isOurs });
    for (const bound of deployment.origin?.bound ?? []) {
      roots.push({ digest: bound.digest, needed: `deployment ${deployment.id}, bound to it,`, isOurs: true });
    }
  }
  for (const { digest, file } of entryImages) roots.push({ digest, needed: `the boot entry "${file}"`, isOurs: false });
  for (const digest of runningImages(host, sysroot))
    roots.push({ digest, needed: 'the running system', isOurs: false });
  for (const [digest, places] of mountedImages(host)) {
    roots.push({ digest, needed: `the mount on "${[...places].join('", "')}"`, isOurs: false });
  }
  return roots;
}

function runningImages(host: Host, { isRunning }: Sysroot): VerityDigest[] {
  if (!isRunning) return [];
  return splitCmdline(host.kernelCmdline()).flatMap((arg) => {
    try {
      return parseDigestArgument(arg)?.digest ?? [];
    } catch (error) {
      // Another system's argument of the same name.
      if (isHostctlError(error)) return [];
      throw error;
    }
  });
}
