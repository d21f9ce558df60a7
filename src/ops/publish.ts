/**
 * From an image in the repository to a deployment: seal, state directory, ref, kernel, inert entry, and then the one
 * rename that makes it boot next, or the record that has it finalized at shutdown. The order is the one that makes every
 * prefix of it harmless; nothing before the last step changes what boots, and everything before it is durable when it
 * happens.
 */

import { highestSequence, type FoundEntry } from '../deploy/boot-entries.ts';
import { commitEntry, withdrawEntry, writeInertEntry } from '../deploy/publish-entry.ts';
import { readDeployments, type Deployments } from '../deploy/deployments.ts';
import { addHistory, highestEvent } from '../deploy/history.ts';
import { buildCmdline } from '../deploy/kargs.ts';
import { planKernel, removeKernel, writeKernel, type KernelFiles } from '../deploy/kernels.ts';
import { triesFor } from '../deploy/loader.ts';
import type { Origin } from '../deploy/origin.ts';
import { readPins } from '../deploy/pins.ts';
import { ifSound } from '../deploy/records.ts';
import { clearStaged, writeStaged } from '../deploy/staged.ts';
import { removeSharedVar, removeState, writeState } from '../deploy/state.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { clearTrial } from '../deploy/trials.ts';
import { HostctlError } from '../errors.ts';
import { sanitizeValue } from '../format/bls/entry.ts';
import { joinCmdline } from '../format/cmdline.ts';
import { setRef } from '../store/images.ts';
import type { Repository } from '../store/repository.ts';
import { readSigned, removeSigned, writeSigned, type SealFiles } from '../store/seals.ts';
import { exists } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, FileNode, VerityDigest } from '../tree/node.ts';
import { removeDeploymentRefs } from './bound-images.ts';
import { refsOfOrigin } from './image-refs.ts';
import { withUndo } from './undo.ts';
import { leftoverState } from './unified-kernel.ts';

const SORT_KEY = 'hostctl';
/** Before those of bootc's entries. */
const FIRST_SORT_KEY = '0-hostctl';

/**
 * What new entries carry. All of ours have the same, so that the sequence number alone decides among them; but where
 * bootc made entries that systemd-boot would prefer to that, ours have one that comes first from then on.
 */
export function sortKeyOn({ entries, list }: Deployments): string {
  const isEarly = ({ sequence, sortKey = '' }: FoundEntry): boolean =>
    sequence === undefined ? sortKey !== '' && sortKey < SORT_KEY : sortKey === FIRST_SORT_KEY;
  const ofBootc = list.filter(({ bootc }) => bootc !== undefined).flatMap((item) => item.entries);
  const own = entries.filter(({ sequence }) => sequence !== undefined);
  return [...own, ...ofBootc].some(isEarly) ? FIRST_SORT_KEY : SORT_KEY;
}

export interface NewDeployment {
  readonly origin: Omit<Origin, 'id' | 'kernel'>;
  /** Undefined for an image without one, or whose seal is there already. */
  readonly seal: SealFiles | undefined;
  readonly tree: DirectoryNode;
  readonly contentOf: (file: FileNode) => Iterable<Uint8Array>;
  readonly kernel: KernelFiles;
  readonly adjustEtc: (etc: string) => void;
  /** Tries before the boot loader gives up on it; 0 publishes it without a counter. */
  readonly tries: number;
  /** The verb, for the history. */
  readonly action: string;
  readonly mode: PublishMode;
}

/** `publish`: boots next. `stage`: boots next once this boot has ended; `stage-locked`: once it is asked for. */
export type PublishMode = 'publish' | 'stage' | 'stage-locked';

export interface Published {
  readonly id: number;
  readonly stateName: string;
  readonly entryFile: string;
  readonly options: string;
  /** False where the boot partition's journal could not be written back: old kernels must stay for now. */
  readonly settled: boolean;
}

/** The next unused sequence number: above every entry, every deployment, and what the history remembers. */
export function nextSequence(sysroot: Sysroot, { list }: Deployments): number {
  // A pin that outlived its deployment must not hold another one.
  const known = [...list.map(({ id }) => id ?? 0), ...readPins(sysroot)];
  return Math.max(highestSequence(sysroot.boot), highestEvent(sysroot), ...known) + 1;
}

/**
 * The caller holds the sysroot lock and the shared repository lock; the image is committed. What was staged before is
 * of no effect any more when this returns: the caller drops it.
 */
export async function publishDeployment(
  host: Host,
  sysroot: Sysroot,
  repository: Repository,
  deployment: NewDeployment,
): Promise<Published> {
  const { digest } = deployment.origin;
  const deployments = readDeployments(host, sysroot);
  const id = nextSequence(sysroot, deployments);
  const { kernel: files } = deployment;
  const isTaken = exists(`${sysroot.deployments}/${digest}`);
  const stateName = isTaken && files.kind === 'split' ? `${digest}.${id}` : digest;
  const tries = triesFor(sysroot, deployment.tries);
  const counted = tries > 0;
  const { parameters, verityRequired, kargs } = deployment.origin;
  const options =
    files.kind === 'unified'
      ? joinCmdline(files.kargs)
      : buildCmdline({ pinned: { parameters, digest, verityRequired }, stateName, counted, kargs }, host.machine);
  return withUndo(host.log, async (undo) => {
    const kernel = planKernel(sysroot.boot, files);
    if (isTaken && files.kind === 'unified') removeLeftover(host, sysroot, digest);
    const origin: Origin = { ...deployment.origin, id, kernel: kernel.directory };
    if (deployment.seal !== undefined) {
      // A seal that another deployment of the image has is replaced by one that is as good for it.
      if (ifSound(() => readSigned(repository, digest)) === undefined) {
        undo.add('remove the seal again', () => removeSigned(repository, digest));
      }
      writeSigned(repository, digest, deployment.seal);
    }
    if (!exists(sysroot.sharedVar)) {
      // It is filled from the first image that is deployed, which this one then was not.
      undo.add('remove the shared /var again', () => removeSharedVar(sysroot));
    }
    undo.add('remove the state directory again', () => removeState(sysroot, stateName));
    // One that was removed by half may have left it.
    clearTrial(sysroot, stateName);
    writeState(host, sysroot, {
      name: stateName,
      origin,
      tree: deployment.tree,
      contentOf: deployment.contentOf,
      adjustEtc: deployment.adjustEtc,
    });
    undo.add('remove the refs again', () => removeDeploymentRefs(repository, id));
    for (const [ref, image] of refsOfOrigin(origin)) setRef(repository, ref, image);
    stopIfAborted(host);
    undo.add('remove the kernel again', () => removeKernel(sysroot.boot, kernel));
    writeKernel(sysroot.boot, kernel);
    stopIfAborted(host);
    const isStaged = deployment.mode !== 'publish';
    const inert = await writeInertEntry(
      host,
      sysroot.boot,
      {
        sequence: id,
        counter: counted ? { left: tries, done: 0 } : undefined,
        title: sanitizeValue(deployment.origin.title) ?? 'Linux',
        sortKey: sortKeyOn(deployments),
        program: kernel.program,
        options,
      },
      isStaged ? '.staged' : '.tmp',
    );
    undo.add('withdraw the boot entry', () => withdrawEntry(sysroot.boot, inert));
    stopIfAborted(host);
    if (isStaged) {
      const isLocked = deployment.mode === 'stage-locked';
      undo.add('put the staged record back', () => {
        if (deployments.stagedRecord === undefined) clearStaged(sysroot);
        else writeStaged(sysroot, deployments.stagedRecord);
      });
      writeStaged(sysroot, { id, stateName, entryFile: inert.file, action: deployment.action, isLocked });
      return { id, stateName, entryFile: inert.file, options, settled: true };
    }
    const settled = await commitEntry(host, sysroot.boot, inert);
    recordTransition(host, sysroot, { sequence: id, action: deployment.action }, origin);
    return { id, stateName, entryFile: inert.file, options, settled };
  });
}

/** What a command that died left of a deployment by a unified kernel image, which can have no other state directory. */
function removeLeftover(host: Host, sysroot: Sysroot, digest: VerityDigest): void {
  const there = leftoverState(host, sysroot, digest);
  if (there === undefined) {
    throw new HostctlError('state-invalid', `"${sysroot.deployments}/${digest}" is in the way`);
  }
  removeState(sysroot, there.name);
}

/** Of an origin, what the history remembers. */
export type Recorded = Parameters<typeof addHistory>[2];

/** Notes what was done. */
export function recordTransition(
  host: Host,
  sysroot: Sysroot,
  event: { readonly sequence: number; readonly action: string },
  origin: Recorded,
): void {
  afterCommit(host, 'write the history', () => {
    addHistory(sysroot, { ...event, time: host.now().toISOString() }, origin);
  });
}

/** A step after the change itself is durable: it stands whatever becomes of this, so a failure is only told. */
export function afterCommit<T>(host: Host, what: string, step: () => T): T | undefined {
  try {
    return step();
  } catch (error) {
    return tell(host, what, error);
  }
}

/** The same for a step that waits. */
export async function afterCommitAsync<T>(host: Host, what: string, step: () => Promise<T>): Promise<T | undefined> {
  try {
    return await step();
  } catch (error) {
    return tell(host, what, error);
  }
}

function tell(host: Host, what: string, error: unknown): undefined {
  host.log.warn(`Could not ${what}: ${error instanceof Error ? error.message : String(error)}`);
  return undefined;
}

/** Between steps, never inside one. */
export function stopIfAborted(host: Host): void {
  if (host.signal.aborted) throw new HostctlError('interrupted', 'Stopped; nothing was changed');
}

/** Throws 'read-only' unless entries can be written. */
export function checkBoot({ boot }: Sysroot): void {
  if (!boot.isReadOnly) return;
  throw new HostctlError('read-only', `The boot partition at "${boot.path}" is read-only`, {
    hint: 'Remount it writable, or name another place with --boot DIR',
  });
}
