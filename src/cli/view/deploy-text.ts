/** What `deploy`, `upgrade` and `switch` did, for people. Pure. */

import type { DeployResult } from '../../ops/deploy.ts';

export function deployText({ changed, id, digest, entryFile, isStaged, unstaged }: DeployResult): string {
  const dropped = unstaged === null ? '' : `Deployment ${unstaged} is not staged any more\n`;
  const when = isStaged ? 'is staged: it boots next once this system has shut down' : 'boots next';
  if (!changed) return `Nothing to do: deployment ${id} is this image and ${isStaged ? 'staged' : 'boots next'}\n`;
  return `Deployment ${id} ${when} ("${entryFile}")\nImage ${digest}\n${dropped}`;
}
