/** What tells the states of a host apart: what goes right from a state goes right from the same state. */

import { createHash, type Hash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Random parts of the names of what is not finished. */
const CHANCE = /\.[0-9a-f]{16}(?=\.|$)/;
const LOCK_HOLDER = 'state/hostctl/lock-holder';
const HISTORY = /^state\/hostctl\/history\//;

/** A hash of every name, mode, owner, content and target on two mounted file systems, without what is chance or time. */
export function fingerprint({ root, boot }: { readonly root: string; readonly boot: string }): string {
  const hash = createHash('sha256');
  for (const mountPoint of [root, boot]) addBelow(hash, mountPoint, '');
  return hash.digest('hex');
}

function addBelow(hash: Hash, mountPoint: string, directory: string): void {
  const named = readdirSync(bytes(`${mountPoint}/${directory}`), 'latin1').map((name) => {
    return { name, stable: name.startsWith('.') ? name.replace(CHANCE, '') : name };
  });
  named.sort((a, b) => (a.stable < b.stable ? -1 : 1));
  hash.update(`${named.length}\n`);
  for (const { name, stable } of named) {
    const path = `${directory}${name}`;
    const at = bytes(`${mountPoint}/${path}`);
    const stat = lstatSync(at);
    hash.update(`${stable}/${stat.mode} ${stat.uid} ${stat.gid}\n`, 'latin1');
    if (stat.isDirectory()) addBelow(hash, mountPoint, `${path}/`);
    if (stat.isSymbolicLink()) hash.update(`${readlinkSync(at, 'latin1')}/`, 'latin1');
    if (stat.isFile()) hash.update(createHash('sha256').update(contentOf(at, path)).digest());
  }
}

/** Another process holds the lock each time, and the time of what was done is under a checksum. */
function contentOf(at: Buffer, path: string): Buffer | string {
  if (path === LOCK_HOLDER) return '';
  const content = readFileSync(at);
  return HISTORY.test(path) ? content.toString('latin1').replaceAll(/^(time = |; sha256 ).*$/gm, '') : content;
}

/** Names are bytes, kept as latin1 text. */
function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1');
}
