/**
 * What the initramfs hook left when it refused to boot: `state/hostctl/boot-failure-<digest>`, lines of `key=value`
 * (docs/boot.md). A failure belongs to an image; it is no damage of the deployment and hinders nothing.
 */

import { readSmallText } from '../sys/files.ts';
import type { VerityDigest } from '../tree/node.ts';
import { removeRecord } from './records.ts';
import type { Sysroot } from './sysroot.ts';
import type { BootFailure } from './trials.ts';

/** The reason; undefined when the image never failed, or only root may know. */
export function readBootFailure({ hostState }: Sysroot, digest: VerityDigest): BootFailure | undefined {
  const text = readSmallText(`${hostState}/${failureFile(digest)}`);
  if (text === undefined) return undefined;
  const field = (key: string): string | undefined =>
    text
      .split('\n')
      .find((line) => line.startsWith(`${key}=`))
      ?.slice(key.length + 1);
  return { code: field('reason') ?? 'unknown', message: field('message') ?? 'The initramfs refused it' };
}

/** Forgets a failure durably: the image has come up since. */
export function clearBootFailure(sysroot: Sysroot, digest: VerityDigest): void {
  removeRecord(sysroot, failureFile(digest));
}

function failureFile(digest: VerityDigest): string {
  return `boot-failure-${digest}`;
}
