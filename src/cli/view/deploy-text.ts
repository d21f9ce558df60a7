/** What `deploy`, `upgrade` and `switch` did, for people. Pure. */

import type { DeployResult } from '../../ops/deploy.ts';
import type { DigestMaking } from '../../ops/stated-digests.ts';
import { displayRaw, rawFromText } from '../../tree/name.ts';

export function deployText({ changed, id, digest, entryFile, isStaged, unstaged, stated }: DeployResult): string {
  const dropped = unstaged === null ? '' : `Deployment ${unstaged} is not staged any more\n`;
  const when = isStaged ? 'is staged: it boots next once this system has shut down' : 'boots next';
  if (!changed) return `Nothing to do: deployment ${id} is this image and ${isStaged ? 'staged' : 'boots next'}\n`;
  return `Deployment ${id} ${when} ("${entryFile}")\nImage ${digest}\n${statedText(stated)}${dropped}`;
}

/** One line for each digest that the image states. */
function statedText(stated: DeployResult['stated']): string {
  return stated
    .map(
      ({ kind, name, fits }) =>
        `Stated by ${kind} ${displayRaw(rawFromText(name))}: ${fits === undefined ? 'another digest' : makingText(fits)}\n`,
    )
    .join('');
}

function makingText({ parameters, xattrs, bootable }: DigestMaking): string {
  return `fits as ${parameters}, ${xattrs}, ${bootable ? 'booted' : 'as it is'}`;
}
