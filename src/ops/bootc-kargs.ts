/**
 * The kernel arguments of a host that bootc made, as ours: what its boot entry has, less what pins the image and what
 * the image brings. The rest is the host's and stays, above all what finds the root.
 */

import type { Deployment } from '../deploy/deployments.ts';
import { NO_KARGS, type KargSources } from '../deploy/kargs.ts';
import { repositoryContent } from '../deploy/materialize.ts';
import { isHostctlError } from '../errors.ts';
import { parseKarg } from '../format/cmdline.ts';
import { readComposefsImage } from '../format/erofs/reader.ts';
import { readImage } from '../store/images.ts';
import type { Repository } from '../store/repository.ts';
import type { Host } from '../sys/host.ts';
import { imageKargs } from './boot-facts.ts';

const PINNING = new Set(['composefs', 'composefs.digest', 'hostctl.state']);

/** Of a deployment without an origin of ours; none where bootc did not make it. */
export function bootcKargs(host: Host, repository: Repository, { bootc, entries }: Deployment): KargSources {
  const own = entries.findLast(({ sequence }) => sequence === undefined) ?? entries[0];
  if (bootc === undefined || own === undefined) return NO_KARGS;
  const image = kargsOfImage(host, repository, bootc);
  const brought = new Set(image.flatMap(({ kargs }) => kargs));
  return {
    ...NO_KARGS,
    image,
    user: own.kargs.filter((arg) => !PINNING.has(parseKarg(arg).key) && !brought.has(arg)),
  };
}

function kargsOfImage(
  host: Host,
  repository: Repository,
  { digest }: NonNullable<Deployment['bootc']>,
): KargSources['image'] {
  try {
    const tree = readComposefsImage(readImage(repository, digest));
    return imageKargs(tree, repositoryContent(repository), host.architecture);
  } catch (error) {
    if (!isHostctlError(error)) throw error;
    host.log.warn(`Kernel arguments of bootc's image are kept, since it cannot be read: ${error.message}`);
    return [];
  }
}
