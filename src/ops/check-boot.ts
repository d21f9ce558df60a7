/**
 * `check-boot`: what a boot must be for its deployment to count as good. By default only what does not depend on the
 * world outside: the root is the image that the command line pins, verified as the deployment says. Units that must not
 * have failed are for the host to name; its network being down is no fault of an image.
 */

import { HostctlError } from '../errors.ts';
import { findDigestArguments, parseKarg, splitCmdline } from '../format/cmdline.ts';
import type { BootFailure } from '../deploy/trials.ts';
import type { Host } from '../sys/host.ts';
import { unitStates } from './units.ts';

export interface BootChecks {
  /** Units that must not fail; `[boot] require`. */
  readonly requiredUnits: readonly string[];
}

export interface CheckedBoot {
  readonly digest: string;
  readonly requiredUnits: readonly string[];
}

/** Throws 'verity-mismatch' or 'state-invalid' when this boot is not a good one. */
export async function checkBoot(host: Host, checks: BootChecks): Promise<CheckedBoot> {
  const failure = await findBootFailure(host, checks);
  if (failure !== undefined) {
    throw new HostctlError(failure.code === 'unit-failed' ? 'state-invalid' : 'verity-mismatch', failure.message);
  }
  const digest = findDigestArguments(splitCmdline(host.kernelCmdline()))[0]?.digest ?? '';
  return { digest, requiredUnits: checks.requiredUnits };
}

/** The first check that fails. */
export async function findBootFailure(host: Host, { requiredUnits }: BootChecks): Promise<BootFailure | undefined> {
  return findRootFailure(host) ?? (await findUnitFailure(host, requiredUnits));
}

function findRootFailure(host: Host): BootFailure | undefined {
  const cmdline = splitCmdline(host.kernelCmdline());
  // systemd has then put a root of its own over ours.
  if (cmdline.map(parseKarg).some(({ key, value }) => key === 'systemd.volatile' && value !== 'state'))
    return undefined;
  const root = host.mounts.table().findLast(({ mountPoint }) => mountPoint === '/');
  const pinned = findDigestArguments(cmdline);
  const mounted = pinned.find(({ digest }) => root?.type === 'overlay' && root.source === `composefs:${digest}`);
  if (mounted === undefined) {
    const message = `The root is "${root?.source}", not the image ${pinned[0]?.digest} of the command line`;
    return { code: 'root-mismatch', message };
  }
  if (!mounted.verityRequired || root?.superOptions.includes('verity=require') === true) return undefined;
  return { code: 'root-unverified', message: `The image ${mounted.digest} is mounted without verity=require` };
}

/** Waits for those that are still starting: how long is for `boot-complete.target` to say. */
async function findUnitFailure(host: Host, units: readonly string[]): Promise<BootFailure | undefined> {
  const failed = (await unitStates(host, units)).filter(({ isFailed }) => isFailed).map(({ name }) => name);
  if (failed.length === 0) return undefined;
  return { code: 'unit-failed', message: `Failed although required: ${failed.join(', ')}` };
}
