/** Deployments as `readDeployments` gives them, made up. */

import type { FoundEntry } from '../../src/deploy/boot-entries.ts';
import type { Deployment, Deployments, DeploymentState } from '../../src/deploy/deployments.ts';
import type { Origin } from '../../src/deploy/origin.ts';
import { formatHostctlEntryName, parseEntryName } from '../../src/format/bls/name.ts';
import type { VerityDigest } from '../../src/tree/node.ts';

export interface DeploymentSpec {
  readonly id: number;
  readonly state?: DeploymentState;
  readonly broken?: boolean;
  readonly pinned?: boolean;
  /** Numbers of its entries, highest first; default its id alone. */
  readonly sequences?: readonly number[];
  /** Whether an entry of another tool starts it as well. */
  readonly foreign?: boolean;
}

export function digestOf(id: number): VerityDigest {
  return id.toString(16).padStart(128, '0') as VerityDigest;
}

export function deployment(spec: DeploymentSpec): Deployment {
  const { id, state = 'good', broken = false, pinned = false, sequences = [id], foreign = false } = spec;
  const digest = digestOf(id);
  const entries = sequences.map((sequence) => entryOf(digest, id, sequence, state));
  return {
    name: digest,
    id,
    origin: originOf(id),
    bootc: undefined,
    entries: foreign
      ? [...entries, { ...entryOf(digest, id, 1, state), file: 'other.conf', sequence: undefined }]
      : entries,
    onceEntries: [],
    stagedEntry: state === 'staged' ? entryOf(digest, id, id, 'trying') : undefined,
    state,
    triesLeft: state === 'trying' ? 3 : undefined,
    pinned,
    problems: broken ? [{ code: 'image-missing', message: 'The image is missing' }] : [],
    bootFailure: undefined,
    trial: undefined,
  };
}

/** Roles by id. */
export function deployments(
  list: readonly Deployment[],
  roles: { readonly booted?: number; readonly next?: number; readonly rollback?: number } = {},
): Deployments {
  const byId = (wanted: number | undefined): Deployment | undefined =>
    wanted === undefined ? undefined : list.find(({ id }) => id === wanted);
  const next = byId(roles.next);
  return {
    list,
    booted: byId(roles.booted),
    next,
    rollback: byId(roles.rollback),
    defaultEntry: next?.entries[0],
    entries: list.flatMap(({ entries }) => entries),
    staged: list.find(({ state }) => state === 'staged'),
    stagedRecord: undefined,
    warnings: [],
  };
}

export function originOf(id: number): Origin {
  return {
    id,
    digest: digestOf(id),
    parameters: { formatVersion: 1, algorithm: 'sha512', logBlockSize: 12 },
    verityRequired: true,
    reference: 'oci:/images/example',
    manifestDigest: `sha256:${'0'.repeat(64)}`,
    kernel: `kernel-${id}`,
    title: 'Example',
    version: undefined,
    created: undefined,
    kargs: { image: [], host: [], user: [], removed: [] },
    bound: [],
    securityVersion: 0,
    seal: undefined,
    signedBy: [],
  };
}

export function entryOf(digest: VerityDigest, id: number, sequence: number, state: DeploymentState): FoundEntry {
  const counter = { left: state === 'failed' ? 0 : 3, done: 0 };
  const file = formatHostctlEntryName(state === 'trying' || state === 'failed' ? { sequence, counter } : { sequence });
  const name = parseEntryName(file);
  if (name === undefined) throw new Error(file);
  const pinned = { parameters: originOf(id).parameters, digest, verityRequired: true };
  return {
    file,
    name,
    sequence,
    sortKey: 'hostctl',
    machineId: undefined,
    version: String(sequence),
    content: { fields: [] },
    linux: `/hostctl/kernel-${id}/linux`,
    initrd: [`/hostctl/kernel-${id}/initrd`],
    efi: undefined,
    kargs: [`composefs.digest=v1-sha512-12:${digest}`],
    pinned,
    stateName: digest,
    skipped: undefined,
    isOnce: false,
  };
}
