/** `status`: what is deployed, what runs, what would boot, and what is wrong. Read only; never fails for one record. */

import { isUnified, ONCE_KARG, type FoundEntry } from '../deploy/boot-entries.ts';
import { baseDeployment, readDeployments, tolerant, type Deployments, type Problem } from '../deploy/deployments.ts';
import { mountedBootPlaces } from '../deploy/boot-partition.ts';
import { efiName, oldLoaders } from '../deploy/loader-files.ts';
import { readFailed } from '../deploy/failed.ts';
import { checkFloor } from '../deploy/floor.ts';
import { isRevokedBy, readRevoked } from '../deploy/trust.ts';
import { readHistory } from '../deploy/history.ts';
import { readLeft } from '../deploy/left.ts';
import { bootLoader, type BootLoader } from '../deploy/loader.ts';
import { loaderText } from '../deploy/loader-variables.ts';
import { readFinalizeFailure } from '../deploy/staged.ts';
import { REVOKED_LIST, SEALS } from '../store/seals.ts';
import { isBadName } from '../format/bls/name.ts';
import { grubDefaults } from '../format/bls/grub-order.ts';
import { openSysroot, type Sysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import type { Host } from '../sys/host.ts';
import { failureText, lastFailure } from './boot-report.ts';
import { hostTrust, revokedLists } from './judge-image.ts';
import { hasUsrOverlay } from './usr-overlay.ts';

export interface StatusResult {
  readonly sysroot: Sysroot;
  readonly deployments: Deployments;
  /** What the boot loader of the running machine calls itself. */
  readonly loader: string | undefined;
  /** Whether the firmware of the running machine verifies what it starts; false of another sysroot. */
  readonly isSecureBoot: boolean;
  readonly warnings: readonly Warning[];
}

export interface Warning extends Problem {
  readonly hint?: string;
}

export function status(host: Host, options: SysrootOptions): StatusResult {
  const sysroot = openSysroot(host, options);
  const deployments = readDeployments(host, sysroot);
  const warnings = [
    ...deployments.warnings,
    ...stagedWarnings(sysroot, deployments),
    ...memoryWarnings(sysroot),
    ...failureWarnings(host, sysroot, deployments),
    ...trustWarnings(sysroot, deployments),
    ...bootWarnings(sysroot, deployments),
    ...countWarnings(sysroot, bootLoader(host, sysroot)),
    ...usrWarnings(host, sysroot),
    ...onceWarnings(deployments),
    ...oldLoaderWarnings(host, sysroot, deployments),
    ...bootcWarnings(deployments),
  ];
  // GRUB says nothing of itself, or only in its newer releases.
  const ownName = sysroot.boot.isGrub ? 'GRUB' : undefined;
  const loader = sysroot.isRunning ? (loaderText(host, 'LoaderInfo') ?? ownName) : undefined;
  const isSecureBoot =
    sysroot.isRunning && tolerant(() => host.isSecureBoot(), 'secure-boot-unknown', warnings) === true;
  return { sysroot, deployments, loader, isSecureBoot, warnings };
}

function stagedWarnings(sysroot: Sysroot, { stagedRecord }: Deployments): readonly Warning[] {
  const warnings: Warning[] = [];
  if (stagedRecord?.isLocked === true) {
    warnings.push({
      code: 'downloaded-only',
      message: `Deployment ${stagedRecord.id} is downloaded only: a shutdown does not make it boot`,
      hint: 'Run "hostctl upgrade --from-downloaded" when it shall',
    });
  }
  const failure = tolerant(() => readFinalizeFailure(sysroot), 'finalize-failure-unreadable', warnings);
  if (failure !== undefined) {
    warnings.push({
      code: 'finalize-failed',
      message: `Deployment ${failure.id} could not be finalized at shutdown (${failure.code}): ${failure.message}`,
      hint: 'Run "hostctl upgrade --from-downloaded" to try it again, or "hostctl unstage"',
    });
  }
  return warnings;
}

/** Records that only tell what was done: a broken one changes nothing but what is remembered. */
function memoryWarnings(sysroot: Sysroot): readonly Warning[] {
  const warnings: Warning[] = [];
  tolerant(() => readLeft(sysroot), 'left-unreadable', warnings);
  readHistory(sysroot, (name, error) => {
    const why = error instanceof Error ? error.message : String(error);
    warnings.push({ code: 'history-unreadable', message: `The record "${name}" cannot be read: ${why}` });
  });
  return warnings;
}

function failureWarnings(host: Host, sysroot: Sysroot, deployments: Deployments): readonly Warning[] {
  const warnings: Warning[] = [];
  tolerant(() => readFailed(sysroot), 'failed-unreadable', warnings);
  const failed = lastFailure(sysroot, bootLoader(host, sysroot), deployments);
  if (failed !== undefined) {
    warnings.push({
      code: 'boot-failed',
      message: failureText(failed),
      hint: '"hostctl upgrade" takes another image than this one; "hostctl switch IMAGE" takes it again',
    });
  }
  return warnings;
}

/** What became of the keys, the floor and the list of revoked images since the deployments were made. */
function trustWarnings(sysroot: Sysroot, deployments: Deployments): readonly Warning[] {
  const warnings: Warning[] = [];
  tolerant(() => checkFloor(sysroot), 'floor-unreadable', warnings);
  const trust = tolerant(() => hostTrust(sysroot, baseDeployment(deployments)), 'policy-invalid', warnings);
  if (trust === undefined) return warnings;
  warnings.push(...trust.problems.map((message) => ({ code: 'trust-unusable', message })));
  const listFile = `${sysroot.repo}/${SEALS}/${REVOKED_LIST}`;
  // Without a key nobody can say whether a list is one.
  if (trust.keys.length > 0) tolerant(() => readRevoked(listFile, trust.keys), 'revoked-unreadable', warnings);
  const revoked = revokedLists(sysroot, trust);
  const trusted = new Set(trust.keys.map(({ id }) => id));
  for (const { id, name, origin } of deployments.list) {
    if (origin === undefined) continue;
    if (isRevokedBy(revoked, origin.digest)) {
      warnings.push({
        code: 'image-revoked',
        message: `The image of deployment ${id ?? name} is revoked`,
        hint: 'Deploy another one; the initramfs refuses it where it knows the list',
      });
    }
    if (trusted.size > 0 && origin.seal !== undefined && !origin.seal.keys.some((key) => trusted.has(key))) {
      warnings.push({
        code: 'key-untrusted',
        message: `Deployment ${id ?? name} is sealed by keys that this host does not trust any more`,
      });
    }
  }
  return warnings;
}

function onceWarnings({ defaultEntry, list }: Deployments): readonly Warning[] {
  if (defaultEntry?.isOnce !== true) return [];
  const usual = list.find(({ name }) => name === defaultEntry.stateName)?.entries[0]?.kargs ?? [];
  const added = defaultEntry.kargs.filter((arg) => !usual.includes(arg) && arg !== ONCE_KARG);
  return [
    {
      code: 'kargs-once',
      message: `The next boot alone has other kernel arguments ("${defaultEntry.file}"): ${added.join(' ')}`,
      hint: 'To have it boot as usual, remove that entry',
    },
  ];
}

function usrWarnings(host: Host, { isRunning }: Sysroot): readonly Warning[] {
  if (!isRunning || !hasUsrOverlay(host.mounts.table())) return [];
  return [
    {
      code: 'usr-overlay',
      message: '/usr was made writable: what runs is not only what was deployed',
      hint: 'Changes in it are gone after the next boot',
    },
  ];
}

/** Only where the image runs: then the loader that it ships is at hand. */
function oldLoaderWarnings(host: Host, { boot }: Sysroot, { booted }: Deployments): readonly Warning[] {
  const efi = efiName(host.architecture);
  if (booted === undefined || efi === undefined) return [];
  const warnings: Warning[] = [];
  const found = tolerant(() => oldLoaders(efi, mountedBootPlaces(host, boot)), 'loader-unreadable', warnings) ?? [];
  for (const { path, installed, shipped } of found) {
    warnings.push({
      code: 'loader-outdated',
      message: `"${path}" is systemd-boot ${installed}, older than ${shipped} in the image`,
      hint: 'hostctl does not replace it: "bootctl update" does',
    });
  }
  return warnings;
}

function bootcWarnings({ list, next }: Deployments): readonly Warning[] {
  const theirs = list.filter(({ bootc }) => bootc !== undefined);
  if (theirs.length === 0) return [];
  const isTaken = next?.bootc === undefined;
  const are = theirs.length === 1 ? 'One deployment is' : `${theirs.length} deployments are`;
  return [
    {
      code: 'bootc-host',
      message: `${are} bootc's: hostctl leaves it to bootc, and can boot it`,
      hint: isTaken
        ? 'Do not run bootc here any more; "hostctl rollback --to DIGEST" goes back to its deployment'
        : '"hostctl switch IMAGE" goes on from it with deployments of hostctl',
    },
  ];
}

/** What a bad update cannot undo must be known before it is made. */
function countWarnings({ boot }: Sysroot, loader: BootLoader): readonly Warning[] {
  if (!boot.isGrub || loader.countsBoots()) return [];
  return [
    {
      code: 'no-automatic-rollback',
      message: `Automatic rollback: not available, since GRUB has not been able to write "${boot.path}/grub/grubenv"`,
      hint: 'GRUB can write to a plain partition with FAT, ext4 or XFS, and tries to at each boot',
    },
  ];
}

function bootWarnings({ boot }: Sysroot, { defaultEntry, next, list, entries }: Deployments): readonly Warning[] {
  if (list.length === 0) return [];
  if (defaultEntry === undefined) {
    return [
      {
        code: 'no-entry',
        message: 'There is no boot entry that the boot loader can start',
        hint: 'Deploy again; if the boot partition is not mounted, mount it or name it with --boot DIR',
      },
    ];
  }
  // A unified kernel image is not deployed where GRUB might choose.
  if (next !== undefined) return boot.isGrub || isUnified(defaultEntry) ? [] : loaderWarnings(entries, defaultEntry);
  return [
    {
      code: 'foreign-default',
      message: `The boot loader would start "${defaultEntry.file}", which is not a deployment of hostctl`,
      hint: 'hostctl does not touch foreign entries: remove it, or give it a later place',
    },
  ];
}

/** GRUB knows neither `sort-key` nor counters: a foreign entry can be first there and nowhere else. */
function loaderWarnings(entries: Deployments['entries'], defaultEntry: FoundEntry): readonly Warning[] {
  // Only systemd-boot uses entries up; what stands beside such an entry says nothing about GRUB.
  const shown = entries.filter(({ name, linux }) => !isBadName(name) && linux !== undefined);
  const others = grubDefaults(shown).filter((entry) => entry !== defaultEntry);
  if (others.length === 0) return [];
  const names = others.map(({ file }) => `"${file}"`).join(' or ');
  return [
    {
      code: 'loader-dependent',
      message: `systemd-boot would start "${defaultEntry.file}", GRUB may start ${names}`,
      hint: 'Without systemd-boot, give that entry a name and version that sort below "hostctl-"',
    },
  ];
}
