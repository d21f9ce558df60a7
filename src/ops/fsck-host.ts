/** What `fsck` finds beside the repository: state directories, origins, entries, kernels and refs. Reading only. */

import { listEntries, type FoundEntry } from '../deploy/boot-entries.ts';
import type { Deployment, Deployments } from '../deploy/deployments.ts';
import { checkKernelDirectory, KERNELS } from '../deploy/kernels.ts';
import { protectedDeployments } from '../deploy/retention.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { isPlainRepoMeta } from '../format/repo-meta.ts';
import { parseHostctlEntryName } from '../format/bls/name.ts';
import { listRefs } from '../store/images.ts';
import type { ObjectFinding } from '../store/check.ts';
import { damagedLayerRecords } from '../store/layer-records.ts';
import type { ImageUse } from '../store/usage.ts';
import type { Repository } from '../store/repository.ts';
import { isDirectory, readSmallText } from '../sys/files.ts';
import { checkTextFiles } from './fsck-text.ts';
import { refsOfOrigin } from './image-refs.ts';

export interface Finding {
  readonly code: string;
  /** Path, digest or file name of what is damaged. */
  readonly object: string;
  readonly message: string;
  /** Ids of the deployments that need it; null for one without. */
  readonly deployments: readonly (number | null)[];
  /** False for what is only worth knowing: it is no corruption and changes no exit status. */
  readonly isCorrupt: boolean;
}

/** No damage, but what a command left that was cut off. */
const HARMLESS = 'entry-missing';
/** Said by more exact findings of the kernel directories. */
const TOLD_ELSEWHERE = new Set(['kernel-missing']);

/** Everything one look found. */
export interface Look {
  readonly deployments: Deployments;
  readonly objects: readonly ObjectFinding[];
  readonly findings: readonly Finding[];
  readonly images: readonly ImageUse[];
}

export function checkHost(sysroot: Sysroot, repository: Repository | undefined, found: Deployments): Finding[] {
  const held = protectedDeployments(found);
  return [
    ...found.list.flatMap((item) => checkDeployment(sysroot, repository, item, held.has(item))),
    ...checkKernels(sysroot, found),
    ...checkEntryFiles(sysroot),
    ...checkTextFiles(sysroot, repository, found),
    ...checkDescription(sysroot, repository),
    ...found.warnings
      .filter(({ code }) => code !== 'entry-unreadable')
      .map(({ code, message }) => ({ code, object: code, message, deployments: [], isCorrupt: true })),
  ];
}

/** What `--repair` removes: the layer itself says the same. */
export const LAYER_RECORD_ALTERED = 'layer-record-altered';

/** Records of layers, every byte of each. */
export function checkLayerRecords(repository: Repository): Finding[] {
  return damagedLayerRecords(repository).map((path) => ({
    code: LAYER_RECORD_ALTERED,
    object: path,
    message: `The record of a layer "${path}" is not as hostctl wrote it`,
    deployments: [],
    isCorrupt: true,
  }));
}

/** What the repository says of itself; a text that cannot be read is a warning of the deployments. */
function checkDescription({ repo }: Sysroot, repository: Repository | undefined): Finding[] {
  const path = `${repo}/meta.json`;
  const finding = { object: path, deployments: [] };
  const text = readSmallText(path);
  if (text === undefined && isDirectory(`${repo}/objects`)) {
    const message = `The repository "${repo}" has lost its "meta.json"`;
    return [{ ...finding, code: 'description-missing', message, isCorrupt: true }];
  }
  if (text === undefined || repository === undefined || isPlainRepoMeta(text)) return [];
  const message = `"${path}" says something that hostctl does not know, or is damaged`;
  return [{ ...finding, code: 'description-unknown', message, isCorrupt: false }];
}

/** Kernel directories that an entry names and that are not what their name says, with the deployments they start. */
export function damagedKernels(sysroot: Sysroot, { list }: Deployments): Map<string, Deployment[]> {
  const users = new Map<string, Deployment[]>();
  for (const item of list) {
    for (const entry of item.entries) {
      const directory = kernelDirectoryOf(sysroot, entry);
      if (directory === undefined || users.get(directory)?.includes(item) === true) continue;
      users.set(directory, [...(users.get(directory) ?? []), item]);
    }
  }
  return new Map([...users].filter(([directory]) => checkKernelDirectory(sysroot.boot, directory) !== undefined));
}

/** Name of the directory below `hostctl` of an entry's kernel; undefined when it is not one of ours. */
export function kernelDirectoryOf({ boot }: Sysroot, { linux, efi }: FoundEntry): string | undefined {
  const program = linux ?? efi ?? '';
  const prefix = `${boot.prefix}/${KERNELS}/`;
  const match = program.startsWith(prefix) ? /^([^/]+)\/(?:linux|uki\.efi)$/.exec(program.slice(prefix.length)) : null;
  return match?.[1];
}

/** What nothing starts and nothing holds back is for gc: what it lacks is no damage. */
function checkDeployment(
  sysroot: Sysroot,
  repository: Repository | undefined,
  item: Deployment,
  isHeld: boolean,
): Finding[] {
  const directory = `${sysroot.deployments}/${item.name}`;
  const deployments = [item.id ?? null];
  const isLeft = !isHeld && item.problems.some(({ code }) => code === HARMLESS);
  const findings: Finding[] = item.problems
    .filter(({ code }) => !TOLD_ELSEWHERE.has(code))
    .map(({ code, message }) => ({
      code,
      object: directory,
      message,
      deployments,
      isCorrupt: !isLeft && code !== HARMLESS,
    }));
  if (item.origin !== undefined && repository !== undefined && item.entries.length > 0) {
    const refs = listRefs(repository);
    for (const [name, digest] of refsOfOrigin(item.origin)) {
      if (refs.get(name) === digest) continue;
      findings.push({
        code: 'ref-missing',
        object: name,
        message: `The ref "${name}" does not name the image of deployment ${item.origin.id}`,
        deployments,
        isCorrupt: true,
      });
    }
  }
  return findings;
}

function checkKernels(sysroot: Sysroot, found: Deployments): Finding[] {
  return [...damagedKernels(sysroot, found)].map(([directory, users]) => {
    const path = `${sysroot.boot.path}/${KERNELS}/${directory}`;
    return {
      code: 'kernel-corrupt',
      object: path,
      message: `"${path}" is damaged: ${checkKernelDirectory(sysroot.boot, directory) ?? 'it was a moment ago'}`,
      deployments: users.map(({ id }) => id ?? null),
      isCorrupt: true,
    };
  });
}

/** Files that are called as entries are and cannot be read; only ours are ours to call damaged. */
function checkEntryFiles({ boot }: Sysroot): Finding[] {
  return listEntries(boot).problems.map(({ file, message }) => ({
    code: 'entry-unreadable',
    object: file,
    message: `The boot entry "${file}" cannot be read: ${message}`,
    deployments: [],
    isCorrupt: parseHostctlEntryName(file) !== undefined,
  }));
}
