/**
 * What a host does not get where an image has a command line of its own. An argument without which it would not come up,
 * or would come up with another `/var`, is a reason to refuse the image; of any other it is enough to say so.
 */

import { chosenKargs, type KargSources } from '../deploy/kargs.ts';
import type { Sysroot } from '../deploy/sysroot.ts';
import { HostctlError } from '../errors.ts';
import { findKargs, parseKarg } from '../format/cmdline.ts';
import type { Host } from '../sys/host.ts';
import { namesLuks } from './install-plan.ts';
import { isRootDiscoverable } from './root-partition.ts';
import type { UnifiedCmdline } from './unified-kernel.ts';
import { extraVarMounts } from './var-mount.ts';

/** Throws 'host-unsupported' for what the host cannot do without; warns of the rest. */
export async function judgeUnusedKargs(
  host: Host,
  sysroot: Sysroot,
  { path, kargs: own }: UnifiedCmdline,
  wanted: KargSources,
): Promise<void> {
  const unused = chosenKargs(wanted)
    .filter(({ arg, origin }) => origin !== 'image' && !own.includes(arg))
    .map(({ arg }) => arg);
  if (unused.length === 0) return;
  const missing = unused.filter((arg) => isMissed(arg, own));
  const isRoot = (arg: string): boolean => parseKarg(arg).key === 'root';
  const isFound = missing.some(isRoot) && (await isRootDiscoverable(host, sysroot));
  const needed = missing.filter((arg) => !(isFound && isRoot(arg)));
  if (needed.length === 0) {
    host.log.warn(
      `The unified kernel image "${path}" has its own command line, and these are not in it: ${unused.join(' ')}`,
    );
    return;
  }
  throw new HostctlError(
    'host-unsupported',
    `Cannot boot by "${path}": its command line lacks what this host is found by, "${needed.join(' ')}"`,
    {
      hint: needed.every(isRoot)
        ? 'Have it made with "hostctl image seal --uki --karg root=…", or give the partition of the root, beside the ESP, the type that systemd looks for'
        : `Have it made with "hostctl image seal --uki${needed.map((arg) => ` --karg ${arg}`).join('')}"`,
    },
  );
}

/** Whether a host that boots by this argument would miss it, and no other takes its place. */
export function isMissed(arg: string, own: readonly string[]): boolean {
  const { key, value } = parseKarg(arg);
  if (key === 'root' || key === 'rootflags') return findKargs(own, key).length === 0;
  if (/^(rd\.)?luks\.(uuid|name)$/.test(key)) {
    const [uuid = ''] = (value ?? '').replace(/^luks-/, '').split('=');
    return !namesLuks(own, uuid);
  }
  return /^(rd\.)?luks\./.test(key) || (extraVarMounts([arg]) && !extraVarMounts(own));
}
