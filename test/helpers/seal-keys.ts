/** Keys for tests, and seals signed by them. */

import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, type KeyObject } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { parsePublicKey, signBytes } from '../../src/format/seal/key.ts';
import { formatSignatures } from '../../src/format/seal/signatures.ts';

export interface TestKey {
  readonly id: string;
  readonly key: KeyObject;
  /** PEM. */
  readonly publicPem: string;
  readonly privatePem: string;
}

export function testKey(kind: 'ed25519' | 'p256' = 'ed25519'): TestKey {
  const pem = { publicKeyEncoding: { type: 'spki', format: 'pem' } } as const;
  const { publicKey, privateKey } =
    kind === 'ed25519'
      ? generateKeyPairSync('ed25519', pem as object)
      : generateKeyPairSync('ec', { namedCurve: 'prime256v1', ...(pem as object) });
  const publicPem = publicKey as unknown as string;
  return {
    id: parsePublicKey(publicPem).id,
    key: privateKey,
    publicPem,
    privatePem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

/** The same ed25519 key for the same word, for what is kept from one run to the next. */
export function knownKey(word: string): TestKey {
  const der = Buffer.from(`302e020100300506032b657004220420${hash('sha256', word, 'hex')}`, 'hex');
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const publicPem = createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString();
  const privatePem = key.export({ type: 'pkcs8', format: 'pem' }).toString();
  return { id: parsePublicKey(publicPem).id, key, publicPem, privatePem };
}

/** The signature file of `bytes` by these keys. */
export function signatures(bytes: Uint8Array, ...keys: readonly TestKey[]): Uint8Array {
  return formatSignatures(keys.map(({ id, key }) => ({ keyId: id, bytes: signBytes(bytes, key) })));
}

/** Writes both halves: `directory/name.key` and `directory/name.pub`. */
export function writeKey(directory: string, name: string, { privatePem, publicPem }: TestKey): string {
  writeFileSync(`${directory}/${name}.key`, privatePem, { mode: 0o600 });
  writeFileSync(`${directory}/${name}.pub`, publicPem);
  return `${directory}/${name}.key`;
}

/** With the bit at `at` turned over. */
export function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}
