/** The `HostStatus` document, version 1: the fields scripts rely on, and nothing only a person would want. Pure. */

import { isUnified, type FoundEntry } from '../../deploy/boot-entries.ts';
import { entryOf, type Deployment } from '../../deploy/deployments.ts';
import type { StatusResult } from '../../ops/status.ts';

export interface StatusDocument {
  readonly apiVersion: 'hostctl/v1';
  readonly kind: 'HostStatus';
  readonly booted: number | null;
  readonly next: number | null;
  readonly staged: number | null;
  readonly rollback: number | null;
  readonly host: {
    readonly sysroot: string;
    readonly repository: string;
    readonly boot: string;
    readonly loader: string | null;
  };
  readonly deployments: readonly DeploymentDocument[];
  readonly warnings: readonly { readonly code: string; readonly message: string; readonly hint?: string }[];
}

const ROLES = ['booted', 'next', 'staged', 'rollback'] as const;
export type Role = (typeof ROLES)[number];

export interface DeploymentDocument {
  readonly id: number | null;
  readonly state: Deployment['state'];
  readonly triesLeft: number | null;
  readonly pinned: boolean;
  /** Also of one that has no number. */
  readonly roles: readonly Role[];
  /** Who made it, if not hostctl. */
  readonly tool: 'bootc' | null;
  readonly image: {
    readonly reference: string | null;
    readonly manifestDigest: string | null;
    readonly version: string | null;
    readonly created: string | null;
    /** `unsigned`, `broken`, or who: `sealed by KEY…`, `signed by KEY…`. */
    readonly signature: string;
  };
  /** What holds when it boots; `unverified` is nothing. See docs/threat-model.md. */
  readonly level: 'unverified' | 'pinned' | 'sealed-by-uki' | null;
  /** Whether its initramfs asks for a seal, so that no image without one boots by it. */
  readonly sealAtBoot: boolean;
  readonly composefs: {
    readonly digest: string | null;
    readonly hash: string | null;
    readonly version: number | null;
    readonly verity: 'required' | 'optional' | 'unavailable' | null;
  };
  readonly entry: {
    readonly file: string;
    readonly linux: string | null;
    readonly initrd: readonly string[];
    /** A unified kernel image, in the place of both. */
    readonly efi: string | null;
    readonly kargs: readonly string[];
  } | null;
  readonly problems: readonly { readonly code: string; readonly message: string }[];
}

export function statusDocument(
  { sysroot, deployments, loader, isSecureBoot, warnings }: StatusResult,
  bootedOnly: boolean,
): StatusDocument {
  const { booted, next, rollback, staged, list } = deployments;
  const shown = bootedOnly ? list.filter((deployment) => deployment === booted) : list;
  return {
    apiVersion: 'hostctl/v1',
    kind: 'HostStatus',
    booted: booted?.id ?? null,
    next: next?.id ?? null,
    staged: staged?.id ?? null,
    rollback: rollback?.id ?? null,
    host: { sysroot: sysroot.path, repository: sysroot.repo, boot: sysroot.boot.path, loader: loader ?? null },
    deployments: shown.map((item) =>
      deploymentDocument(
        item,
        ROLES.filter((role) => deployments[role] === item),
        isSecureBoot,
      ),
    ),
    warnings,
  };
}

/** As it was found when the image was deployed, unless the seal is not what it was. */
function signatureText(origin: Deployment['origin'], problems: Deployment['problems']): string {
  if (problems.some(({ code }) => code === 'seal-broken')) return 'broken';
  const parts = [
    ...(origin?.seal === undefined ? [] : [`sealed by ${origin.seal.keys.join(' ')}`]),
    ...(origin === undefined || origin.signedBy.length === 0 ? [] : [`signed by ${origin.signedBy.join(' ')}`]),
  ];
  return parts.length === 0 ? 'unsigned' : parts.join(', ');
}

/**
 * A kernel and an initramfs lie on the boot partition as plain files: a seal that they check is no more than they are. A
 * unified kernel image that such firmware starts at all is one that it verified, command line and all.
 */
function levelOf(entry: FoundEntry, isSecureBoot: boolean): DeploymentDocument['level'] {
  if (entry.pinned === undefined) return null;
  if (!entry.pinned.verityRequired) return 'unverified';
  return isUnified(entry) && isSecureBoot ? 'sealed-by-uki' : 'pinned';
}

function deploymentDocument(deployment: Deployment, roles: readonly Role[], isSecureBoot: boolean): DeploymentDocument {
  const { id, state, triesLeft, pinned, origin, bootc, problems, bootFailure, name } = deployment;
  const entry = entryOf(deployment);
  const stated = entry?.pinned;
  const parameters = origin?.parameters ?? stated?.parameters;
  return {
    id: id ?? null,
    state,
    triesLeft: triesLeft ?? null,
    pinned,
    roles,
    tool: bootc === undefined ? null : 'bootc',
    image: {
      reference: origin?.reference ?? bootc?.reference ?? null,
      manifestDigest: origin?.manifestDigest ?? bootc?.manifestDigest ?? null,
      version: origin?.version ?? null,
      created: origin?.created ?? null,
      signature: signatureText(origin, problems),
    },
    level: entry === undefined ? null : levelOf(entry, isSecureBoot),
    sealAtBoot: origin?.seal?.isForBoot === true,
    composefs: {
      digest: origin?.digest ?? stated?.digest ?? /^[0-9a-f]{64,128}/.exec(name)?.[0] ?? null,
      hash: parameters?.algorithm ?? null,
      version: parameters?.formatVersion ?? null,
      verity: stated === undefined ? null : stated.verityRequired ? 'required' : 'optional',
    },
    entry:
      entry === undefined
        ? null
        : {
            ...{ file: entry.file, linux: entry.linux ?? null, initrd: entry.initrd, efi: entry.efi ?? null },
            kargs: entry.kargs,
          },
    problems: [
      ...problems,
      ...(bootFailure === undefined
        ? []
        : [{ code: 'boot-failed', message: `The last boot failed: ${bootFailure.message} (${bootFailure.code})` }]),
    ],
  };
}
