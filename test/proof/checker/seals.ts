/**
 * What an initramfs with the host's keys would say to a deployment that was sealed: written from docs/seals.md for the
 * checker alone. Damage of a seal that an origin tells of is a deployment that does not boot.
 */

import { createPublicKey, verify } from 'node:crypto';
import type { Files } from './files.ts';

/** Why the seal of this deployment does not hold; undefined when it does, or its origin tells of none. */
export function sealProblem(root: Files, origin: string, digest: string): string | undefined {
  if (!/^sealed-by = /m.test(origin)) return undefined;
  const seal = root.read(`composefs/seals/${digest}`);
  const signatures = root.read(`composefs/seals/${digest}.sig`)?.toString('latin1');
  if (seal === undefined || signatures === undefined) return `the seal of ${digest} is missing`;
  const keys = (root.list('state/deploy') ?? [])
    // What a killed command left half made.
    .filter((name) => !name.startsWith('.'))
    .map((name) => `state/deploy/${name}/etc/hostctl/keys.d`)
    .flatMap((folder) => (root.list(folder) ?? []).flatMap((name) => root.read(`${folder}/${name}`) ?? []))
    .map((pem) => createPublicKey(pem));
  const isSigned = signatures
    .split('\n')
    .some((line) => keys.some((key) => verify(null, seal, key, Buffer.from(line.split(' ')[1] ?? '', 'base64'))));
  if (!isSigned) return `the seal of ${digest} is signed by nobody`;
  const lines = seal.toString('latin1').split('\n');
  if (lines[0] === 'hostctl-seal 1' && lines.some((line) => line.endsWith(`:${digest}`))) return undefined;
  return `the seal of ${digest} is for another image`;
}
