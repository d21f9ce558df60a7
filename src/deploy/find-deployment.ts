/** Which deployment an ID on the command line means, and which image a deployment is. Pure. */

import { HostctlError } from '../errors.ts';
import { DIGEST } from '../store/image-record.ts';
import type { VerityDigest } from '../tree/node.ts';
import type { Deployment } from './deployments.ts';

/** Digits alone are an id up to this length; longer ones can only be a digest. */
const MAX_ID_DIGITS = 8;

/**
 * `id` is the sequence number a deployment was made with, or a prefix of the composefs digest that fits exactly one.
 * Throws 'deployment-not-found' or, where a prefix fits several, 'usage'.
 */
export function findDeployment(list: readonly Deployment[], id: string): Deployment {
  if (/^[0-9]+$/.test(id) && id.length <= MAX_ID_DIGITS) {
    const found = list.find((deployment) => deployment.id === Number(id));
    if (found !== undefined) return found;
  }
  if (!/^[0-9a-f]{1,128}$/.test(id)) {
    throw new HostctlError('usage', `"${id}" is neither the number of a deployment nor the beginning of a digest`);
  }
  const matches = list.filter((deployment) => deployment.name.startsWith(id));
  const [match] = matches;
  if (match === undefined) {
    throw new HostctlError('deployment-not-found', `There is no deployment "${id}"`, {
      hint: 'See "hostctl status" for those there are',
    });
  }
  if (matches.length > 1) {
    const ids = matches.map((deployment) => deployment.id ?? '?').join(', ');
    throw new HostctlError('usage', `"${id}" fits several deployments: ${ids}`, { hint: 'Give the number' });
  }
  return match;
}

/** The image of a deployment, from whatever record still tells it. */
export function deploymentImage({ origin, entries, name }: Deployment): VerityDigest | undefined {
  const [fromName = ''] = name.split('.');
  return (
    origin?.digest ?? entries[0]?.pinned?.digest ?? (DIGEST.test(fromName) ? (fromName as VerityDigest) : undefined)
  );
}
