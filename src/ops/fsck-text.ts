/**
 * The small text files of ours, against the checksum each was written with: entries, origins, records of the host and of
 * images. A changed bit in one of them can leave a file that reads well and says something else.
 */

import type { Deployment, Deployments } from '../deploy/deployments.ts';
import { entryPath, type FoundEntry } from '../deploy/boot-entries.ts';
import { originFile } from '../deploy/origin.ts';
import { recordNames } from '../deploy/records.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { hasChecksum } from '../format/checksum.ts';
import { imageRecordPath } from '../store/image-record.ts';
import { listImages } from '../store/images.ts';
import type { Repository } from '../store/repository.ts';
import { readSmallText } from '../sys/files.ts';
import type { Finding } from './fsck-host.ts';

interface TextFile {
  readonly code: string;
  readonly path: string;
  /** For people: "The boot entry …". */
  readonly what: string;
  readonly deployment?: Deployment;
  /** It belongs to something else than what its name says. */
  readonly isMisplaced?: boolean;
}

/** Files that are there and are not as they were written; those that cannot be read at all are told elsewhere. */
export function checkTextFiles(
  sysroot: Sysroot,
  repository: Repository | undefined,
  { list, entries }: Deployments,
): Finding[] {
  const files = [
    ...entries.flatMap((entry) => entryFiles(sysroot, entry, list)),
    ...list.flatMap((item) => originFiles(sysroot, item)),
    ...recordNames(sysroot).map((name) => recordFile(`${sysroot.hostState}/${name}`)),
    ...(repository === undefined
      ? []
      : listImages(repository).map((digest) => imageRecordPath(repository, digest))
    ).map(recordFile),
  ];
  return files.flatMap(({ code, path, what, deployment, isMisplaced }) => {
    const text = readSmallText(path);
    if (text === undefined || (hasChecksum(text) && isMisplaced !== true)) return [];
    const message = `${what} "${path}" is not as hostctl wrote it`;
    const deployments = deployment === undefined ? [] : [deployment.id ?? null];
    return [{ code, object: path, message, deployments, isCorrupt: true }];
  });
}

function entryFiles({ boot }: Sysroot, entry: FoundEntry, list: readonly Deployment[]): TextFile[] {
  const { file, sequence, version, stateName } = entry;
  if (sequence === undefined) return [];
  const deployment = list.find(({ name }) => name === stateName);
  return [
    {
      code: 'entry-altered',
      path: entryPath(boot, file),
      what: 'The boot entry',
      isMisplaced: version !== String(sequence),
      ...(deployment === undefined ? {} : { deployment }),
    },
  ];
}

function originFiles({ deployments }: Sysroot, deployment: Deployment): TextFile[] {
  const { name, origin } = deployment;
  if (origin === undefined) return [];
  const [digest] = name.split('.');
  const path = `${deployments}/${name}/${originFile(origin.digest)}`;
  return [{ code: 'origin-altered', path, what: 'The origin', deployment, isMisplaced: origin.digest !== digest }];
}

function recordFile(path: string): TextFile {
  return { code: 'record-altered', path, what: 'The record' };
}
