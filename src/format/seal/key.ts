/**
 * Keys that sign seals, as PEM files of ed25519 or ECDSA P-256, and what they do. All of the cryptography is
 * node:crypto's; `openssl pkeyutl -rawin` makes and checks the same signatures.
 */

import { createPrivateKey, createPublicKey, hash, sign, verify, type KeyObject } from 'node:crypto';
import { HostctlError } from '../../errors.ts';

export interface PublicKey {
  /** SHA-256 of the key's SubjectPublicKeyInfo in hex. It selects a key and says nothing about trust. */
  readonly id: string;
  readonly key: KeyObject;
}

/** As long as two keys of a kind that is not for signing seals could be. */
const MAX_PEM_CHARS = 16384;
export const KEY_ID = /^[0-9a-f]{64}$/;

/** Reads a public key in PEM. Throws 'format-invalid' for anything else, private keys among it. */
export function parsePublicKey(pem: string): PublicKey {
  if (pem.length > MAX_PEM_CHARS || !pem.includes('-----BEGIN PUBLIC KEY-----')) {
    throw new HostctlError('format-invalid', 'It is not a public key in PEM (BEGIN PUBLIC KEY)');
  }
  return describe(imported(() => createPublicKey(pem)));
}

/** Reads a private key in PEM without a passphrase. Throws 'format-invalid'. */
export function parsePrivateKey(pem: string): { readonly key: KeyObject; readonly publicKey: PublicKey } {
  if (pem.length > MAX_PEM_CHARS) throw new HostctlError('format-invalid', 'It is no private key in PEM');
  const key = imported(() => createPrivateKey(pem));
  return { key, publicKey: describe(createPublicKey(key)) };
}

function imported(make: () => KeyObject): KeyObject {
  try {
    return make();
  } catch (cause) {
    throw new HostctlError('format-invalid', 'It is no key in PEM that can be read, or needs a passphrase', { cause });
  }
}

function describe(key: KeyObject): PublicKey {
  digestName(key);
  return { id: hash('sha256', key.export({ type: 'spki', format: 'der' }), 'hex'), key };
}

/** What is hashed before it is signed; null where the algorithm sees to it. Refuses other kinds of keys. */
function digestName(key: KeyObject): 'sha256' | null {
  if (key.asymmetricKeyType === 'ed25519') return null;
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType === 'ec' && curve === 'prime256v1') return 'sha256';
  const kind = [key.asymmetricKeyType, curve].filter((part) => part !== undefined).join(' ');
  throw new HostctlError('format-invalid', `It is a key of the kind "${kind}", not ed25519 or ECDSA P-256`);
}

export function signBytes(bytes: Uint8Array, key: KeyObject): Uint8Array {
  return sign(digestName(key), bytes, key);
}

/** Whether `signature` is the key's over exactly these bytes. */
export function isSignedBy(bytes: Uint8Array, signature: Uint8Array, { key }: PublicKey): boolean {
  return verify(digestName(key), bytes, key, signature);
}
