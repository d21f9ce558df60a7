/**
 * Takes one thing of a gc plan away, once no entry names it any more. Each is a commit section: synchronous, so that no
 * signal comes in between, and harmless when the power goes in the middle.
 */

import * as fs from 'node:fs';
import { removeKernelDirectory } from '../deploy/kernels.ts';
import { removeState } from '../deploy/state.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { clearTrial } from '../deploy/trials.ts';
import { assertNever, HostctlError } from '../errors.ts';
import { removeRepositoryItem } from '../store/collect.ts';
import type { Repository } from '../store/repository.ts';
import { fsyncPath, split } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { EntryItem, GcItem } from './gc-plan.ts';

/** The caller holds both locks. What the item names must be nobody's any more, durably. */
export function removeItem(
  host: Host,
  sysroot: Sysroot,
  repository: Repository | undefined,
  item: Exclude<GcItem, EntryItem>,
): void {
  host.log.debug(`Remove ${item.kind} "${item.path}"`);
  switch (item.place) {
    case 'boot':
      if (item.kind === 'kernel') removeKernelDirectory(sysroot.boot, item.name);
      else removeDurably(item.path);
      return;
    case 'state':
      if (item.kind === 'state') {
        removeState(sysroot, item.name);
        clearTrial(sysroot, item.name);
      } else removeDurably(item.path);
      return;
    case 'repository':
      if (repository === undefined) throw new HostctlError('internal', `No repository to remove "${item.path}" from`);
      removeRepositoryItem(host, repository, item);
      return;
    default:
      assertNever(item);
  }
}

function removeDurably(path: string): void {
  fs.rmSync(path, { recursive: true, force: true });
  fsyncPath(split(path).directory);
}
