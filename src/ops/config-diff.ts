/** `config-diff`: what was changed in a deployment's `/etc` against the default of its image. Reading only. */

import { readDeployments } from '../deploy/deployments.ts';
import { diffEtc, type EtcDifference } from '../deploy/etc-diff.ts';
import { scanDirectory } from '../deploy/etc-scan.ts';
import { readShadowed } from '../deploy/etc-shadowed.ts';
import { findDeployment } from '../deploy/find-deployment.ts';
import { openSysroot, type SysrootOptions } from '../deploy/sysroot.ts';
import { HostctlError, isHostctlError } from '../errors.ts';
import { requireRepository } from '../store/repository.ts';
import { isDirectory } from '../sys/files.ts';
import type { Host } from '../sys/host.ts';
import type { RawName } from '../tree/name.ts';
import type { VerityDigest } from '../tree/node.ts';
import { imageEtc } from './carry-etc.ts';
import { requireRoot } from './require-root.ts';

export interface ConfigDiffOptions extends SysrootOptions {
  /** Number or digest prefix; undefined takes what runs, else what boots next. */
  readonly id?: string | undefined;
}

export interface ConfigDiffResult {
  readonly id: number | undefined;
  readonly digest: VerityDigest;
  /** Paths relative to `/etc`, '' being `/etc` itself. */
  readonly differences: readonly EtcDifference[];
  /** Those of them where the image's default changed since the local version was made. */
  readonly shadowed: ReadonlySet<RawName>;
}

export function configDiff(host: Host, options: ConfigDiffOptions): ConfigDiffResult {
  requireRoot(host, 'compare "/etc" with the image');
  const sysroot = openSysroot(host, options);
  const { list, booted, next } = readDeployments(host, sysroot);
  const deployment = options.id === undefined ? (booted ?? next) : findDeployment(list, options.id);
  if (deployment === undefined) {
    throw new HostctlError('deployment-not-found', `Nothing is deployed in "${sysroot.path}"`, {
      hint: 'Deploy an image first',
    });
  }
  const digest = deployment.origin?.digest ?? deployment.entries[0]?.pinned?.digest;
  const etc = `${sysroot.deployments}/${deployment.name}/etc`;
  if (digest === undefined || !isDirectory(etc)) {
    const what = digest === undefined ? 'its image is not known' : `"${etc}" is missing`;
    throw new HostctlError('state-invalid', `Cannot compare deployment ${deployment.id ?? deployment.name}: ${what}`);
  }
  const repository = requireRepository(host, sysroot.repo);
  const differences = diffEtc(imageEtc(repository, digest), scanDirectory(host, etc, repository.algorithm));
  const changed = new Set(differences.map(({ path }) => path));
  return {
    id: deployment.id,
    digest,
    differences,
    shadowed: new Set(shadowedAt(host, etc).filter((path) => changed.has(path))),
  };
}

/** A broken record costs the marks, not the list. */
function shadowedAt(host: Host, etc: string): RawName[] {
  try {
    return readShadowed(etc);
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    host.log.warn(error.message);
    return [];
  }
}
