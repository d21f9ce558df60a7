/**
 * What became of deployments that did not come up: each gets its reason on record, the newest one is remembered so that
 * it is not taken again by itself, and the numbers are there for a metrics collector.
 */

import type { Deployment, Deployments } from '../deploy/deployments.ts';
import { clearFailed, readFailed, writeFailed, type FailedDeployment } from '../deploy/failed.ts';
import { deploymentImage } from '../deploy/find-deployment.ts';
import { readHistory } from '../deploy/history.ts';
import type { BootLoader } from '../deploy/loader.ts';
import { ifSound } from '../deploy/records.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { writeTrial, type BootFailure } from '../deploy/trials.ts';
import { incomplete } from '../deploy/assessment.ts';
import type { Host } from '../sys/host.ts';

/**
 * The deployment that failed last, if none was tried since. Writes nothing; a reason that was never recorded is told as
 * far as it can be.
 */
export function lastFailure(
  sysroot: Sysroot,
  loader: BootLoader,
  { list, booted }: Deployments,
): FailedDeployment | undefined {
  const tried = list.filter(({ state }) => state !== 'staged');
  const newest = tried
    .map((item) => describeFailure(sysroot, loader, item, booted))
    .find((failure) => failure !== undefined);
  const recorded = ifSound(() => readFailed(sysroot));
  const failed = (newest?.id ?? 0) >= (recorded?.id ?? 0) ? newest : recorded;
  return failed === undefined || tried.some((item) => isNewSince(failed, item, tried)) ? undefined : failed;
}

/** Whether `item` is another image, and one that was not here before `failed` was. */
function isNewSince({ id, manifestDigest }: FailedDeployment, item: Deployment, list: readonly Deployment[]): boolean {
  const image = item.origin?.manifestDigest;
  if (image === undefined || (item.id ?? 0) <= id || image === manifestDigest) return false;
  return !list.some((older) => (older.id ?? 0) < id && older.origin?.manifestDigest === image);
}

/** How a deployment failed; undefined when it did not. */
function describeFailure(
  sysroot: Sysroot,
  loader: BootLoader,
  item: Deployment,
  booted: Deployment | undefined,
): FailedDeployment | undefined {
  const { state, id, trial, entries, bootFailure } = item;
  if (id === undefined || (state !== 'failed' && !isPassedOver(item, booted))) return undefined;
  const image = imageOf(sysroot, item);
  if (image === undefined) return undefined;
  const counted = entries.map((entry) => loader.counterOf(entry)?.done ?? 0);
  const attempts = Math.max(trial?.attempts ?? 0, ...counted);
  const failure = bootFailure ?? whySkipped(item) ?? incomplete(attempts);
  return { id, ...image, attempts, ...failure };
}

/** What a deployment was made of; where its own record is gone, the history tells. */
function imageOf(sysroot: Sysroot, item: Deployment): Pick<FailedDeployment, 'digest' | 'manifestDigest'> | undefined {
  if (item.origin !== undefined) return { digest: item.origin.digest, manifestDigest: item.origin.manifestDigest };
  const image = deploymentImage(item);
  const event = readHistory(sysroot, () => undefined).find(({ id, digest }) => id === item.id && digest === image);
  if (event?.manifestDigest === undefined) return undefined;
  return { digest: event.digest, manifestDigest: event.manifestDigest };
}

/** Whether the loader started what runs, and not this newer one that still has tries. */
function isPassedOver({ state, entries: [entry] }: Deployment, booted: Deployment | undefined): boolean {
  const isNewer = (entry?.sequence ?? 0) > (booted?.entries[0]?.sequence ?? Infinity);
  return state === 'trying' && isNewer && entry?.skipped !== undefined;
}

/** Why the loader cannot start it: systemd-boot leaves such an entry out, GRUB uses up its tries. */
function whySkipped({ id, entries: [entry] }: Deployment): BootFailure | undefined {
  if (entry?.skipped === undefined) return undefined;
  return { code: 'entry-skipped', message: `The boot loader left out the entry of deployment ${id}: ${entry.skipped}` };
}

/** Puts on record what `lastFailure` and `status` would otherwise have to guess again. */
export function recordFailures(
  host: Host,
  sysroot: Sysroot,
  loader: BootLoader,
  { list, booted }: Deployments,
  last: FailedDeployment | undefined,
): void {
  for (const item of list) {
    const failure = describeFailure(sysroot, loader, item, booted);
    if (failure === undefined || item.trial?.isFailed === true) continue;
    const { attempts, code, message } = failure;
    writeTrial(sysroot, item.name, {
      attempts,
      tries: item.trial?.tries ?? attempts,
      bootId: item.trial?.bootId ?? host.bootId(),
      failure: { code, message },
      isFailed: true,
      rollback: item.trial?.rollback,
    });
  }
  const recorded = ifSound(() => readFailed(sysroot));
  if (last === undefined) clearFailed(sysroot);
  else if (last.id !== recorded?.id || last.attempts !== recorded.attempts) writeFailed(sysroot, last);
}

/** One line for the journal and `status`. */
export function failureText({ id, digest, attempts, code, message }: FailedDeployment): string {
  const boots =
    attempts === 0 ? 'was not started' : attempts === 1 ? 'failed to boot once' : `failed to boot ${attempts} times`;
  return `Deployment ${id} (${digest}) ${boots} and was left by itself: ${message} (${code})`;
}

/** For a collector that reads text files. */
export function failureMetrics(failed: FailedDeployment | undefined): string {
  const labels = failed && `{id="${failed.id}",digest="${failed.digest}",reason="${failed.code}"}`;
  return [
    '# HELP hostctl_boot_failed Whether the deployment that was tried last failed and was left by itself.',
    '# TYPE hostctl_boot_failed gauge',
    `hostctl_boot_failed${labels ?? ''} ${failed === undefined ? 0 : 1}`,
    '# HELP hostctl_boot_failures Boots of that deployment.',
    '# TYPE hostctl_boot_failures gauge',
    `hostctl_boot_failures${labels ?? ''} ${failed?.attempts ?? 0}`,
    '',
  ].join('\n');
}
