/** Whether this machine can run machines, and if not, why. */

import { statfs } from 'node:fs/promises';
import { mkdir } from 'node:fs/promises';
import { ensureHostPackages, VM_NEEDS } from '../../../scripts/lib/host-packages.ts';
import { cacheFolder } from './cache.ts';

const NEEDED_GIB = 4;

/**
 * Installs what can be installed. Returns the reason why no machine can be run here, or undefined.
 * @throws with that reason where HOSTCTL_VM=require: the tests must not be skipped then
 */
export async function reasonNoMachines(say: (line: string) => void): Promise<string | undefined> {
  const reason = await findReason(say);
  if (reason !== undefined && process.env.HOSTCTL_VM === 'require') {
    throw new Error(`HOSTCTL_VM=require, but no machine can run here: ${reason}`);
  }
  return reason;
}

async function findReason(say: (line: string) => void): Promise<string | undefined> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'this is not Linux on x86-64';
  if (process.getuid?.() !== 0) return 'building the machine needs root';
  await mkdir(cacheFolder(), { recursive: true });
  const { bavail, bsize } = await statfs(cacheFolder());
  const free = (bavail * bsize) / 2 ** 30;
  if (free < NEEDED_GIB) return `"${cacheFolder()}" has ${free.toFixed(1)} GiB free, ${NEEDED_GIB} GiB are needed`;
  try {
    await ensureHostPackages(VM_NEEDS, say);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  return undefined;
}
