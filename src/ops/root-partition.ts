/** The partition of the root as systemd finds it where no kernel argument says which it is (UAPI.2). */

import type { Sysroot } from '../deploy/sysroot.ts';
import { findPartition, readBlockFacts } from '../sys/block-facts.ts';
import type { Host } from '../sys/host.ts';

export const ESP_TYPE = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';

/** GPT types by Go's architecture name. */
const ROOT_TYPES: ReadonlyMap<string, string> = new Map([
  ['amd64', '4f68bce3-e8cd-4db1-96e7-fbcaf984b709'],
  ['arm64', 'b921b045-1df0-41c3-af44-4c6f280d3fae'],
  ['riscv64', '72ec70a6-cf74-40e6-bd49-4bda08e8f224'],
]);

/** Undefined for an architecture that nothing can be installed on. */
export function rootPartitionType(architecture: string): string | undefined {
  return ROOT_TYPES.get(architecture);
}

/** Whether the root is a partition of that type, on a disk with an ESP, which the loader must have started from. */
export async function isRootDiscoverable(host: Host, { path }: Sysroot): Promise<boolean> {
  const type = rootPartitionType(host.architecture);
  const mount = host.mounts.table().findLast(({ mountPoint }) => mountPoint === path);
  if (type === undefined || mount?.root !== '/') return false;
  const facts = await readBlockFacts(host.exec, mount.source);
  return facts?.partitionType === type && (await findPartition(host.exec, mount.source, ESP_TYPE)) !== undefined;
}
