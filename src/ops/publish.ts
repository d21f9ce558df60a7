/**
 * From an image in the repository to a deployment that boots next: state directory, ref, kernel, inert entry, then the
 * one rename. The order is the one that makes every prefix of it harmless; nothing before the rename changes what
 * boots, and everything before it is durable when it happens.
 */

import { commitEntry, highestSequence, withdrawEntry, writeInertEntry } from '../deploy/boot-entries.ts';
import { readDeployments, type Deployments } from '../deploy/deployments.ts';
import { buildCmdline } from '../deploy/kargs.ts';
import { planKernel, removeKernel, writeKernel, type KernelFiles } from '../deploy/kernels.ts';
import type { Origin } from '../deploy/origin.ts';
import { removeState, writeState } from '../deploy/state.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { sanitizeValue } from '../format/bls/entry.ts';
import { removeRef, setRef } from '../store/images.ts';
import type { Repository } from '../store/repository.ts';
import { exists } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { DirectoryNode, FileNode } from '../tree/node.ts';
import { withUndo } from './undo.ts';

/** All entries of ours carry the same, so that the sequence number alone decides among them. */
export const SORT_KEY = 'hostctl';

export interface NewDeployment {
  readonly origin: Omit<Origin, 'id' | 'kernel'>;
  readonly tree: DirectoryNode;
  readonly contentOf: (file: FileNode) => Iterable<Uint8Array>;
  readonly kernel: KernelFiles;
  readonly adjustEtc: (etc: string) => void;
  /** Tries before the boot loader gives up on it; 0 publishes it without a counter. */
  readonly tries: number;
}

export interface Published {
  readonly id: number;
  readonly stateName: string;
  readonly entryFile: string;
  readonly options: string;
  /** False where the boot partition's journal could not be written back: old kernels must stay for now. */
  readonly settled: boolean;
}

/** Name of the ref that keeps a deployment's image alive. */
export function deploymentRef(id: number): string {
  return `hostctl/${id}`;
}

/** The next unused sequence number: above every entry and every deployment. */
export function nextSequence(sysroot: Sysroot, deployments: Deployments): number {
  return deployments.list.reduce((highest, { id }) => Math.max(highest, id ?? 0), highestSequence(sysroot.boot)) + 1;
}

/** The caller holds the sysroot lock and the shared repository lock; the image is committed. */
export async function publishDeployment(
  host: Host,
  sysroot: Sysroot,
  repository: Repository,
  deployment: NewDeployment,
): Promise<Published> {
  const { digest } = deployment.origin;
  const id = nextSequence(sysroot, readDeployments(host, sysroot));
  const stateName = exists(`${sysroot.deployments}/${digest}`) ? `${digest}.${id}` : digest;
  const counted = deployment.tries > 0;
  const options = buildCmdline({
    pinned: { parameters: deployment.origin.parameters, digest, verityRequired: deployment.origin.verityRequired },
    stateName,
    counted,
    imageKargs: deployment.origin.imageKargs,
    userKargs: deployment.origin.userKargs,
    machine: host.machine,
  });
  return withUndo(host.log, async (undo) => {
    const kernel = planKernel(sysroot.boot, deployment.kernel);
    undo.add('remove the state directory again', () => removeState(sysroot, stateName));
    writeState(host, sysroot, {
      name: stateName,
      origin: { ...deployment.origin, id, kernel: kernel.directory },
      tree: deployment.tree,
      contentOf: deployment.contentOf,
      adjustEtc: deployment.adjustEtc,
    });
    undo.add('remove the ref again', () => removeRef(repository, deploymentRef(id)));
    setRef(repository, deploymentRef(id), digest);
    stopIfAborted(host);
    undo.add('remove the kernel again', () => removeKernel(sysroot.boot, kernel));
    writeKernel(sysroot.boot, kernel);
    stopIfAborted(host);
    const inert = await writeInertEntry(host, sysroot.boot, {
      sequence: id,
      counter: counted ? { left: deployment.tries, done: 0 } : undefined,
      title: sanitizeValue(deployment.origin.title) ?? 'Linux',
      sortKey: SORT_KEY,
      linuxPath: kernel.linuxPath,
      initrdPath: kernel.initrdPath,
      options,
    });
    undo.add('withdraw the boot entry', () => withdrawEntry(sysroot.boot, inert));
    stopIfAborted(host);
    const settled = await commitEntry(host, sysroot.boot, inert);
    return { id, stateName, entryFile: inert.file, options, settled };
  });
}

/** Between steps, never inside one. */
export function stopIfAborted(host: Host): void {
  if (host.signal.aborted) throw new HostctlError('interrupted', 'Stopped; nothing was changed');
}

/** Throws 'not-root' unless the command runs with the rights it needs. */
export function requireRoot(host: Host, doing: string): void {
  if (!host.isRoot) throw new HostctlError('not-root', `Only root can ${doing}`, { hint: 'Run it with sudo' });
}
