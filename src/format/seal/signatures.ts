/**
 * Detached signatures: lines of `KEY-ID BASE64`, several where keys are rotated. A key id selects the key to try; a
 * line by a key that is not known is passed over.
 */

import { HostctlError } from '../../errors.ts';
import { isSignedBy, KEY_ID, type PublicKey } from './key.ts';

export interface Signature {
  readonly keyId: string;
  readonly bytes: Uint8Array;
}

/** The most lines that are read, here and in the initramfs. */
export const MAX_SIGNATURES = 16;
const MAX_CHARS = 8192;

/** Throws 'format-invalid'. */
export function parseSignatures(file: Uint8Array): Signature[] {
  const text = Buffer.from(file).toString('latin1');
  const lines = text.split('\n');
  if (text.length > MAX_CHARS || lines.pop() !== '' || lines.length === 0 || lines.length > MAX_SIGNATURES) {
    throw new HostctlError('format-invalid', `Signatures are 1 to ${MAX_SIGNATURES} whole lines`);
  }
  return lines.map((line) => {
    const [keyId = '', base64 = '', ...more] = line.split(' ');
    const bytes = Buffer.from(base64, 'base64');
    if (!KEY_ID.test(keyId) || more.length > 0 || bytes.length === 0 || bytes.toString('base64') !== base64) {
      throw new HostctlError('format-invalid', `"${line.slice(0, 100)}" is no signature (KEY-ID BASE64)`);
    }
    return { keyId, bytes };
  });
}

export function formatSignatures(signatures: readonly Signature[]): Uint8Array {
  return Buffer.from(
    signatures.map(({ keyId, bytes }) => `${keyId} ${Buffer.from(bytes).toString('base64')}\n`).join(''),
  );
}

/** Those of `keys` that signed exactly these bytes. */
export function signersOf(
  bytes: Uint8Array,
  signatures: readonly Signature[],
  keys: readonly PublicKey[],
): readonly PublicKey[] {
  return keys.filter((key) =>
    signatures.some((signature) => signature.keyId === key.id && isSignedBy(bytes, signature.bytes, key)),
  );
}
