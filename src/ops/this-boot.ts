/** What runs: the deployment and the very entry that this boot was started by. */

import { readDeployments, type Deployment, type Deployments } from '../deploy/deployments.ts';
import type { FoundEntry } from '../deploy/boot-entries.ts';
import { bootedEntry } from '../deploy/loader.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { splitCmdline } from '../format/cmdline.ts';
import type { Host } from '../sys/host.ts';

export interface ThisBoot {
  readonly deployments: Deployments;
  readonly booted: Deployment;
  /** Undefined when none is left that starts it. */
  readonly entry: FoundEntry | undefined;
}

/** Throws 'host-unsupported' on a machine that does not run a deployment. */
export function readThisBoot(host: Host, sysroot: Sysroot, verb: string): ThisBoot {
  const deployments = readDeployments(host, sysroot);
  const { booted } = deployments;
  if (booted === undefined) {
    throw new HostctlError('host-unsupported', 'This machine does not run a deployment of hostctl', {
      hint: `${verb} is for the running host; its unit calls it`,
    });
  }
  const entries = [...booted.onceEntries, ...booted.entries];
  return { deployments, booted, entry: bootedEntry(host, entries, splitCmdline(host.kernelCmdline())) };
}
