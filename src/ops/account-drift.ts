/**
 * Users and groups that have other numbers in a new image than on this host. Files keep numbers, not names: those in
 * `/var` have this host's, those in `/usr` the image's, and after the merge of `/etc` only one of the two holds.
 */

import { findIdDrift, type AccountFiles, type IdDrift } from '../deploy/id-drift.ts';
import type { EtcMergePlan } from '../deploy/etc-merge.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import { errnoOf, isHostctlError } from '../errors.ts';
import type { Repository } from '../store/repository.ts';
import { readSmallText } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import { lookup } from '../tree/lookup.ts';
import type { DirectoryNode } from '../tree/node.ts';

export interface AccountDrift extends IdDrift {
  /** Which number holds in the new deployment. */
  readonly holds: 'old' | 'new';
  readonly message: string;
}

interface Sides {
  readonly live: string;
  readonly next: DirectoryNode;
  readonly merge: EtcMergePlan;
}

const MAX_BYTES = 1 << 20;
const FILE_OF = { user: 'passwd', group: 'group' } as const;

/** A file that cannot be read is no reason to keep a host from being updated: then there is a warning instead. */
export function accountDrift(host: Host, repository: Repository, { live, next, merge }: Sides): AccountDrift[] {
  try {
    const before = accounts((name) => readSmallText(`${live}/${name}`, MAX_BYTES));
    const after = accounts((name) => textIn(repository, next, name));
    return findIdDrift(before, after).map((drift) => {
      const isLocal = merge.changes.some(({ path }) => path === FILE_OF[drift.kind]);
      return { ...drift, holds: isLocal ? 'old' : 'new', message: messageOf(drift, isLocal) };
    });
  } catch (error) {
    if (!isHostctlError(error) && errnoOf(error) === undefined) throw error;
    host.log.warn(`Cannot compare users and groups with those of the new image: ${(error as Error).message}`);
    return [];
  }
}

function messageOf({ kind, name, oldId, newId }: IdDrift, isLocal: boolean): string {
  const what = `The ${kind} "${name}" has the number ${oldId} here and ${newId} in the new image`;
  return isLocal
    ? `${what}: "/etc/${FILE_OF[kind]}" is changed locally, so ${oldId} holds, and files of the image keep ${newId}`
    : `${what}: ${newId} holds, and files in /var keep ${oldId}`;
}

function accounts(read: (name: 'passwd' | 'group') => string | undefined): AccountFiles {
  return { passwd: read('passwd') ?? '', group: read('group') ?? '' };
}

function textIn(repository: Repository, directory: DirectoryNode, name: string): string | undefined {
  const node = lookup(directory, name);
  if (node?.kind !== 'file') return undefined;
  const { content } = node;
  if (content.kind === 'external' && content.size > MAX_BYTES) return undefined;
  const pieces = [...repositoryContent(repository)(node)].map((piece) => Uint8Array.from(piece));
  return Buffer.concat(pieces).toString('utf8');
}
